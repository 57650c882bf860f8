"""What is said below a table."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mgoe import experiments
from mgoe.experiments.report import failed_trials, several
from tests.experiments.tiny import settings


def test_cells_of_several_revisions_are_said_to_be():
    assert several("revision", [{"revision": "a"}] * 3) == []
    [sentence] = several("revision", [{"revision": "a"}, {"revision": "b"}, {"revision": "b"}])
    assert sentence.endswith("b (2), a (1).")


@pytest.mark.parametrize("key", ["precision", "processor"])
def test_cells_that_the_machine_made_otherwise_are_said_to_be(key: str):
    assert several(key, [{key: "a"}, {key: "a"}, {key: None}, {}]) == []
    [sentence] = several(key, [{key: "a"}, {key: "b"}, {key: "b"}, {}])
    assert sentence.endswith("b (2), a (1).")


def test_trials_that_failed_are_said_with_their_reason():
    lost = {"value": None, "failed": "memory"}
    trials = [{"value": 0.5, "failed": ""}, lost, {"value": None, "failed": "NaN"}, lost]
    assert [*failed_trials({"a": trials, "b": trials[:1]})] == ["search of a: 3 of 4 trials failed (memory)"]


def test_a_table_says_where_its_cells_came_from(raw: dict[str, Any], compared: Path, tmp_path: Path):
    lines = [json.loads(line) for line in (compared / "results.jsonl").read_text().splitlines()]
    for line in lines[:2]:
        line |= {"precision": "float16", "processor": "abacus"}
    out = shutil.copytree(compared, tmp_path / "out")
    (out / "results.jsonl").write_text("\n".join(map(json.dumps, lines)))
    experiments.compare(settings(raw), out, stop_after=0)
    below = [line for line in (out / "tables.md").read_text().splitlines() if line.startswith("- ")]
    assert below[0].startswith("- Cells were trained in several precisions: ")
    assert below[0].endswith("float16 (2).")
    assert below[1].startswith(
        "- Costs (training s, CPU s, scored/s, ms per 500) were measured on several processors"
    )
    assert below[1].endswith("abacus (2).")
