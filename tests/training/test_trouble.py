import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mgoe.errors import TrainingError
from mgoe.training.trouble import LossGuard
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
    parts=st.integers(1, 4),
)
def test_the_first_bad_batch_is_named_however_seldom_one_looks(every, first, later, task, bad, seen, parts):
    guard = LossGuard(Model(), ["click", "buy"], epoch=2, every=every, seen=seen, parts=parts)
    batch = seen + (first - 1) // parts + 1
    with pytest.raises(
        TrainingError, match=f"epoch 2, batch {batch}: the loss of task '{['click', 'buy'][task]}' is {bad}"
    ):
        for number in range(1, 14):
            losses = torch.ones(2, requires_grad=True) * 1.0
            if number in (first, first + later):
                losses = losses.detach().index_fill(0, torch.tensor([task]), float(bad)).requires_grad_()
            guard.check({}, losses.sum(), losses, last=number == 13)


def test_a_gradient_that_is_no_number_is_named():
    model = Model()
    loss = (model.head.weight * 0).sum().sqrt() * float(
        "inf"
    )  # finite weights, no finite loss, no finite gradient
    with pytest.raises(
        TrainingError, match=r"parameter 'head\.weight' is the first whose gradient is not finite"
    ):
        LossGuard(model, ["click", "buy"], epoch=1).check({}, loss, torch.tensor([torch.nan, 1.0]))
