import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mgoe.errors import TrainingError
from mgoe.training.loss_check import LossCheck
from tests.effort import up_to
from tests.training.fakes import Model

BAD = ["nan", "inf"]


@up_to(40)
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
