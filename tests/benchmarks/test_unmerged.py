"""A graph a task, on a small world."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import unmerged
from mgoe.config import RunSettings
from mgoe.models.experts import SIDES, MacroExperts
from tests.effort import up_to
from tests.models.batches import make_spec, random_batch

SWITCHES = {"width": 3, "aggregate": 4, "tau": 1.3, "mask_empty": True}


@up_to(20)
@given(tasks=st.integers(1, 3), members=st.integers(1, 3), seed=st.integers(0, 99))
def test_an_expert_reads_the_graph_of_its_task_as_it_would_read_a_single_one(tasks: int, members: int, seed: int):
    spec = make_spec(tasks)
    torch.manual_seed(seed)
    own = unmerged.OwnGraphs(spec, members * tasks, **SWITCHES)
    one = MacroExperts(spec, members * tasks, **SWITCHES)
    one.load_state_dict(own.state_dict())
    batches = [random_batch(spec, 5, seed + task) for task in range(tasks)]
    side_by_side = {order: torch.cat([batch[order] for batch in batches], 1) for order in SIDES}
    for found, *each in zip(own(side_by_side), *(one(batch) for batch in batches), strict=True):
        for expert in range(members * tasks):
            torch.testing.assert_close(found[expert], each[expert % tasks][expert])


def test_the_lead_of_merging_is_printed_with_its_interval(small: RunSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(small.model_dump(mode="json")))
    unmerged.main([str(tmp_path / "small.yaml"), "--out", str(tmp_path / "out")])
    found = {figure["name"]: figure for figure in map(json.loads, capsys.readouterr().out.splitlines())}
    lead = found["unmerged.lead.mean"]["value"]
    assert found["unmerged.lead.mean.low"]["value"] < lead < found["unmerged.lead.mean.high"]["value"]
    columns = [figure for name, figure in found.items() if not name.startswith("unmerged.lead") and not name.startswith("unmerged.all")]
    assert lead == pytest.approx(np.mean([column["against"] - column["value"] for column in columns]), abs=2e-5)
    assert lead != 0
