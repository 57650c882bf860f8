"""One step: loss of a batch and its check, gradients of all processes, clipping, update by two optimisers.

Row-wise Adagrad updates the embedding tables, AdamW everything else. Dense Adam spends three quarters of a
step sweeping over table rows that the batch never touched. A row-wise optimiser touches only the rows of the
batch, and keeps one number per row.

Axes: `B` batch, `T` tasks.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW, Optimizer

from mgoe.config import TrainingSettings
from mgoe.errors import TrainingError
from mgoe.models import Batch, RankingModel
from mgoe.training.checkpoint import Shard
from mgoe.training.devices import keep_freed_memory
from mgoe.training.distributed.process_group import ProcessGroup
from mgoe.training.distributed.sharded import connect_optimizers


class Stepper:
    """Update a model's parameters, batch by batch.

    Args:
        model: On its device.
        settings: Learning rates and clipping.
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
        self.dense, self.tables = model.dense(), model.tables()
        self.optimizers = make_optimizers(self.tables, self.dense, settings)
        connect_optimizers(model, self.optimizers)

    def __call__(
        self, batch: Batch, number: int, check: Callable[[Batch, Tensor, Tensor], None]
    ) -> tuple[Tensor, Tensor]:
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
        totals = None
        if self.processes.size > 1:
            totals = (batch["weight"][:, None] * ~self.model.targets(batch).isnan()).sum(0)
            self.processes.sum_([totals])
        with torch.autocast(batch["labels"].device.type, torch.bfloat16, enabled=self.bfloat16):
            loss, losses = self.model.loss(batch, totals)
        check(batch, loss, losses)
        loss.backward()
        summed = torch.cat([loss.detach().float().reshape(1), losses.detach().float()])
        if self.processes.size > 1:
            self.processes.sum_([summed, *(_gradient(parameter) for parameter in self.dense)])
            self.processes.sum_sparse_(self.tables)
        clip_grad_norm_(self.dense, self.settings.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        return summed[0], summed[1:]

    def tensors(self) -> dict[str, Tensor | Shard]:
        """Return everything that a step depends on besides its batch and its number, by name."""
        return {
            **{f"model.{name}": tensor for name, tensor in self.model.state_dict().items()},
            **optimizer_tensors(self.optimizers),
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `tensors` returned. Optimisers keep what is missing."""
        self.model.load_state_dict(
            {
                name.removeprefix("model."): tensor
                for name, tensor in tensors.items()
                if name.startswith("model.")
            }
        )
        load_optimizers(self.optimizers, tensors)


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


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


class RowwiseAdagrad(Optimizer):
    """Adagrad with one accumulator per row, for sparse gradients (the form that FBGEMM and TorchRec use).

    `a_r += mean_d(g_rd^2)`, `w_r -= lr * g_r / (sqrt(a_r) + eps)`. Rows without a gradient do not change.

    Args:
        params: Tables of shape (rows, D) whose gradients are sparse in the first dimension.
        lr: Learning rate.
        eps: Keeps the first step of a row with a tiny gradient small.

    Example:
        >>> table = torch.nn.Embedding(10, 4, sparse=True)
        >>> optimizer = RowwiseAdagrad([table.weight], lr=0.05)
        >>> table(torch.tensor([3])).sum().backward()
        >>> optimizer.step()
    """

    def __init__(self, params: Iterable[Tensor], lr: float, eps: float = 1e-8):
        super().__init__(params, {"lr": lr, "eps": eps})
        for group in self.param_groups:
            for table in group["params"]:
                self.state[table]["accumulator"] = table.new_zeros(table.shape[0], dtype=torch.float32)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update the rows that have a gradient."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    self._update(table, table.grad, group["lr"], group["eps"])
        return loss

    def _update(self, table: Tensor, gradient: Tensor, rate: float, eps: float) -> None:
        rows, values = _by_row(gradient)
        accumulator = self.state[table]["accumulator"]
        accumulated = accumulator[rows] + values.square().mean(1)
        accumulator[rows] = accumulated
        step = (values / (accumulated.sqrt() + eps)[:, None]).to(table.dtype)
        if isinstance(rows, Tensor):  # in one pass over the rows, where indexing takes two
            step = torch.sparse_coo_tensor(
                rows[None], step, table.shape, is_coalesced=True, check_invariants=False
            )
        table.add_(step, alpha=-rate)


def _by_row(gradient: Tensor) -> tuple[Tensor | slice, Tensor]:
    """Return the rows with a gradient, (n,), and the sum for each, (n, D); all rows, some zero, if that is
    less work than sorting."""
    if not gradient.is_sparse:
        return slice(None), gradient.float()
    if gradient._nnz() < gradient.shape[0]:
        gradient = gradient.coalesce()
        return gradient.indices()[0], gradient.values().float()
    summed = torch.zeros(gradient.shape, device=gradient.device)
    return slice(None), summed.index_add_(0, gradient._indices()[0], gradient._values().float())


def make_optimizers(
    tables: list[nn.Parameter], dense: list[nn.Parameter], settings: TrainingSettings
) -> list[Optimizer]:
    """Return row-wise Adagrad for the tables and fused AdamW for the dense part, without the one that has no
    parameter.

    Their state exists, as zeros, from the start, so a checkpoint's size is known before training.
    """
    optimizers: list[Optimizer] = []
    if dense:
        adam = AdamW(dense, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
        for parameter in dense:
            adam.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        optimizers.append(adam)
    if tables:
        optimizers.append(RowwiseAdagrad(tables, lr=settings.table_learning_rate))
    return optimizers


def set_rates(optimizers: list[Optimizer], step: int, steps: int) -> None:
    """Set the learning rates of step `step` of `steps`, which fall linearly to zero.

    They are a pure function of the step, so a checkpoint need not hold them.
    """
    factor = 1.0 - step / steps
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = optimizer.defaults["lr"] * factor


def optimizer_tensors(optimizers: list[Optimizer]) -> dict[str, Tensor | Shard]:
    """Return the state of the optimisers, named by optimiser, parameter and quantity."""
    return {f"{name}.{key}": value for name, _, state in _states(optimizers) for key, value in state.items()}


def load_optimizers(optimizers: list[Optimizer], tensors: Mapping[str, Tensor]) -> None:
    """Restore what `optimizer_tensors` returned. Other tensors are ignored; what is missing stays."""
    for name, parameter, state in _states(optimizers):
        for key, held in state.items():
            if (tensor := tensors.get(f"{name}.{key}")) is None:
                continue
            state[key] = held.take(tensor) if isinstance(held, Shard) else tensor.to(parameter.device)


def _states(optimizers: list[Optimizer]) -> Iterator[tuple[str, Tensor, dict[str, Any]]]:
    """Yield the name of each parameter, the parameter and its state."""
    for o, optimizer in enumerate(optimizers):
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for p, parameter in enumerate(parameters):
            yield f"optimizer.{o}.{p}", parameter, optimizer.state[parameter]
