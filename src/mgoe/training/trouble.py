"""Stop when a loss is no number, and say where it began."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mgoe.errors import TrainingError
from mgoe.training.feed import Batch


class LossGuard:
    """Checks the losses of every step, some of them at a time: on a GPU each look waits for the device.

    Args:
        model: To search for the parameter that went first.
        tasks: Names, in the order of the losses.
        epoch: For the message.
        every: Checks between looks; 1 stops before the step that would spoil the weights.
        seen: Batches of the epoch that were checked before.
        parts: Of a batch, each of which is checked.
    """

    def __init__(
        self,
        model: nn.Module,
        tasks: Sequence[str],
        epoch: int,
        every: int = 1,
        seen: int = 0,
        parts: int = 1,
    ):
        self._model, self._tasks, self._epoch, self._every, self._parts = model, tasks, epoch, every, parts
        self._unseen: list[Tensor] = []
        self._seen = seen * parts

    def check(self, batch: Batch, loss: Tensor, of_tasks: Tensor, last: bool = False) -> None:
        """Note the losses of a batch, or of a part of it, before its backward pass.

        Args:
            batch: What they are of.
            loss: The sum that is trained. Shape ().
            of_tasks: Loss a task. Shape (T,).
            last: Look now, whatever `every` says.

        Raises:
            TrainingError: A loss since the last look is not finite; names the batch, the task and what went first.
        """
        self._unseen.append(of_tasks.detach())
        if len(self._unseen) < self._every and not last:
            return
        bad = ~torch.isfinite(torch.stack(self._unseen))
        if bad.any():
            check, task = (int(index) for index in bad.nonzero()[0])
            number = (self._seen + check) // self._parts + 1
            raise TrainingError(
                f"epoch {self._epoch}, batch {number}",
                f"the loss of task {self._tasks[task]!r} is {float(self._unseen[check][task])}; "
                f"{_origin(self._model, batch, loss)}; lower training.learning_rate or set training.precision to float32",
            )
        self._seen += len(self._unseen)
        self._unseen.clear()


def first_not_finite(model: nn.Module) -> str | None:
    """Name of the first parameter, in the model's order, that holds a NaN or an infinity."""
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
        if (
            gradient is not None
            and not (gradient.coalesce().values() if gradient.is_sparse else gradient).isfinite().all()
        ):
            return f"parameter {name!r} is the first whose gradient is not finite"
    return "every parameter and input is finite"
