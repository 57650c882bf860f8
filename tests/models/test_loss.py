"""The loss over labels that may be missing."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from mgoe.config import Settings
from mgoe.models import RankingModel, TaskSpec, make_model
from tests.models.batches import make_spec, random_batch, take


class Constant(RankingModel):
    """Its parameter is its prediction."""

    def __init__(self, spec, rows):
        super().__init__(spec, (), Settings())
        self.raw = torch.nn.Parameter(torch.linspace(-2, 2, rows * len(spec.tasks)).view(rows, -1))

    def logits(self, batch):
        return self.raw


SPEC = make_spec(
    (
        TaskSpec("a", weight=2.0),
        TaskSpec("b", weight=0.5),
        TaskSpec("c", kind="regression", mean=3.0, std=2.0),
    )
)


@given(seed=st.integers(0, 10_000), missing=st.floats(0, 1))
def test_a_missing_label_gives_neither_loss_nor_gradient(seed, missing):
    batch = random_batch(SPEC, 12, seed)
    batch["labels"][torch.rand(12, 3, generator=torch.Generator().manual_seed(seed)) < missing] = torch.nan
    model = Constant(SPEC, 12)
    total, losses = model.loss(batch)
    total.backward()
    valid = ~batch["labels"].isnan()
    assert model.raw.grad.isfinite().all()
    assert not model.raw.grad[~valid].any()
    for t, task in enumerate(SPEC.tasks):
        rows = valid[:, t]
        if not rows.any():
            assert losses[t] == 0
            continue
        raw, label, weight = model.raw[rows, t], batch["labels"][rows, t], batch["weight"][rows]
        each = (
            F.binary_cross_entropy(raw.sigmoid(), label, reduction="none")
            if t < 2
            else (raw - (label - task.mean) / task.std) ** 2
        )
        torch.testing.assert_close(losses[t], (each * weight).sum() / weight.sum())
    torch.testing.assert_close(total, 2 * losses[0] + 0.5 * losses[1] + losses[2])


@pytest.mark.parametrize("name", ["mgoe", "mgoe-paper", "mmoe", "shared-bottom"])
def test_no_valid_label_at_all_loses_nothing(name):
    batch = random_batch(SPEC)
    batch["labels"].fill_(torch.nan)
    model = make_model(name, SPEC, seed=0)
    total, losses = model.loss(batch)
    total.backward()
    assert total == 0
    assert not losses.any()
    assert not any(p.grad.to_dense().any() for p in model.parameters() if p.grad is not None)


def test_rows_without_weight_do_not_count():
    batch = random_batch(SPEC, 12)
    batch["weight"][6:] = 0
    half = Constant(SPEC, 12)
    half.raw.data = half.raw.data[:6]
    torch.testing.assert_close(Constant(SPEC, 12).loss(batch)[1], half.loss(take(batch, slice(6)))[1])


def test_regression_predicts_in_the_label_s_own_unit():
    model = Constant(SPEC, 12)
    torch.testing.assert_close(model.predict({})[:, 2], (model.raw[:, 2].detach() * 2 + 3).clamp(0))
    torch.testing.assert_close(model.predict({})[:, :2], model.raw[:, :2].detach().sigmoid())


@given(top=st.floats(0, 30), label=st.floats(0, 1e30))
def test_a_label_beyond_the_largest_that_counts_is_that_one_and_no_prediction_exceeds_it(top, label):
    spec = make_spec((TaskSpec("stay", kind="regression", mean=3.0, std=20.0, top=top),))
    model, batch = Constant(spec, 12), random_batch(spec, 12)
    labels = torch.full((2, 12, 1), label)
    labels[1].clamp_(max=top)
    beyond, counted = (model.loss({**batch, "labels": one})[1] for one in labels)
    assert beyond == counted
    assert ((model.predict({}) >= 0) & (model.predict({}) <= torch.tensor(top))).all()


def test_the_position_biases_training_only():
    batch = random_batch(SPEC)
    model = make_model("mgoe", SPEC, seed=0)
    without = {key: value for key, value in batch.items() if key != "position"}
    assert torch.equal(model(batch), model(without))  # starts at zero
    with torch.no_grad():
        model.bias.weight += torch.arange(SPEC.positions)[:, None] + 1
    torch.testing.assert_close(
        model(batch) - model(without), (batch["position"][:, None] + 1.0).expand(-1, 3)
    )
    unknown = batch | {"position": torch.full_like(batch["position"], -1)}
    assert torch.equal(model(unknown), model(without))
    assert torch.equal(model.predict(batch), model.predict(without))
