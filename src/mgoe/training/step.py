"""One step: loss of a batch, gradients of all processes, clipping, update.

Axes: `B` batch, `T` tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from mgoe.config import TrainingSettings
from mgoe.training.allocator import keep_freed_memory
from mgoe.training.balance import make_balance
from mgoe.training.distributed.process_group import ProcessGroup
from mgoe.training.distributed.sharded import connect_optimizers
from mgoe.training.distributed.shards import Shard
from mgoe.training.feed import Batch
from mgoe.training.optim import load_optimizers, make_optimizers, optimizer_tensors, set_rates

if TYPE_CHECKING:
    from mgoe.models import RankingModel

Check = Callable[[Batch, Tensor, Tensor], None]


class Stepper:
    """Update a model's parameters, batch by batch.

    Args:
        model: On its device.
        settings: Learning rates, clipping and balance of tasks.
        steps: Number of steps of the whole fit; the learning rates fall to zero over them.
        bfloat16: Whether matrix products run in bfloat16.
        processes: The processes that step together.
    """

    def __init__(
        self,
        model: RankingModel,
        settings: TrainingSettings,
        steps: int,
        bfloat16: bool,
        processes: ProcessGroup,
    ):
        keep_freed_memory()
        self.model, self.settings, self.steps, self.processes = model, settings, steps, processes
        self.bfloat16 = bfloat16
        self.balance = make_balance(settings.balance, model)
        self.dense, self.tables = [*model.dense(), *self.balance.dense()], model.tables()
        self.optimizers = make_optimizers(self.tables, model.dense(), settings, self.balance.dense())
        connect_optimizers(model, self.optimizers)

    def __call__(self, batch: Batch, number: int, check: Check) -> tuple[Tensor, Tensor]:
        """Take step `number`, from 0, of the fit.

        Args:
            batch: This process' share of the batch.
            number: Decides the learning rates.
            check: Called with the batch, its loss and its losses per task before they are used.

        Returns:
            The loss, (), and the loss per task, (T,), of the batches of all processes together.
        """
        set_rates(self.optimizers, number, self.steps)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        totals = None if self.processes.size == 1 else self._label_weight(batch)
        with torch.autocast(batch["labels"].device.type, torch.bfloat16, enabled=self.bfloat16):
            loss, losses = self.model.loss(batch, totals)
        check(batch, loss, losses)
        self.balance.backward(loss, losses, self.processes)
        summed = torch.cat([loss.detach().float().reshape(1), losses.detach().float()])
        self._sum_over_processes(summed)
        clip_grad_norm_(self.dense, self.settings.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        return summed[0], summed[1:]

    def tensors(self) -> dict[str, Tensor | Shard]:
        """Return everything that a step depends on besides its batch and its number, by name."""
        weights = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        balance = {f"balance.{name}": tensor for name, tensor in self.balance.tensors().items()}
        return weights | balance | optimizer_tensors(self.optimizers)

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `tensors` returned."""
        weights = {
            name.removeprefix("model."): tensor
            for name, tensor in tensors.items()
            if name.startswith("model.")
        }
        self.model.load_state_dict(weights)
        for name, tensor in self.balance.tensors().items():
            tensor.copy_(tensors[f"balance.{name}"])
        load_optimizers(self.optimizers, tensors)

    def _label_weight(self, batch: Batch) -> Tensor:
        """Return the weight of valid labels per task, over all processes. Shape (T,)."""
        totals = (batch["weight"][:, None] * ~self.model.targets(batch).isnan()).sum(0)
        self.processes.sum_([totals])
        return totals

    def _sum_over_processes(self, losses: Tensor) -> None:
        """Add up the gradients and losses of all processes, in place."""
        if self.processes.size > 1:
            self.processes.sum_([losses, *(_gradient(parameter) for parameter in self.dense)])
            self.processes.sum_sparse_(self.tables)


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad
