import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mgoe.config import TrainingSettings
from mgoe.errors import TrainingError
from mgoe.models import make_model
from mgoe.training import RowwiseAdagrad
from mgoe.training.distributed.process_group import ALONE
from mgoe.training.step import LossCheck, Stepper, make_optimizers, optimizer_tensors, set_rates
from tests.models.batches import make_spec, random_batch
from tests.training.fakes import Model

BAD = ["nan", "inf"]


@given(
    every=st.integers(1, 5),
    first=st.integers(1, 12),
    later=st.integers(0, 4),
    task=st.integers(0, 1),
    bad=st.sampled_from(BAD),
    seen=st.integers(0, 3),
)
def test_the_first_bad_batch_is_named_however_seldom_losses_are_checked(every, first, later, task, bad, seen):
    check = LossCheck(Model(), ["click", "buy"], epoch=2, batches=seen + 13, every=every, seen=seen)
    message = f"epoch 2, batch {seen + first}: the loss of task '{['click', 'buy'][task]}' is {bad}"

    def check_all() -> None:
        for number in range(1, 14):
            losses = torch.ones(2, requires_grad=True) * 1.0
            if number in (first, first + later):
                losses = losses.detach().index_fill(0, torch.tensor([task]), float(bad)).requires_grad_()
            check({}, losses.sum(), losses)

    with pytest.raises(TrainingError, match=message):
        check_all()


def test_a_gradient_that_is_not_finite_is_named():
    model = Model()
    # The weights are finite; neither the loss nor the gradient is.
    loss = (model.head.weight * 0).sum().sqrt() * float("inf")
    with pytest.raises(
        TrainingError, match=r"parameter 'head\.weight' is the first whose gradient is not finite"
    ):
        LossCheck(model, ["click", "buy"], epoch=1, batches=9)({}, loss, torch.tensor([torch.nan, 1.0]))


SEEDS = st.integers(0, 2**32 - 1)


@given(seed=SEEDS, rows=st.integers(1, 12), width=st.integers(1, 5), steps=st.integers(1, 4))
def test_rowwise_adagrad_is_its_dense_form_on_touched_rows_and_nothing_elsewhere(seed, rows, width, steps):
    rng = np.random.default_rng(seed)
    table = nn.Embedding(rows, width, sparse=True)
    nn.init.normal_(table.weight, generator=torch.Generator().manual_seed(seed % 2**31))
    expected, accumulated = table.weight.detach().double().numpy().copy(), np.zeros(rows)
    optimizer = RowwiseAdagrad([table.weight], lr=0.1)
    for _ in range(steps):
        touched = rng.integers(0, rows, rng.integers(1, 6))  # repeats must add up before they are squared
        weights = rng.normal(size=(len(touched), width)).astype(np.float32)
        before = table.weight.detach().clone()
        optimizer.zero_grad()
        (table(torch.from_numpy(touched)) * torch.from_numpy(weights)).sum().backward()
        optimizer.step()
        gradient = np.zeros((rows, width))
        np.add.at(gradient, touched, weights)
        accumulated += (gradient**2).mean(1)
        expected -= 0.1 * gradient / (np.sqrt(accumulated) + 1e-8)[:, None]
        untouched = np.setdiff1d(np.arange(rows), touched)
        np.testing.assert_allclose(table.weight.detach()[touched], expected[touched], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(table.weight.detach()[untouched], before[untouched])


def test_rates_fall_linearly_with_the_step():
    training = TrainingSettings(learning_rate=0.01, table_learning_rate=0.1)
    optimizers = make_optimizers([nn.Parameter(torch.zeros(2, 2))], [nn.Parameter(torch.zeros(2))], training)
    for step, factor in enumerate([1, 0.75, 0.5, 0.25]):
        set_rates(optimizers, step, 4)
        assert [group["lr"] for o in optimizers for group in o.param_groups] == pytest.approx(
            [0.01 * factor, 0.1 * factor]
        )


def test_a_model_without_tables_has_one_optimizer():
    assert len(make_optimizers([], [nn.Parameter(torch.zeros(2))], TrainingSettings())) == 1


def test_what_optimisers_gather_is_there_before_the_first_step():
    """So that a checkpoint's size is known: as many bytes before a step as after it."""
    table, dense = nn.Embedding(7, 3, sparse=True), nn.Linear(3, 2)
    optimizers = make_optimizers([table.weight], [*dense.parameters()], TrainingSettings())
    before = {name: tensor.nbytes for name, tensor in optimizer_tensors(optimizers).items()}
    dense(table(torch.tensor([1, 2]))).sum().backward()
    for optimizer in optimizers:
        optimizer.step()
    assert {name: tensor.nbytes for name, tensor in optimizer_tensors(optimizers).items()} == before
    assert (
        sum(before.values()) == 4 * 7 + 2 * 4 * (3 * 2 + 2) + 2 * 4
    )  # one number per row; two moments and the steps


@pytest.mark.parametrize("preset", ["mgoe", "mgoe-paper", "mmoe", "shared-bottom"])
def test_every_parameter_moves(preset):
    spec = make_spec(2)
    model = make_model(preset, spec, 0)
    step = Stepper(model, TrainingSettings(learning_rate=1e-3), 1, False, ALONE)
    step(random_batch(spec, 60), 0, lambda *_: None)
    assert all(p.grad is not None and bool((p.grad.to_dense() != 0).any()) for p in step.dense)
