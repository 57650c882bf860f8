"""The compiled dense part computes what it computes otherwise."""

import pytest
import torch

from mgoe.errors import TrainingError
from mgoe.models import make_model
from mgoe.training.compiling import compile_dense
from tests.models.batches import make_spec, random_batch

CPU = torch.device("cpu")


def test_losses_gradients_and_names_are_the_same_for_every_size_of_batch():
    spec = make_spec(2)
    plain, compiled = make_model("mgoe", spec, 0), make_model("mgoe", spec, 0)
    compile_dense(compiled, CPU)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    assert any(module._compiled_call_impl is not None for module in compiled.modules())
    for rows in (64, 17):
        batch = random_batch(spec, rows)
        found = []
        for model in (plain, compiled):
            model.zero_grad()
            loss, _ = model.loss(batch)
            loss.backward()
            found.append((loss.detach(), [p.grad for p in model.dense()]))
        torch.testing.assert_close(found[0][0], found[1][0], atol=1e-5, rtol=1e-5)
        for one, other in zip(found[0][1], found[1][1], strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_tables_stay_as_they_are():
    spec = make_spec(2)
    model = make_model("mgoe-paper", spec, 0)
    compile_dense(model, CPU)
    tables = {id(table) for table in model.tables()}
    for module in model.modules():
        if any(id(p) in tables for p in module.parameters()):
            assert module._compiled_call_impl is None


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(TrainingError, match=r"training.compile: needs a C\+\+ compiler, found none"):
        compile_dense(make_model("mgoe", make_spec(2), 0), CPU)
