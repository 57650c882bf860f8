"""How tasks share what they all move: fixed weights, weights by uncertainty, or gradients that are reconciled before they are applied.

Axes: `T` tasks, `P` numbers of the dense part.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mgoe._util.extras import load
from mgoe.errors import TrainingError
from mgoe.training.distributed.process_group import ProcessGroup

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

    def finish(self, processes: ProcessGroup) -> None:
        """Once all parts of a batch were taken."""

    def tensors(self) -> dict[str, Tensor]:
        """What the next step depends on, by name."""
        return {}

    def dense(self) -> list[nn.Parameter]:
        """Parameters of its own."""
        return []


class Uncertainty(Fixed):
    """Weights that are learned: task t adds `exp(-s_t) w_t L_t + s_t / 2` (Kendall, Gal and Cipolla, CVPR 2018,
    their form for classification). A task that loses nothing in a batch, as one without a label there, adds neither: `s / 2` alone would
    let its weight grow without end.

    Args:
        model: Its task weights `w`, its tasks, its device.
    """

    def __init__(self, model: RankingModel):
        self.weights = model.task_weights
        self.log_variance = nn.Parameter(torch.zeros_like(self.weights))
        self.lost = torch.zeros_like(self.weights)

    def backward(self, loss: Tensor, of_tasks: Tensor) -> None:
        self.lost += (self.weights * of_tasks).detach()
        ((-self.log_variance).exp() * self.weights * of_tasks).sum().backward()

    def finish(self, processes: ProcessGroup) -> None:
        processes.sum_([self.lost])
        assert self.log_variance.grad is not None
        self.log_variance.grad += (self.lost > 0) / (
            2 * processes.size
        )  # every process adds it; the trainer adds them up
        self.lost.zero_()

    def tensors(self) -> dict[str, Tensor]:
        return {"log_variance": self.log_variance.detach()}

    def dense(self) -> list[nn.Parameter]:
        return [self.log_variance]


class Aggregated(Fixed):
    """Gradients a task, combined with weights that an aggregation of TorchJD gives.

    The weights come from the numbers of the dense part that more than one task moves; what a single task moves, such as its tower, gets
    its own gradient. Tables are shared: theirs are combined with the same weights. A task that moves nothing of that, as one without a
    label in the batch, is left out of the weighing. Under several processes rows are added up before they are weighed, so all act on the
    same weights.

    Args:
        model: With dense parameters and tables.
        name: Of the aggregation.
    """

    def __init__(self, model: RankingModel, name: str):
        self.model, self.name, self.weighting = model, name, load_weighting(name)
        self.parameters, self.tables = model.dense(), model.tables()
        self._clear()

    def backward(self, loss: Tensor, of_tasks: Tensor) -> None:
        tasks = len(of_tasks)
        for t, weighted in enumerate(of_tasks * self.model.task_weights):
            gradients = torch.autograd.grad(
                weighted, self.parameters + self.tables, retain_graph=t < tasks - 1, allow_unused=True
            )
            row, before = _row(self.parameters, gradients[: len(self.parameters)]), self.rows[t]
            self.rows[t] = row if before is None else before + row
            for held, g in zip(self.of_tables[t], gradients[len(self.parameters) :], strict=True):
                held += [] if g is None else [g]

    def finish(self, processes: ProcessGroup) -> None:
        jacobian = torch.stack([row for row in self.rows if row is not None])  # (T, P)
        processes.sum_([jacobian])
        shared = _shared(jacobian)
        rows = jacobian * shared
        weights = processes.agree(self._weights(rows @ rows.T))
        combined = torch.where(shared, jacobian.new_tensor(weights) @ jacobian, jacobian.sum(0))
        combined /= processes.size  # every process has the sum; the trainer adds them up
        for p, g in zip(self.parameters, combined.split([p.numel() for p in self.parameters]), strict=True):
            p.grad = g.view_as(p)
        for number, table in enumerate(self.tables):
            parts = [
                weight * g for weight, held in zip(weights, self.of_tables, strict=True) for g in held[number]
            ]
            table.grad = reduce(torch.add, parts) if parts else None
        self._clear()

    def _weights(self, gram: Tensor) -> list[float]:
        """Of each task; 1 where there is nothing to weigh."""
        weights, weighed = gram.new_ones(len(gram)), gram.diagonal() > 0
        if number := int(weighed.sum()):
            weigh = self.weighting(torch.ones(number)) if self.name in SUMS else self.weighting()
            weights[weighed] = weigh(gram[weighed][:, weighed])
        return weights.tolist()

    def _clear(self) -> None:
        tasks = len(self.model.spec.tasks)
        self.rows: list[Tensor | None] = [None] * tasks
        self.of_tables: list[list[list[Tensor]]] = [[[] for _ in self.tables] for _ in range(tasks)]


def make_balance(name: str, model: RankingModel) -> Fixed:
    """The way that the settings name.

    Raises:
        MissingExtra: TorchJD is not installed.
        TrainingError: The model has nothing that tasks could share but tables.
    """
    if name == "fixed":
        return Fixed()
    if name != "uncertainty" and not model.dense():
        raise TrainingError(
            "training.balance",
            f"{name!r} reconciles gradients of dense parameters, found a model of tables alone; set it to fixed",
        )
    return Uncertainty(model) if name == "uncertainty" else Aggregated(model, name)


def conflict(model: RankingModel, batch: dict[str, Tensor]) -> list[list[float]]:
    """Cosine of the gradients of each two tasks, on what more than one of them moves of the dense part: below zero, one undoes what the
    other learns.

    Returns:
        Shape (T, T); nothing where no two tasks move the same.
    """
    parameters, of_tasks = model.dense(), model.loss(batch)[1]
    if not parameters:
        return []
    rows = []
    for t, loss in enumerate(of_tasks):
        rows.append(
            _row(
                parameters,
                torch.autograd.grad(loss, parameters, retain_graph=t < len(of_tasks) - 1, allow_unused=True),
            )
        )
    jacobian = torch.stack(rows).float()
    shared = _shared(jacobian)
    unit = nn.functional.normalize(jacobian * shared, dim=1)
    return (unit @ unit.T).tolist() if shared.any() else []


def _row(parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> Tensor:
    """One task's gradients of the dense part, side by side; 0 where it reads nothing. Shape (P,)."""
    return torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).reshape(-1)
            for p, g in zip(parameters, gradients, strict=True)
        ]
    )


def _shared(jacobian: Tensor) -> Tensor:
    """What more than one task moves. (T, P) -> (P,)."""
    return (jacobian != 0).sum(0) > 1


def load_weighting(name: str) -> Any:
    """The class of TorchJD that one of `AGGREGATIONS` names.

    Raises:
        MissingExtra: TorchJD is not installed.
    """
    found = load(
        "torchjd.aggregation",
        "training.balance",
        f"{name!r} needs TorchJD, which",
        "pip install 'mgoe[balance]'",
    )
    return getattr(found, AGGREGATIONS[name])
