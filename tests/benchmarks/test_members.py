"""Bottoms that are averaged, on a small world."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from benchmarks import members
from mgoe.config import RunSettings
from mgoe.models import SharedBottomOptions
from tests.effort import slow
from tests.models.batches import make_spec, random_batch

INPUTS = ["counts", "pair", "aggregates", "ids"]


@pytest.mark.parametrize("tasks", [1, 3])
def test_members_are_bottoms_of_one_first_layer(tasks):
    spec = make_spec(tasks)
    model, batch = members.Members(spec, INPUTS, SharedBottomOptions(knots=(0.0,))).eval(), random_batch(spec)
    each = model.each(batch)
    without = {key: value for key, value in batch.items() if key != "position"}
    torch.testing.assert_close(model(without), model.each(without).mean(0))
    assert model.bottom.members is not None
    own = [model.bottom.members.scale, model.bottom.members.shift, model.towers.out.weight]
    gradients = torch.autograd.grad(each[1].sum(), own)
    for gradient in gradients:  # of the second member alone
        mine = gradient.unflatten(0, (members.MEMBERS, -1)).flatten(1).abs().sum(1)
        assert (mine > 0).tolist() == [False, True, False, False]
    with torch.no_grad():
        model.bottom.members.shift[1] += 1
        model.towers.mlp.bias[tasks : 2 * tasks] += 1
    changed = (model.each(batch) != each).flatten(1).any(1)
    assert changed.tolist() == [False, True, False, False]


@slow
def test_the_lead_is_printed_with_its_interval(
    small: RunSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(small.model_dump(mode="json")))
    members.main([str(tmp_path / "small.yaml"), "--out", str(tmp_path / "out")])
    found = {
        figure["name"]: figure["value"] for figure in map(json.loads, capsys.readouterr().out.splitlines())
    }
    assert found["members.lead.mean.low"] < found["members.lead.mean"] < found["members.lead.mean.high"]
