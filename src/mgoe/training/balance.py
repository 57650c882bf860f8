"""How tasks share what they all move: fixed weights, weights by uncertainty, or gradients that are reconciled before they are applied.

Axes: `T` tasks, `P` shared dense parameters.
"""

from __future__ import annotations

import importlib
from functools import reduce
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mgoe.errors import MissingExtra, TrainingError
from mgoe.training.world import World

if TYPE_CHECKING:
    from mgoe.models import RankingModel

AGGREGATIONS = {
    "upgrad": "UPGradWeighting",
    "dualproj": "DualProjWeighting",
    "pcgrad": "PCGradWeighting",
    "mgda": "MGDAWeighting",
    "imtl-g": "IMTLGWeighting",
    "aligned-mtl": "AlignedMTLWeighting",
}
"""Of TorchJD, by the name in the settings. Each turns the Gram matrix of the tasks' gradients into a weight a task."""
SUMS = ("upgrad", "dualproj")
"""Those that take a preference: ones, so that gradients without conflict are added up as they are."""


class Fixed:
    """The sum of losses times `tasks.weight`, as the model gives it."""

    def backward(self, loss: Tensor, of_tasks: Tensor) -> None:
        """Add a part's gradients to the parameters."""
        loss.backward()

    def finish(self, world: World) -> None:
        """Once all parts of a batch were taken."""

    def tensors(self) -> dict[str, Tensor]:
        """What the next step depends on, by name."""
        return {}

    def dense(self) -> list[nn.Parameter]:
        """Parameters of its own."""
        return []


class Uncertainty(Fixed):
    """Weights that are learned: task t adds `exp(-s_t) w_t L_t + s_t / 2` (Kendall, Gal and Cipolla, CVPR 2018, equation 7).

    Args:
        model: Its task weights `w`, its tasks, its device.
        shares: Over how many parts and processes a batch is spread, each of which adds its share of `s / 2`.
    """

    def __init__(self, model: RankingModel, shares: int):
        self.weights, self.shares = model.task_weights, shares
        self.log_variance = nn.Parameter(torch.zeros_like(self.weights))

    def backward(self, loss: Tensor, of_tasks: Tensor) -> None:
        weighted = (-self.log_variance).exp() * self.weights * of_tasks
        (weighted.sum() + self.log_variance.sum() / (2 * self.shares)).backward()

    def tensors(self) -> dict[str, Tensor]:
        return {"log_variance": self.log_variance.detach()}

    def dense(self) -> list[nn.Parameter]:
        return [self.log_variance]


class Aggregated(Fixed):
    """Gradients of the shared parameters, a row a task, combined with weights that an aggregation of TorchJD gives.

    The weights come from the dense shared parameters. Tables are shared too: theirs are combined with the same weights. What serves one
    task alone gets its own gradient. Under several processes rows are added up before they are weighed, so all act on the same weights.

    Args:
        model: Declares what is shared (`shared`).
        name: Of the aggregation.

    Raises:
        TrainingError: The model shares no dense parameter.
    """

    def __init__(self, model: RankingModel, name: str):
        self.model, self.weigh = model, _weighting(name, len(model.spec.tasks))
        tables, shared = {id(p) for p in model.tables()}, {id(p) for p in model.shared()}
        self.tables = model.tables()
        self.shared = [p for p in model.dense() if id(p) in shared]
        if not self.shared:
            rule = "weighs gradients of dense parameters that all tasks move, and this model declares none"
            raise TrainingError("training.balance", f"{name!r} {rule}; use fixed or uncertainty")
        self.own = [p for p in model.dense() if id(p) not in shared | tables]
        self._clear()

    def backward(self, loss: Tensor, of_tasks: Tensor) -> None:
        tasks = len(of_tasks)
        for t, weighted in enumerate(of_tasks * self.model.task_weights):
            parameters = self.shared + self.own + self.tables
            gradients = torch.autograd.grad(weighted, parameters, retain_graph=t < tasks - 1, allow_unused=True)
            shared, rest = gradients[: len(self.shared)], gradients[len(self.shared) :]
            row = torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for p, g in zip(self.shared, shared, strict=True)])
            before = self.rows[t]
            self.rows[t] = row if before is None else before + row
            for p, g in zip(self.own, rest[: len(self.own)], strict=True):
                if g is not None:
                    p.grad = g if p.grad is None else p.grad + g
            for held, g in zip(self.of_tables[t], rest[len(self.own) :], strict=True):
                held += [] if g is None else [g]

    def finish(self, world: World) -> None:
        jacobian = torch.stack([row for row in self.rows if row is not None])  # (T, P)
        world.sum_([jacobian])
        weights = world.agree(self.weigh(jacobian @ jacobian.T).tolist())
        combined = jacobian.new_tensor(weights) @ jacobian / world.size  # every process has the sum; the trainer adds them up
        for p, g in zip(self.shared, combined.split([p.numel() for p in self.shared]), strict=True):
            p.grad = g.view_as(p)
        for number, table in enumerate(self.tables):
            parts = [weight * g for weight, held in zip(weights, self.of_tables, strict=True) for g in held[number]]
            table.grad = reduce(torch.add, parts) if parts else None
        self._clear()

    def _clear(self) -> None:
        tasks = len(self.model.spec.tasks)
        self.rows: list[Tensor | None] = [None] * tasks
        self.of_tables: list[list[list[Tensor]]] = [[[] for _ in self.tables] for _ in range(tasks)]


def make_balance(name: str, model: RankingModel, shares: int) -> Fixed:
    """The way that the settings name.

    Raises:
        MissingExtra: TorchJD is not installed.
    """
    if name == "fixed":
        return Fixed()
    return Uncertainty(model, shares) if name == "uncertainty" else Aggregated(model, name)


def conflict(model: RankingModel, batch: dict[str, Tensor]) -> list[list[float]]:
    """Cosine of the gradients of each two tasks on the shared dense parameters: below zero, one undoes what the other learns.

    Returns:
        Shape (T, T); nothing where a model shares no dense parameter.
    """
    tables = {id(p) for p in model.tables()}
    shared = [p for p in model.shared() if id(p) not in tables]
    if not shared:
        return []
    of_tasks = model.loss(batch)[1]
    rows = []
    for t, loss in enumerate(of_tasks):
        gradients = torch.autograd.grad(loss, shared, retain_graph=t < len(of_tasks) - 1, allow_unused=True)
        rows.append(torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for p, g in zip(shared, gradients, strict=True)]))
    unit = nn.functional.normalize(torch.stack(rows).float(), dim=1)
    return (unit @ unit.T).tolist()


def _weighting(name: str, tasks: int) -> Any:
    weighting = load_weighting(name)
    return weighting(torch.ones(tasks)) if name in SUMS else weighting()


def load_weighting(name: str) -> Any:
    """The class of TorchJD that one of `AGGREGATIONS` names.

    Raises:
        MissingExtra: TorchJD is not installed.
    """
    try:
        return getattr(importlib.import_module("torchjd.aggregation"), AGGREGATIONS[name])
    except ImportError as error:
        reason = f"{name!r} needs TorchJD, which cannot be imported ({error}); install it with: pip install 'mgoe[balance]'"
        raise MissingExtra("training.balance", reason) from None
