"""Two optimisers per model: row-wise Adagrad for embedding tables, AdamW for everything else.

Dense Adam spends three quarters of a step sweeping over table rows that the batch never touched. A row-wise
optimiser touches only the rows of the batch, and keeps one number per row.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from mgoe.config import TrainingSettings
from mgoe.training.distributed.shards import Shard


class RowwiseAdagrad(Optimizer):
    """Adagrad with one accumulator per row, for sparse gradients (the form that FBGEMM and TorchRec use).

    `a_r += mean_d(g_rd^2)`, `w_r -= lr * g_r / (sqrt(a_r) + eps)`. Rows without a gradient do not change.

    Args:
        params: Tables of shape (rows, D) whose gradients are sparse in the first dimension.
        lr: Learning rate.
        eps: Keeps the first step of a row with a tiny gradient small.
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
                    self._update(table, group["lr"], group["eps"])
        return loss

    def _update(self, table: Tensor, rate: float, eps: float) -> None:
        state: dict[str, Any] = self.state[table]
        assert table.grad is not None
        rows, values = _by_row(table.grad)
        accumulated = state["accumulator"][rows] + values.square().mean(1)
        state["accumulator"][rows] = accumulated
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
    tables: list[nn.Parameter],
    dense: list[nn.Parameter],
    settings: TrainingSettings,
    balance: Sequence[nn.Parameter] = (),
) -> list[Optimizer]:
    """Return row-wise Adagrad for the tables and fused AdamW for the dense part, without the one that has no
    parameter.

    Their state exists, as zeros, from the start, so a checkpoint's size is known before training. The
    parameters of `balance` do not decay: decay would pull the tasks towards equal weights.
    """
    optimizers: list[Optimizer] = []
    if dense:
        adam = AdamW(dense, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
        if balance:
            adam.add_param_group({"params": balance, "weight_decay": 0.0})
        for parameter in (*dense, *balance):
            step = torch.zeros((), device=parameter.device)
            adam.state[parameter] = {
                "step": step,
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        optimizers.append(adam)
    if tables:
        optimizers.append(RowwiseAdagrad(tables, lr=settings.table_learning_rate))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def set_rates(optimizers: list[Optimizer], step: int, steps: int) -> None:
    """Set the learning rates of step `step` of `steps`, which fall linearly to zero.

    They are a pure function of the step, so a checkpoint need not hold them.
    """
    factor = 1.0 - step / steps
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor


def optimizer_tensors(optimizers: list[Optimizer]) -> dict[str, Tensor | Shard]:
    """Return the state of the optimisers, named by optimiser, parameter and quantity."""
    return {f"{name}.{key}": value for name, _, state in _states(optimizers) for key, value in state.items()}


def load_optimizers(optimizers: list[Optimizer], tensors: Mapping[str, Tensor]) -> None:
    """Restore what `optimizer_tensors` returned. Other tensors are ignored."""
    for name, parameter, state in _states(optimizers):
        for key, held in state.items():
            tensor = tensors[f"{name}.{key}"]
            state[key] = held.take(tensor) if isinstance(held, Shard) else tensor.to(parameter.device)


def _states(optimizers: list[Optimizer]) -> Iterator[tuple[str, Tensor, dict[str, Any]]]:
    """Yield the name of each parameter, the parameter and its state."""
    for o, optimizer in enumerate(optimizers):
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for p, parameter in enumerate(parameters):
            yield f"optimizer.{o}.{p}", parameter, optimizer.state[parameter]
