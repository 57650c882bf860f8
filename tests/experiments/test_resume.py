"""What cannot be read any more is found and computed again."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mgoe import experiments
from mgoe.pipeline import records
from mgoe.pipeline.nodes import nodes_of
from mgoe.pipeline.plan import Plan
from tests.experiments.tiny import numbers, settings


def test_damaged_cells_are_found_and_recomputed(
    raw: dict[str, Any], compared: Path, tmp_path: Path, in_this_process: None, said: pytest.LogCaptureFixture
):
    out = shutil.copytree(compared, tmp_path / "out")
    log = out / "logs" / "tiny"
    broken = [
        log / "cells" / name
        for name in ("mgoe/0/metrics.json", "shared-bottom/1/influence.safetensors", "mgoe:random/0/fit.json")
    ]
    shared = [log / name for name in ("references.json", "seeds/1/examples.json")]
    for path in broken + shared:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    result = experiments.compare(settings(raw), out)
    assert (result.failed, result.waiting) == ({}, 0)
    for path in broken + shared:
        assert sum(line.startswith(f"damaged, to be computed again: {path}: ") for line in said.messages) == 1
    assert "training 3 of 6 cells, 2 at a time" in said.messages
    pd.testing.assert_frame_equal(numbers(out), numbers(compared))
    for path in shared:
        assert path.read_bytes() == (compared / path.relative_to(out)).read_bytes()
    said.clear()
    experiments.compare(settings(raw), out)
    assert said.messages == ["training 0 of 6 cells, 2 at a time"]


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', '{"a": {"bytes": 1}}'])
def test_damaged_checksums_of_a_log_are_computed_again(
    own: dict[str, Any], tmp_path: Path, text: str, said: pytest.LogCaptureFixture
):
    out, made = tmp_path / "out", settings(own)
    plan = Plan(made, out)
    for part in nodes_of(plan, plan.cells):
        part.begin()
    (out / "comparison.yaml").touch()
    file = out / "logs" / "tiny" / "source.json"
    before = file.read_text()
    file.write_text(text)
    experiments.compare(made, out, stop_after=0)
    assert said.messages[0].startswith(f"damaged, to be computed again: {file}: ")
    assert file.read_text() == before


def test_a_damaged_search_goes_with_what_it_decided(
    tuned: dict[str, Any], searched: Path, tmp_path: Path, said: pytest.LogCaptureFixture
):
    asked, out = settings(tuned, seeds=[0, 1]), shutil.copytree(searched, tmp_path / "out")
    assert experiments.compare(asked, out, stop_after=0).waiting == 1  # the second seed
    (search := out / "logs/tiny/tuned/shared-bottom.json").write_text("{")
    said.clear()
    assert experiments.compare(asked, out, stop_after=0).waiting == 2
    assert said.messages[0].startswith(f"damaged, to be computed again: {search}: ")
    assert records.latest(out)["tiny", "shared-bottom", 0]["state"] == "outdated"


@pytest.mark.parametrize(("gone", "again"), [("seeds", True), ("seeds/0/examples.json", False)])
def test_a_cell_without_its_line_is_known_by_its_data_or_computed_again(
    own: dict[str, Any],
    least: Path,
    tmp_path: Path,
    in_this_process: None,
    gone: str,
    again: bool,
    said: pytest.LogCaptureFixture,
):
    out, made = shutil.copytree(least, tmp_path / "out"), settings(own)
    before, lines, path = numbers(out), out / "results.jsonl", out / "logs/tiny" / gone
    lines.write_bytes(lines.read_bytes()[:-2000])
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert experiments.compare(made, out).waiting == 0
    folder = out / "logs/tiny/cells/shared-bottom/0"
    assert again == any(
        line.startswith(f"to be computed again: {folder}: its line in results.jsonl is missing")
        for line in said.messages
    )
    assert f"training {int(again)} of 1 cells, 2 at a time" in said.messages
    assert records.latest(out)["tiny", "shared-bottom", 0]["state"] == "finished"
    pd.testing.assert_frame_equal(numbers(out), before)
