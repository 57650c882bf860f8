"""How tasks share parameters: fixed weights, weights by uncertainty, or gradients that are reconciled before
they are applied.

Axes: `T` tasks, `P` numbers of the dense part.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from mgoe._util.extras import load
from mgoe.errors import TrainingError
from mgoe.models import Batch, RankingModel
from mgoe.training.distributed.process_group import ProcessGroup

AGGREGATIONS = {
    "upgrad": "UPGradWeighting",
    "dualproj": "DualProjWeighting",
    "pcgrad": "PCGradWeighting",
    "mgda": "MGDAWeighting",
    "imtl-g": "IMTLGWeighting",
    "aligned-mtl": "AlignedMTLWeighting",
}
"""Classes of TorchJD by their name in the settings. Each maps the Gram matrix of the tasks' gradients to one
weight per task."""
SUMS = ("upgrad", "dualproj")
"""Aggregations that take a preference: ones, so that gradients without conflict are added up unchanged."""


class Fixed:
    """Balance tasks by `tasks.weight`: the gradient is that of the model's loss."""

    def backward(self, loss: Tensor, losses: Tensor, processes: ProcessGroup) -> None:
        """Set the gradients of the parameters.

        Args:
            loss: The weighted sum that the model returns. Shape ().
            losses: Loss per task, before its weight. Shape (T,).
            processes: The processes that step together; their gradients are added up afterwards.
        """
        loss.backward()

    def tensors(self) -> dict[str, Tensor]:
        """Return what the next step depends on, by name."""
        return {}

    def dense(self) -> list[nn.Parameter]:
        """Return the parameters of the balance itself."""
        return []


class Uncertainty(Fixed):
    """Learn the weights: task t adds `exp(-s_t) w_t L_t + s_t / 2` (Kendall, Gal and Cipolla, CVPR 2018, for
    classification).

    A task with zero loss in a batch, such as one without a label there, adds neither term: `s / 2` alone
    would let its weight grow without end.

    Args:
        model: Model with task weights `w`.
    """

    def __init__(self, model: RankingModel):
        self.weights = model.task_weights
        self.log_variance = nn.Parameter(torch.zeros_like(self.weights))

    def backward(self, loss: Tensor, losses: Tensor, processes: ProcessGroup) -> None:
        ((-self.log_variance).exp() * self.weights * losses).sum().backward()
        summed = (self.weights * losses).detach()
        processes.sum_([summed])
        assert self.log_variance.grad is not None
        # Every process adds this share; the trainer then adds the processes up.
        self.log_variance.grad += (summed > 0) / (2 * processes.size)

    def tensors(self) -> dict[str, Tensor]:
        return {"log_variance": self.log_variance.detach()}

    def dense(self) -> list[nn.Parameter]:
        return [self.log_variance]


class Aggregated(Fixed):
    """Combine one gradient per task with weights from an aggregation of TorchJD.

    The weights come from the dense numbers that more than one task moves. Numbers that a single task moves,
    such as those of its tower, get its own gradient. Tables are shared: their gradients are combined with the
    same weights. A task that moves none of the shared numbers, such as one without a label in the batch,
    takes no part. With several processes, gradients are added up before they are weighed, so all processes
    use the same weights.

    Args:
        model: Model with dense parameters and tables.
        name: Name of the aggregation.
    """

    def __init__(self, model: RankingModel, name: str):
        self.model, self.name, self.weighting = model, name, load_weighting(name)
        self.parameters, self.tables = model.dense(), model.tables()

    def backward(self, loss: Tensor, losses: Tensor, processes: ProcessGroup) -> None:
        gradients = gradients_per_task(losses * self.model.task_weights, [*self.parameters, *self.tables])
        count = len(self.parameters)
        jacobian = torch.stack([_flat(self.parameters, of_task[:count]) for of_task in gradients])  # (T, P)
        processes.sum_([jacobian])
        shared = _shared(jacobian)
        rows = jacobian * shared
        weights = processes.agree(self._weights(rows @ rows.T))
        combined = torch.where(shared, jacobian.new_tensor(weights) @ jacobian, jacobian.sum(0))
        combined /= processes.size  # every process has the sum; the trainer adds the processes up
        for p, g in zip(self.parameters, combined.split([p.numel() for p in self.parameters]), strict=True):
            p.grad = g.view_as(p)
        for number, table in enumerate(self.tables, count):
            of_table = zip(weights, (of_task[number] for of_task in gradients), strict=True)
            parts = [weight * gradient for weight, gradient in of_table if gradient is not None]
            table.grad = reduce(torch.add, parts) if parts else None

    def _weights(self, gram: Tensor) -> list[float]:
        """Return the weight of each task; 1 where there is nothing to weigh."""
        weights, weighed = gram.new_ones(len(gram)), gram.diagonal() > 0
        if number := int(weighed.sum()):
            weigh = self.weighting(torch.ones(number)) if self.name in SUMS else self.weighting()
            weights[weighed] = weigh(gram[weighed][:, weighed])
        return weights.tolist()


def make_balance(name: str, model: RankingModel) -> Fixed:
    """Return the balance that the settings name.

    Raises:
        MissingExtra: TorchJD is not installed.
        TrainingError: The model has nothing to share but tables.
    """
    if name == "fixed":
        return Fixed()
    if name == "uncertainty":
        return Uncertainty(model)
    if not model.dense():
        raise TrainingError(
            "training.balance",
            f"{name!r} reconciles gradients of dense parameters, found a model of tables alone; "
            "set it to fixed",
        )
    return Aggregated(model, name)


def conflict(model: RankingModel, batch: Batch) -> list[list[float]]:
    """Return the cosine between the gradients of each two tasks, on the dense numbers that more than one task
    moves.

    Below zero, one task undoes what the other learns.

    Returns:
        Shape (T, T); empty if no two tasks share a number.
    """
    parameters = model.dense()
    if not parameters:
        return []
    of_tasks = gradients_per_task(model.loss(batch)[1], parameters)
    jacobian = torch.stack([_flat(parameters, gradients) for gradients in of_tasks]).float()
    shared = _shared(jacobian)
    unit = nn.functional.normalize(jacobian * shared, dim=1)
    return (unit @ unit.T).tolist() if shared.any() else []


def gradients_per_task(losses: Tensor, parameters: Sequence[Tensor]) -> list[tuple[Tensor | None, ...]]:
    """Return the gradients of the loss of each task, (T,); None for a parameter that the task does not
    read."""
    return [
        torch.autograd.grad(loss, parameters, retain_graph=t < len(losses) - 1, allow_unused=True)
        for t, loss in enumerate(losses)
    ]


def _flat(parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> Tensor:
    """Return one task's gradients of the dense part side by side; 0 where it reads nothing. Shape (P,)."""
    return torch.cat(
        [
            (torch.zeros_like(parameter) if gradient is None else gradient).reshape(-1)
            for parameter, gradient in zip(parameters, gradients, strict=True)
        ]
    )


def _shared(jacobian: Tensor) -> Tensor:
    """Mark the numbers that more than one task moves. (T, P) -> (P,)."""
    return (jacobian != 0).sum(0) > 1


def load_weighting(name: str) -> Any:
    """Return the class of TorchJD that one of `AGGREGATIONS` names.

    Raises:
        MissingExtra: TorchJD is not installed.
    """
    library = load(
        "torchjd.aggregation",
        "training.balance",
        what=f"{name!r} needs TorchJD, which",
        fix="pip install 'mgoe[balance]'",
    )
    return getattr(library, AGGREGATIONS[name])
