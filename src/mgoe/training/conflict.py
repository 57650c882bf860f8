"""How far tasks that share parameters agree, by their gradients.

Axes: `T` tasks, `P` numbers of the dense part.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mgoe.models import Batch, RankingModel


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
    losses = model.loss(batch)[1]
    jacobian = torch.stack([_gradient(loss, parameters) for loss in losses]).float()  # (T, P)
    shared = (jacobian != 0).sum(0) > 1
    unit = nn.functional.normalize(jacobian * shared, dim=1)
    return (unit @ unit.T).tolist() if shared.any() else []


def _gradient(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Return the gradient of one task's loss, 0 for parameters that the task does not read. Shape (P,)."""
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(parameter) if gradient is None else gradient).reshape(-1)
            for parameter, gradient in zip(parameters, found, strict=True)
        ]
    )
