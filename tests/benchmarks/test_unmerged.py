"""One graph per task, on a small world."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import unmerged
from mgoe.config import RunSettings
from mgoe.graph import MacroGraph
from mgoe.models.layers.experts import LEADS_TO, MacroExperts
from mgoe.models.layers.inputs import DenseInputs
from tests.effort import slow
from tests.models.batches import make_spec, random_batch


@given(
    tasks=st.integers(1, 3),
    seed=st.integers(0, 99),
    second=st.booleans(),
    shared=st.booleans(),
    mask=st.booleans(),
)
def test_an_expert_reads_the_graph_of_its_task_as_it_would_read_a_single_one(
    tasks, seed, second, shared, mask
):
    """Aggregates and numbers, given the other graphs' edges beside its own."""
    single = make_spec(tasks)
    sizes = {
        order: single.macro_users if side == "user" else single.macro_items
        for order, side in LEADS_TO.items()
    }
    several = replace(single, widths=single.widths | {order: tasks * size for order, size in sizes.items()})
    switches = {
        "width": 3,
        "aggregate": 4,
        "tau": 1.3,
        "mask_empty": mask,
        "second_order": second,
        "shared_macro": shared,
    }
    torch.manual_seed(seed)
    own = unmerged.OwnGraphs(single, tasks, **switches)
    one = MacroExperts(single, tasks, **switches)
    one.load_state_dict(own.state_dict())
    numbers = unmerged.OwnNumbers(several)
    of_one = DenseInputs(replace(single, widths=single.widths | sizes), ["aggregates"], 0, edge_vectors=True)
    batches = [random_batch(single, 5, seed + task) for task in range(tasks)]
    side_by_side = {order: torch.cat([batch[order] for batch in batches], 1) for order in LEADS_TO}
    for found, *each in zip(own(side_by_side), *(one(batch) for batch in batches), strict=True):
        for expert in range(tasks):
            torch.testing.assert_close(found[expert], each[expert][expert])
    found = numbers(side_by_side)
    for expert in range(tasks):
        torch.testing.assert_close(found[expert], of_one(batches[expert]))


@slow
def test_the_lead_of_merging_is_printed_with_its_interval(
    small: RunSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(small.model_dump(mode="json")))
    unmerged.main([str(tmp_path / "small.yaml"), "--out", str(tmp_path / "out")])
    found = {figure["name"]: figure for figure in map(json.loads, capsys.readouterr().out.splitlines())}
    lead = found["unmerged.lead.mean"]["value"]
    assert found["unmerged.lead.mean.low"]["value"] < lead < found["unmerged.lead.mean.high"]["value"]
    columns = [
        figure
        for name, figure in found.items()
        if not name.startswith("unmerged.lead") and not name.startswith("unmerged.all")
    ]
    assert lead == pytest.approx(
        np.mean([column["against"] - column["value"] for column in columns]), abs=2e-5
    )
    assert lead != 0
    events = [MacroGraph.open(tmp_path / "out" / "tasks" / task).meta["events"] for task in small.task_names]
    assert sum(events) == MacroGraph.open(tmp_path / "out" / "graph").meta["events"]
    assert len(set(events)) > 1
    [one, other] = (
        json.loads(file.read_text())["parameters"] for file in (tmp_path / "out").rglob("fit.json")
    )
    assert one == other
