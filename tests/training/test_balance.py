"""Balanced tasks: gradients are what TorchJD makes of the whole Jacobian, in parts and over processes;
learned weights are learned."""

import builtins
import importlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mgoe.config import ModelSettings
from mgoe.errors import MissingExtra, TrainingError
from mgoe.models import make_model
from mgoe.training import fit, load_checkpoint, load_weights, predict
from mgoe.training.balance import AGGREGATIONS, SUMS, Uncertainty, conflict, make_balance
from mgoe.training.distributed.process_group import ALONE
from mgoe.training.predict import look_inside
from mgoe.training.step import Stepper
from tests.effort import SOAK, slow, up_to
from tests.models.batches import make_spec, random_batch
from tests.training.distributed.side_by_side import together
from tests.training.distributed.test_process_group import PROGRAM, VALID, found_by
from tests.training.fakes import Model
from tests.training.test_loop import TRAIN, equal, training, weights

AGGREGATORS = {name: weighting.removesuffix("Weighting") for name, weighting in AGGREGATIONS.items()}
RANDOM = {"pcgrad"}
"""They draw the order in which gradients are taken."""


class Linear(nn.Module):
    """Linear losses, so that the test sets the gradients: a shared vector, a shared table, one vector per
    task."""

    def __init__(self, jacobian: Tensor, of_table: Tensor):
        super().__init__()
        self.jacobian, self.of_table = jacobian, of_table
        self.shared_vector = nn.Parameter(torch.zeros(jacobian.shape[1]))
        self.own_vector = nn.Parameter(torch.zeros(len(jacobian)))
        self.table = nn.Embedding(4, of_table.shape[1], sparse=True)
        self.spec = SimpleNamespace(tasks=range(len(jacobian)))
        self.task_weights = torch.arange(1.0, len(jacobian) + 1)

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        each = (
            self.jacobian @ self.shared_vector + self.own_vector + self.of_table @ self.table(torch.tensor(2))
        )
        return (each * self.task_weights).sum(), each

    def tables(self) -> list[nn.Parameter]:
        return [self.table.weight]

    def dense(self) -> list[nn.Parameter]:
        return [self.shared_vector, self.own_vector]


def drawn(tasks: int, width: int, seed: int) -> Linear:
    generator = torch.Generator().manual_seed(seed)
    return Linear(torch.randn(tasks, width, generator=generator), torch.randn(tasks, 3, generator=generator))


def balanced(model, name: str) -> None:
    """Gradients of one batch."""
    balance = make_balance(name, model)
    balance.backward(*model.loss({}), ALONE)


@up_to(30)
@given(
    tasks=st.integers(1, 4),
    width=st.integers(1, 6),
    seed=st.integers(0, 10**6),
    name=st.sampled_from(sorted(AGGREGATIONS)),
)
def test_shared_gradients_are_what_the_aggregation_makes_of_the_jacobian(tasks, width, seed, name):
    model = drawn(tasks, width, seed)
    rows = model.task_weights[:, None] * model.jacobian
    aggregator = getattr(importlib.import_module("torchjd.aggregation"), AGGREGATORS[name])
    torch.manual_seed(seed)
    expected = (aggregator(torch.ones(tasks)) if name in SUMS else aggregator())(rows)
    torch.manual_seed(seed)
    balanced(model, name)
    torch.testing.assert_close(model.shared_vector.grad, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        model.own_vector.grad, model.task_weights
    )  # what serves one task is left alone
    found = model.table.weight.grad.to_dense()
    assert not found[[0, 1, 3]].any()


def test_tables_are_combined_with_the_weights_of_the_dense_part():
    model = Linear(torch.tensor([[3.0, 1.0], [-1.0, 1.0]]), torch.eye(3)[:2])
    model.task_weights = torch.ones(2)
    balanced(model, "mgda")  # the shortest vector between (3, 1) and (-1, 1): weights .25 and .75
    torch.testing.assert_close(model.shared_vector.grad, torch.tensor([0.0, 1.0]), atol=1e-2, rtol=0)
    torch.testing.assert_close(
        model.table.weight.grad.to_dense()[2], torch.tensor([0.25, 0.75, 0.0]), atol=1e-2, rtol=0
    )


@pytest.mark.parametrize("name", sorted(AGGREGATIONS))
def test_a_task_without_a_label_in_the_batch_changes_nothing(name):
    rows, of_table = torch.tensor([[3.0, 1.0], [-1.0, 1.0], [0.0, 0.0]]), torch.eye(3)
    of_table[2] = 0
    found = []
    for tasks in (2, 3):
        model = Linear(rows[:tasks], of_table[:tasks])
        torch.manual_seed(0)
        balanced(model, name)
        found.append((model.shared_vector.grad, model.table.weight.grad.to_dense()))
        assert found[-1][0].any()
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("preset", ["mgoe", "esmm", "aitm", "metaheac", "omoe", "stem", "home", "ple"])
def test_every_model_shares_something(preset):
    spec = make_spec(3)
    assert np.array(conflict(make_model(preset, spec, 0), random_batch(spec, 60))).shape == (3, 3)


def test_what_one_task_moves_alone_is_not_weighed():
    """A tower in a stack of towers, unless the next tower reads it."""
    spec = make_spec(2)
    batch = random_batch(spec, 60)
    for transfer, moved in (("none", [False, False]), ("concat", [True, False])):
        model = make_model(ModelSettings(name="mgoe", base="mgoe", options={"transfer": transfer}), spec, 0)
        bias, each = model.towers.mlp.bias, model.loss(batch)[1]
        rows = torch.stack([torch.autograd.grad(loss, bias, retain_graph=True)[0] for loss in each])
        assert (rows != 0).all(0).flatten(1).any(1).tolist() == moved
        make = make_balance("mgda", model)
        make.backward(*model.loss(batch), ALONE)
        torch.testing.assert_close(bias.grad[1], rows[1, 1] * model.task_weights[1])


@pytest.mark.parametrize("name", SUMS)
def test_gradients_without_conflict_are_added_up_as_they_are(name):
    model = Linear(torch.tensor([[1.0, 2.0], [3.0, 0.5]]), torch.eye(3)[:2])
    balanced(model, name)
    torch.testing.assert_close(
        model.shared_vector.grad, (model.task_weights[:, None] * model.jacobian).sum(0), atol=1e-3, rtol=1e-3
    )


@pytest.mark.parametrize("name", sorted(set(AGGREGATIONS) - {"pcgrad", "imtl-g", "aligned-mtl"}))
def test_no_task_is_moved_against_its_own_gradient(name):
    """What a sum does where two tasks disagree and one is much stronger."""
    model = Linear(torch.tensor([[10.0, 1.0], [-1.0, 0.5]]), torch.eye(3)[:2])
    model.task_weights = torch.ones(2)
    assert (model.jacobian @ model.jacobian.sum(0)).min() < -8
    balanced(model, name)
    assert (model.jacobian @ model.shared_vector.grad).min() > -0.1  # their solvers are regularised


@pytest.mark.parametrize("name", ["fixed", "uncertainty", *sorted(set(AGGREGATIONS) - RANDOM)])
@pytest.mark.parametrize("preset", ["mgoe", "mgoe-paper", "mmoe", "shared-bottom"])
def test_every_parameter_moves(name, preset):
    spec = make_spec(2)
    model = make_model(preset, spec, 0)
    step = Stepper(model, training(balance=name, learning_rate=1e-3), 1, False, ALONE)
    step(random_batch(spec, 60), 0, lambda *_: None)
    assert all(p.grad is not None and bool((p.grad.to_dense() != 0).any()) for p in step.dense)


def test_uncertainty_weighs_a_noisy_task_down_and_its_weights_are_saved(tmp_path):
    model = drawn(2, 2, 0)
    balance = Uncertainty(model)  # type: ignore[arg-type]
    losses = torch.tensor([3.0, 0.1], requires_grad=True)
    balance.backward(losses.sum(), losses, ALONE)
    torch.testing.assert_close(balance.log_variance.grad, 0.5 - model.task_weights * losses.detach())
    torch.testing.assert_close(losses.grad, model.task_weights)
    out = Model()
    fit(out, TRAIN, VALID, training(balance="uncertainty"), tmp_path / "whole", seed=5)

    def leave(now):
        if now.step >= 17:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fit(
            Model(),
            TRAIN,
            VALID,
            training(balance="uncertainty", checkpoint="0s"),
            tmp_path / "cut",
            leave,
            seed=5,
        )
    again = Model()
    fit(again, TRAIN, VALID, training(balance="uncertainty"), tmp_path / "cut", seed=5, resume=True)
    assert equal(weights(again), weights(out))


def test_the_learned_weight_of_a_task_without_a_label_stays_as_it_is():
    model = drawn(3, 2, 0)
    model.task_weights = torch.tensor([1.0, 1.0, 0.0])
    balance = Uncertainty(model)  # type: ignore[arg-type]
    for losses, expected in (([3.0, 0.0, 1.0], [-2.5, 0.0, 0.0]), ([1.0, 2.0, 1.0], [-0.5, -1.5, 0.0])):
        balance.log_variance.grad = None
        of_tasks = torch.tensor(losses, requires_grad=True)
        balance.backward(of_tasks.sum(), of_tasks, ALONE)
        assert balance.log_variance.grad is not None
        assert balance.log_variance.grad.tolist() == expected


def test_learned_weights_do_not_decay():
    model = Model()
    step = Stepper(model, training(balance="uncertainty", weight_decay=10.0), 1, False, ALONE)  # type: ignore[arg-type]
    step.balance.dense()[0].data.fill_(2.0)
    without = {
        name: tensor * torch.nan if name == "labels" else tensor
        for name, tensor in next(TRAIN.batches(256)).items()
    }
    step(without, 0, lambda *_: None)
    assert step.balance.dense()[0].tolist() == [2.0, 2.0]
    torch.testing.assert_close(model.scale, torch.full_like(model.scale, 1 - 0.02 * 10.0))


@pytest.mark.parametrize("name", ["upgrad", *["uncertainty"] * SOAK])
def test_two_processes_are_one(tmp_path, name):
    model = Model()
    fit(model, TRAIN, VALID, training(balance=name), tmp_path / "alone", seed=5)
    together(2, PROGRAM, str(tmp_path), json.dumps({"balance": name}))
    assert found_by(tmp_path, 0)["predictions"] == found_by(tmp_path, 1)["predictions"]
    again = Model(seed=7)
    load_weights(again, tmp_path / "model.safetensors")
    for key, tensor in weights(model).items():
        torch.testing.assert_close(again.state_dict()[key], tensor, atol=5e-4, rtol=5e-3)
    np.testing.assert_allclose(found_by(tmp_path, 0)["predictions"], predict(again, VALID), atol=1e-6)


GRADIENTS = """
import sys
from pathlib import Path
from mgoe.training import joined, save_checkpoint
from mgoe.training.step import Stepper
from tests.training.fakes import Model
from tests.training.test_loop import TRAIN, training
out, name = Path(sys.argv[1]), sys.argv[2]
with joined("cpu") as processes:
    step = Stepper(Model(), training(balance=name, clip=1e9), 1, False, processes)
    step(next(TRAIN.batches(256, processes=processes)), 0, lambda *_: None)
    parameters = enumerate([*step.dense, *step.tables])
    held = {str(number): parameter.grad.to_dense() for number, parameter in parameters}
    save_checkpoint(out / f"{processes.size}.{processes.rank}.safetensors", held, {})
"""


@slow
@pytest.mark.parametrize("name", ["upgrad", "fixed", "uncertainty", "mgda"])
def test_gradients_of_two_processes_are_those_of_one(tmp_path, name):
    """Looked at before the optimiser, which does not see their scale."""
    together(1, GRADIENTS, str(tmp_path), name)
    together(2, GRADIENTS, str(tmp_path), name)
    alone = load_checkpoint(tmp_path / "1.0.safetensors")[0]
    for rank in range(2):
        found = load_checkpoint(tmp_path / f"2.{rank}.safetensors")[0]
        for key, gradient in alone.items():
            torch.testing.assert_close(found[key], gradient, atol=1e-5, rtol=1e-3)


def test_conflict_is_the_cosine_of_gradients():
    rows = torch.tensor([[1.0, 1.0], [-2.0, -2.0], [5.0, -5.0]])
    found = conflict(Linear(rows, torch.zeros(3, 3)), {})  # type: ignore[arg-type]
    torch.testing.assert_close(
        torch.tensor(found), torch.tensor([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    )
    assert conflict(Linear(torch.eye(2), torch.zeros(2, 3)), {}) == []  # type: ignore[arg-type]


class OfTables(Model):
    """A product of embeddings, and nothing else to learn."""

    def forward(self, batch):
        return torch.stack([(self.users(batch["user"]) * self.items(batch["item"])).sum(1)] * 2, 1)

    def dense(self):
        return []


def test_a_model_of_tables_alone_is_fitted_and_has_nothing_to_reconcile(tmp_path):
    assert fit(OfTables(), TRAIN, VALID, training(), tmp_path).curves[0]["conflict"] == []  # type: ignore[arg-type]
    with pytest.raises(
        TrainingError,
        match=r"training.balance: 'mgda' reconciles gradients of dense parameters, found .* set it to fixed",
    ):
        fit(OfTables(), TRAIN, VALID, training(balance="mgda"), tmp_path)  # type: ignore[arg-type]


def test_curves_hold_conflict_and_the_random_state_is_not_touched(tmp_path):
    model = Model(dropout=0.5)
    result = fit(model, TRAIN, VALID, training(), tmp_path)
    before = torch.get_rng_state()
    look_inside(model, VALID)
    assert torch.equal(torch.get_rng_state(), before)
    for epoch in result.curves:
        assert np.diag(epoch["conflict"]) == pytest.approx(1, abs=1e-5)
        assert epoch["conflict"][0][1] == pytest.approx(epoch["conflict"][1][0], abs=1e-6)


def test_a_missing_library_is_named_with_the_command_that_brings_it(monkeypatch):
    real = builtins.__import__

    def missing(name, *rest, **more):
        if name.startswith("torchjd"):
            raise ImportError(f"No module named {name!r}")
        return real(name, *rest, **more)

    monkeypatch.setattr(importlib, "import_module", lambda name: missing(name))
    with pytest.raises(MissingExtra) as error:
        make_balance("upgrad", Model())  # type: ignore[arg-type]
    assert "pip install 'mgoe[balance]'" in str(error.value)
