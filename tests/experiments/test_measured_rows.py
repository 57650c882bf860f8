"""All cells of a log are measured on the same rows."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from numpy.testing import assert_array_equal

from mgoe import experiments
from mgoe.data import Prepared
from mgoe.errors import OutputError
from mgoe.graph import MacroGraph
from mgoe.pipeline import records
from mgoe.pipeline.consistency import measured_cells, odd_seed
from mgoe.pipeline.plan import Plan
from tests.experiments.tiny import settings


def test_seeds_vary_training_and_not_the_measured_rows(compared: Path):
    seeds = [compared / "logs" / "tiny" / "seeds" / str(seed) for seed in (0, 1)]
    a, b = (Prepared.open(seed / "data") for seed in seeds)
    for split in ("valid", "test"):
        for one, other in zip(a.examples(split).columns(), b.examples(split).columns(), strict=True):
            assert_array_equal(one, other)
    trained = [part.examples("train") for part in (a, b)]
    positives = [part.take((part.labels > 0).any(1)) for part in trained]
    for one, other in zip(positives[0].columns(), positives[1].columns(), strict=True):
        assert_array_equal(one, other)
    drawn = [part.item[~(part.labels > 0).any(1)] for part in trained]
    assert len(drawn[0]) != len(drawn[1]) or (drawn[0] != drawn[1]).any()
    graphs = [
        MacroGraph.open(folder).manifest.settings
        for seed in seeds
        for folder in (seed / "graph", seed / "graphs" / "random")
    ]
    assert [(graph.seed, graph.clusters) for graph in graphs] == [
        (0, "learned"),
        (0, "random"),
        (1, "learned"),
        (1, "random"),
    ]


def test_a_log_prepared_with_other_rows_than_cells_were_measured_on_fails_before_training(
    own: dict[str, Any], least: Path, tmp_path: Path
):
    out = shutil.copytree(least, tmp_path / "out")
    both = settings(own, models=["shared-bottom", "single-task"])
    line = json.loads((out / "results.jsonl").read_text())
    records.append(out, line | {"examples": {"valid": "0", "test": "1"}})
    shutil.rmtree(out / "logs/tiny/seeds/0")
    for _ in ("it is prepared again", "all is prepared"):
        result = experiments.compare(both, out)
        [(title, reason)] = result.failed.items()
        assert title == "tiny, single-task, seed 0"
        assert "seeds/0: holds other rows to measure on than tiny, shared-bottom, seed 0, so" in reason
        assert not (result.path / "logs/tiny/cells/single-task/0").exists()
    assert "- single-task: failed with seed 0: " in (result.path / "tables.md").read_text()


def test_seeds_that_are_prepared_otherwise_are_noticed(raw: dict[str, Any], compared: Path, tmp_path: Path):
    plan = Plan(settings(raw), shutil.copytree(compared, tmp_path / "out"))
    log, cells = plan.logs["tiny"], measured_cells(plan, plan.logs["tiny"], records.latest(plan.out))
    assert [len(titles) for titles in cells.values()] == [6]
    assert [odd_seed(log, seed, (0, 1), known) for seed in (0, 1) for known in (cells, {})] == [""] * 4
    (log.stage(1) / "examples.json").write_text('{"test": "another"}')
    assert odd_seed(log, 0, (0, 1), cells) == ""
    assert "than tiny, mgoe, seed 0; tiny, shared-bottom, seed 0; " in odd_seed(log, 1, (0, 1), cells)
    assert "seed 1 and 1 more, so" in odd_seed(log, 1, (0, 1), cells)
    assert "than seed 0, so" in odd_seed(log, 1, (0, 1), {})
    assert "than seed 1, so" in odd_seed(log, 0, (0, 1), {})


def test_odd_cells_are_named_and_the_tables_of_other_logs_are_written(
    raw: dict[str, Any], compared: Path, tmp_path: Path
):
    out = shutil.copytree(compared, tmp_path / "out")
    shutil.copytree(out / "logs" / "tiny", out / "logs" / "twin")
    lines = [*records.latest(out).values()]
    for line in lines:
        records.append(out, line | {"log": "twin"})
    [odd] = [line for line in lines if (line["model"], line["seed"]) == ("mgoe", 1)]
    records.append(out, odd | {"examples": {"valid": "0", "test": "1"}})
    both = settings(raw, logs={"tiny": raw["logs"]["tiny"], "twin": raw["logs"]["tiny"]})
    with pytest.raises(
        OutputError,
        match=r"logs/tiny: cells were measured on different rows, .*: tiny, mgoe, seed 1 on others than",
    ):
        experiments.compare(both, out)
    tiny, twin = (out / "tables.md").read_text().split("## ")[1:]
    assert "tiny, mgoe, seed 1 on others than most" in tiny
    assert not re.search(r"0\.\d{4}", tiny)
    assert twin.partition("\n")[2] == (compared / "tables.md").read_text().partition("\n")[2]
    shutil.rmtree(out / "logs" / "tiny" / "cells" / "mgoe" / "1")
    assert experiments.compare(both, out, stop_after=0).waiting == 1
