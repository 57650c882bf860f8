"""Weights and optimiser state for a model whose tables have got more rows."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mgoe.errors import TrainingError
from mgoe.training.checkpoint import Shard


def grown(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor | Shard]) -> dict[str, Tensor]:
    """Return tensors in the shapes of a larger model.

    The last row of a table is for unseen nodes. It stays last, and new rows before it start as its copies: a
    new node is first scored as an unseen one.

    Args:
        tensors: Weights and optimiser state by name, such as a fit wrote them.
        like: The tensors of the larger model; other names are left out.

    Raises:
        TrainingError: A tensor differs in more than its number of rows, or has fewer.

    Example:
        >>> grown({"table": torch.tensor([[1.0], [0.0]])}, {"table": torch.empty(3, 1)})["table"].tolist()
        [[1.0], [0.0], [0.0]]
    """
    return {name: _grown(name, tensors[name], like[name].shape) for name in like if name in tensors}


def _grown(name: str, tensor: Tensor, shape: torch.Size) -> Tensor:
    if tensor.shape == shape:
        return tensor
    if not shape or tensor.shape[1:] != shape[1:] or not 0 < len(tensor) < shape[0]:
        raise TrainingError(
            "start",
            f"{name!r} must have the shape {tuple(shape)}, or fewer rows, found {tuple(tensor.shape)}; start "
            "from weights of the same model",
        )
    last = tensor[-1:]
    return torch.cat([tensor[:-1], last.expand(shape[0] - len(tensor), *shape[1:]), last])
