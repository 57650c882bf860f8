"""How far tasks agree: cosines of their gradients on what they share."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mgoe.models import make_model
from mgoe.training import fit
from mgoe.training.conflict import conflict
from mgoe.training.distributed.process_group import ALONE
from mgoe.training.predict import look_inside
from mgoe.training.step import Stepper
from tests.models.batches import make_spec, random_batch
from tests.training.fakes import Model
from tests.training.test_loop import TRAIN, VALID, training


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


@pytest.mark.parametrize("preset", ["mgoe", "esmm", "aitm", "metaheac", "omoe", "stem", "home", "ple"])
def test_every_model_shares_something(preset):
    spec = make_spec(3)
    assert np.array(conflict(make_model(preset, spec, 0), random_batch(spec, 60))).shape == (3, 3)


@pytest.mark.parametrize("preset", ["mgoe", "mgoe-paper", "mmoe", "shared-bottom"])
def test_every_parameter_moves(preset):
    spec = make_spec(2)
    model = make_model(preset, spec, 0)
    step = Stepper(model, training(learning_rate=1e-3), 1, False, ALONE)
    step(random_batch(spec, 60), 0, lambda *_: None)
    assert all(p.grad is not None and bool((p.grad.to_dense() != 0).any()) for p in step.dense)


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


def test_a_model_of_tables_alone_is_fitted_and_shares_no_dense_parameter(tmp_path):
    assert fit(OfTables(), TRAIN, VALID, training(), tmp_path).curves[0]["conflict"] == []  # type: ignore[arg-type]


def test_curves_hold_conflict_and_the_random_state_is_not_touched(tmp_path):
    model = Model(dropout=0.5)
    result = fit(model, TRAIN, VALID, training(), tmp_path)
    before = torch.get_rng_state()
    look_inside(model, VALID)
    assert torch.equal(torch.get_rng_state(), before)
    for epoch in result.curves:
        assert np.diag(epoch["conflict"]) == pytest.approx(1, abs=1e-5)
        assert epoch["conflict"][0][1] == pytest.approx(epoch["conflict"][1][0], abs=1e-6)
