"""One step: losses of a batch's parts, gradients of all processes, clipping, updates.

Axes: `B` batch, `T` tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from mgoe.config import TrainingSettings
from mgoe.training.allocator import keep_freed_memory
from mgoe.training.balance import make_balance
from mgoe.training.distributed.process_group import ProcessGroup
from mgoe.training.distributed.sharded import follow
from mgoe.training.distributed.shards import Shard
from mgoe.training.feed import Batch
from mgoe.training.optim import load_optimizers, make_optimizers, optimizer_tensors, set_rates

if TYPE_CHECKING:
    from mgoe.models import RankingModel

Check = Callable[[Batch, Tensor, Tensor], None]


class Stepper:
    """Moves a model's parameters, batch by batch.

    Args:
        model: On its device.
        settings: Rates, clipping, parts of a batch.
        steps: Of the whole fit, for the schedule.
        bfloat16: Whether matrix products run in it.
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
        follow(model, self.optimizers)

    def __call__(self, batch: Batch, number: int, check: Check) -> tuple[Tensor, Tensor]:
        """Take step `number`, from 0, of the fit.

        Args:
            batch: This process' share.
            number: Decides the rates.
            check: Called with a part, its loss and its losses by task before they are used.

        Returns:
            The loss, (), and the loss of each task, (T,), of the batches of all processes together.
        """
        set_rates(self.optimizers, self.settings, number, self.steps)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        whole = self.processes.size == 1 and self.settings.accumulate == 1
        totals = None if whole else self._totals(batch)
        summed = []
        for part in _parts(batch, self.settings.accumulate):
            with torch.autocast(batch["labels"].device.type, torch.bfloat16, enabled=self.bfloat16):
                loss, of_tasks = self.model.loss(part) if totals is None else self.model.loss(part, totals)
            check(part, loss, of_tasks)
            self.balance.backward(loss, of_tasks)
            summed.append(torch.cat([loss.detach().float().reshape(1), of_tasks.detach().float()]))
        self.balance.finish(self.processes)
        losses = torch.stack(summed).sum(0)
        self._share(losses)
        clip_grad_norm_(self.dense, self.settings.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        return losses[0], losses[1:]

    def tensors(self) -> dict[str, Tensor | Shard]:
        """All that a step depends on besides its batch and its number, by name."""
        weights = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        balance = {f"balance.{name}": tensor for name, tensor in self.balance.tensors().items()}
        return weights | balance | optimizer_tensors(self.optimizers)

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `tensors` gave."""
        weights = {
            name.removeprefix("model."): tensor
            for name, tensor in tensors.items()
            if name.startswith("model.")
        }
        self.model.load_state_dict(weights)
        for name, tensor in self.balance.tensors().items():
            tensor.copy_(tensors[f"balance.{name}"])
        load_optimizers(self.optimizers, tensors)

    def _totals(self, batch: Batch) -> Tensor:
        """Weight of valid labels a task, of all processes. Shape (T,)."""
        totals = (batch["weight"][:, None] * ~self.model.targets(batch).isnan()).sum(0)
        self.processes.sum_([totals])
        return totals

    def _share(self, losses: Tensor) -> None:
        """Add up what the processes found: gradients, and losses for the record."""
        if self.processes.size == 1:
            return
        gradients = [_gradient(parameter) for parameter in self.dense]
        self.processes.sum_([losses, *gradients])
        self.processes.sum_sparse_(self.tables)


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _parts(batch: Batch, count: int) -> Iterator[Batch]:
    """The batch in so many parts of about equal size."""
    if count == 1:
        yield batch
        return
    rows = len(batch["weight"])
    for part in range(count):
        cut = slice(part * rows // count, (part + 1) * rows // count)
        yield {name: tensor[cut] for name, tensor in batch.items()}
