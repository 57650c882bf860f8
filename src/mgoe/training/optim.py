"""Two optimisers a model: row-wise Adagrad for embedding tables, AdamW for everything else.

Dense Adam spends three quarters of a step sweeping over table rows that the batch never touched; a row-wise optimiser touches the
batch's rows alone and keeps one number a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from mgoe.config import TrainingSettings
from mgoe.training.distributed.shards import Shard


class RowwiseAdagrad(Optimizer):
    """Adagrad with one accumulator a row, for sparse gradients (the form FBGEMM and TorchRec use).

    `a_r += mean_d(g_rd^2)`, `w_r -= lr * g_r / (sqrt(a_r) + eps)`. Rows without a gradient stay as they are.

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
    """Rows that have a gradient, (n,), and its sum for each, (n, D). Where that is less work than sorting: all rows, some zero."""
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
    """Row-wise Adagrad for the tables, fused AdamW for the dense part; either is left out where it has no parameter.

    What they gather is there, as zeros, from the start: so a checkpoint's size is known before training. The parameters of `balance` do not
    decay: a decay would pull tasks towards equal weights.
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


def set_rates(optimizers: list[Optimizer], settings: TrainingSettings, step: int, steps: int) -> None:
    """Learning rates of step `step` of `steps`: a pure function of the step, so that nothing of the schedule needs saving."""
    warm = settings.warmup * steps
    if step < warm:
        factor = (step + 1) / (warm + 1)
    else:
        factor = 1.0 - (step - warm) / (steps - warm) if settings.schedule == "linear" else 1.0
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor


def optimizer_tensors(optimizers: list[Optimizer]) -> dict[str, Tensor | Shard]:
    """What the optimisers have gathered, by name: optimiser, parameter and quantity."""
    return {
        f"optimizer.{o}.{p}.{key}": value
        for o, p, state in _states(optimizers)
        for key, value in state.items()
    }


def load_optimizers(optimizers: list[Optimizer], tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave. Other tensors are passed over."""
    states = {(o, p): state for o, p, state in _states(optimizers)}
    for name, tensor in tensors.items():
        kind, *place = name.split(".", 3)
        if kind == "optimizer":
            o, p, key = int(place[0]), int(place[1]), place[2]
            parameter = [parameter for group in optimizers[o].param_groups for parameter in group["params"]][
                p
            ]
            held = states[o, p].get(key)
            states[o, p][key] = held.take(tensor) if isinstance(held, Shard) else tensor.to(parameter.device)


def _states(optimizers: list[Optimizer]) -> Iterator[tuple[int, int, dict[str, Any]]]:
    for o, optimizer in enumerate(optimizers):
        for p, parameter in enumerate(
            parameter for group in optimizer.param_groups for parameter in group["params"]
        ):
            yield o, p, optimizer.state[parameter]
