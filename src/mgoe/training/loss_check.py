"""Stop training when a loss is not finite, and find where that began."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mgoe.errors import TrainingError
from mgoe.training.feed import Batch


class LossCheck:
    """Check the loss of every batch of an epoch, several at a time: on a GPU, each check waits for the
    device.

    Args:
        model: Searched for the first parameter that is not finite.
        tasks: Names, in the order of the losses.
        epoch: Number of the epoch, for the message.
        batches: Number of batches in the epoch; the last one is always checked.
        every: Batches between checks; 1 stops before the step that would spoil the weights.
        seen: Batches of the epoch checked by an earlier process.
    """

    def __init__(
        self,
        model: nn.Module,
        tasks: Sequence[str],
        epoch: int,
        batches: int,
        every: int = 1,
        seen: int = 0,
    ):
        self._model, self._tasks, self._epoch = model, tasks, epoch
        self._batches, self._every, self._seen = batches, every, seen
        self._unchecked: list[Tensor] = []

    def __call__(self, batch: Batch, loss: Tensor, losses: Tensor) -> None:
        """Note the losses of a batch before its backward pass, and check them if enough are noted.

        Args:
            batch: The batch.
            loss: The sum that is trained. Shape ().
            losses: Loss per task. Shape (T,).

        Raises:
            TrainingError: A loss since the last check is not finite; names the batch, the task and the first
                culprit.
        """
        self._unchecked.append(losses.detach())
        count = len(self._unchecked)
        if count < self._every and self._seen + count < self._batches:
            return
        bad = ~torch.isfinite(torch.stack(self._unchecked))
        if bad.any():
            number, task = (int(index) for index in bad.nonzero()[0])
            raise TrainingError(
                f"epoch {self._epoch}, batch {self._seen + number + 1}",
                f"the loss of task {self._tasks[task]!r} is {float(self._unchecked[number][task])}; "
                f"{_origin(self._model, batch, loss)}; "
                "lower training.learning_rate or set training.precision to float32",
            )
        self._seen += count
        self._unchecked.clear()


def first_not_finite(model: nn.Module) -> str | None:
    """Return the name of the first parameter that holds a NaN or an infinity."""
    return next(
        (name for name, parameter in model.named_parameters() if not parameter.isfinite().all()), None
    )


def _origin(model: nn.Module, batch: Batch, loss: Tensor) -> str:
    parameter = first_not_finite(model)
    if parameter is not None:
        return f"parameter {parameter!r} is the first that is not finite"
    for name, values in batch.items():
        if name != "labels" and values.is_floating_point() and not values.isfinite().all():
            return f"every parameter is finite, the input {name!r} is not"
    model.zero_grad()
    loss.backward()
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        if gradient is not None and gradient.is_sparse:
            gradient = gradient.coalesce().values()
        if gradient is not None and not gradient.isfinite().all():
            return f"parameter {name!r} is the first whose gradient is not finite"
    return "every parameter and input is finite"
