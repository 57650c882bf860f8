"""Cells of another machine."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mgoe import experiments
from mgoe.errors import OutputError
from mgoe.experiments import imports, records
from mgoe.experiments.asked import parts_of
from mgoe.experiments.plan import Plan
from tests.experiments.tiny import numbers, settings, taken_out


def test_a_comparison_resumes_on_another_machine(
    raw: dict[str, Any],
    compared: Path,
    world: Path,
    tmp_path: Path,
    in_this_process: None,
    said: pytest.LogCaptureFixture,
):
    """Where the log is stored elsewhere, nothing but `results.jsonl` was copied, and one more seed is asked
    for."""
    shutil.copytree(world, tmp_path / "moved")
    data = {"log": str(tmp_path / "moved" / "events"), "truth": str(tmp_path / "moved" / "truth")}
    moved = raw | {"logs": {"tiny": {"data": data, "tasks": ["click", "buy"]}}}
    out, file = tmp_path / "out", compared / "results.jsonl"
    experiments.compare(settings(moved), out, take=[file])
    assert said.messages[0] == f"{file}: 6 of 6 lines imported"
    assert said.messages[1:] == ["training 0 of 6 cells, 2 at a time", "  examples of tiny, seed 0"]
    whole = numbers(compared)
    pd.testing.assert_frame_equal(numbers(out), whole[whole["slice"] == "all"].reset_index(drop=True))
    for one, other in zip(
        *(json.loads((folder / "leads.json").read_text()) for folder in (out, compared)), strict=True
    ):
        assert (one["baseline"], one["task"], one["metric"], one["value"]) == (
            other["baseline"],
            other["task"],
            other["metric"],
            other["value"],
        )
        if other["low"] is not None:
            assert abs(one["low"] - other["low"]) < 0.02 * (other["high"] - other["low"]) + 1e-12
    tables = [(folder / "tables.md").read_text().split("\n\n")[2] for folder in (out, compared)]
    assert tables[0] == tables[1]  # quality and costs, the references of the world included
    (out / "results.jsonl").unlink()  # what is taken stays without it
    assert experiments.compare(settings(moved), out).waiting == 0
    assert (out / "leads.json").read_text() == (
        experiments.compare(settings(moved), out).path / "leads.json"
    ).read_text()


def test_cells_of_here_and_of_elsewhere_are_paired_user_by_user(
    raw: dict[str, Any], compared: Path, tmp_path: Path, said: pytest.LogCaptureFixture
):
    """A third of the cells are taken, the others were fitted: leads are those of one machine."""
    out, part = shutil.copytree(compared, tmp_path / "out"), tmp_path / "part.jsonl"
    part.write_text("".join(f"{line}\n" for line in taken_out(out, "mgoe")))
    experiments.compare(settings(raw), out, take=[part])
    assert said.messages == [f"{part}: 2 of 2 lines imported", "training 0 of 6 cells, 2 at a time"]
    for one, other in zip(
        *(json.loads((folder / "leads.json").read_text()) for folder in (out, compared)),
        strict=True,
    ):
        if other["low"] is not None:
            width = other["high"] - other["low"]
            assert [one["low"], one["high"]] == pytest.approx(
                [other["low"], other["high"]], abs=0.02 * width + 1e-12
            )


def test_of_other_settings_or_another_log_nothing_is_taken(own: dict[str, Any], least: Path, tmp_path: Path):
    file = least / "results.jsonl"
    for number, other in enumerate((own | {"training": {"epochs": 2}}, own)):
        result = experiments.compare(settings(other), tmp_path / f"other-{number}", take=[file], stop_after=0)
        assert result.waiting == 1 - number
    log = max((tmp_path / "log").rglob("*.parquet"))
    pd.read_parquet(log).iloc[:-1].to_parquet(log)
    assert experiments.compare(settings(own), tmp_path / "changed", take=[file], stop_after=0).waiting == 1
    line = json.loads(file.read_text())
    damaged = tmp_path / "damaged.jsonl"
    pd.read_parquet(log).to_parquet(log)
    plan = Plan(settings(own), tmp_path / "plan")
    [part] = [part for part in parts_of(plan, plan.cells) if part.path == plan.cells[0].folder]
    damaged.write_text(json.dumps(line | {"asked": part.digest, "influence": {"metrics": []}}))
    with pytest.raises(
        OutputError, match=r"damaged\.jsonl: the line of tiny, shared-bottom, seed 0 is damaged"
    ):
        experiments.compare(settings(own), tmp_path / "again", take=[damaged])
    with pytest.raises(OutputError, match="cannot be read"):
        experiments.compare(settings(own), tmp_path / "again", take=[tmp_path / "none.jsonl"])


def test_a_cell_is_taken_whole_or_not_at_all(
    own: dict[str, Any],
    least: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    in_this_process: None,
    said: pytest.LogCaptureFixture,
):
    """Where a fit of here was cut off, nothing of it stays beside what is taken, and the other way round."""
    file, made = least / "results.jsonl", settings(own)
    plan = Plan(made, tmp_path / "there")
    cell = plan.cells[0]
    (cell.folder / "checkpoints").mkdir(parents=True)
    for part in parts_of(plan, plan.cells):
        part.begin()
    (plan.out / "comparison.yaml").touch()

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(imports, "write_rows", stop)
        with pytest.raises(KeyboardInterrupt):
            experiments.compare(made, tmp_path / "there", take=[file])
    assert not (cell.folder / "imported.json").exists()
    assert experiments.compare(made, tmp_path / "there", take=[file], stop_after=0).waiting == 0
    assert {path.name for path in cell.folder.iterdir()} == {
        "metrics.json",
        "imported.json",
        "influence.safetensors",
    }
    (cell.folder / "imported.json").write_text("{")
    said.clear()
    assert experiments.compare(made, tmp_path / "there", stop_after=0).waiting == 1
    assert said.messages[0].startswith(
        f"damaged, to be computed again: {cell.folder / 'imported.json'}: is not valid JSON"
    )


def test_references_of_the_first_seed_may_be_made_for_another(
    raw: dict[str, Any], compared: Path, tmp_path: Path, in_this_process: None, said: pytest.LogCaptureFixture
):
    """And the same command then finds all it made to be of the same settings."""
    for _ in range(2):
        said.clear()
        assert (
            experiments.compare(
                settings(raw), tmp_path / "out", seeds=[1], take=[compared / "results.jsonl"]
            ).failed
            == {}
        )
    assert said.messages[1:] == ["training 0 of 3 cells, 2 at a time"]


def test_cells_are_taken_with_the_search_they_were_fitted_with(
    tuned: dict[str, Any], searched: Path, tmp_path: Path, said: pytest.LogCaptureFixture
):
    asked, file = settings(tuned), searched / "results.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["state"] for line in lines] == ["searched", "finished"]
    assert lines[0]["search"] == json.loads((searched / "logs/tiny/tuned/shared-bottom.json").read_text())
    assert experiments.compare(asked, tmp_path / "there", take=[file], stop_after=0).waiting == 0
    search, cell = tmp_path / "search.jsonl", tmp_path / "cell.jsonl"
    for path, line in zip((search, cell), lines, strict=True):
        path.write_text(json.dumps(line))
    said.clear()
    assert experiments.compare(asked, tmp_path / "alone", take=[cell], stop_after=0).waiting == 1
    assert said.messages[0] == f"{cell}: 0 of 1 lines imported; 1 waiting for a search"
    for number, files in enumerate(([search, cell], [cell, search])):
        assert experiments.compare(asked, tmp_path / f"both-{number}", take=files, stop_after=0).waiting == 0
    other = [lines[0], lines[1] | {"tuned": {"training": {"learning_rate": 0.5}}}]
    (tmp_path / "other.jsonl").write_text("\n".join(map(json.dumps, other)))
    said.clear()
    assert (
        experiments.compare(asked, tmp_path / "else", take=[tmp_path / "other.jsonl"], stop_after=0).waiting
        == 1
    )
    assert said.messages[0] == f"{tmp_path / 'other.jsonl'}: 1 of 2 lines imported; 1 of another search"


def test_of_several_lines_the_latest_is_taken_whichever_file_holds_it(
    own: dict[str, Any], least: Path, tmp_path: Path, said: pytest.LogCaptureFixture
):
    line = json.loads((least / "results.jsonl").read_text())
    files = [tmp_path / "earlier.jsonl", tmp_path / "later.jsonl"]
    for year, file in zip(("2001", "2002"), files, strict=True):
        file.write_text(json.dumps(line | {"at": f"{year}-01-01T00:00:00+00:00", "parameters": int(year)}))
    for number, take in enumerate((files, files[::-1])):
        said.clear()
        out = experiments.compare(settings(own), tmp_path / f"there-{number}", take=take, stop_after=0).path
        assert records.latest(out)["tiny", "shared-bottom", 0]["parameters"] == 2002
        assert (
            f"{files[0]}: 0 of 1 lines imported; 1 there already, or of other settings or another log"
            in said.messages
        )


def test_a_cell_that_was_measured_on_other_rows_is_left_out(
    raw: dict[str, Any], compared: Path, tmp_path: Path
):
    out, other = shutil.copytree(compared, tmp_path / "out"), tmp_path / "other.jsonl"
    line = json.loads(taken_out(out, "shared-bottom")[0])
    for examples, waiting in (({"valid": "0", "test": "1"}, 2), (line["examples"], 1)):
        other.write_text(json.dumps(line | {"examples": examples}))
        assert experiments.compare(settings(raw), out, take=[other], stop_after=0).waiting == waiting
