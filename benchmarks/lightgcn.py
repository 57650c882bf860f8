"""LightGCN (He et al. 2020) on sparse matrices: the graph peer among recommenders of the whole catalogue.

Axes: `U` users, `I` items, `D` width.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray


def light_gcn(
    known: sp.csr_array,
    seed: int,
    width: int,
    epochs: Sequence[int],
    rounds: int = 3,
    batch: int = 8192,
    decay: float = 1e-4,
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Embeddings smoothed over the normalised graph (eq. 7, 8), their mean over rounds, and the loss of
    pairs (eq. 15).

    Args:
        known: Who did what; entries count as one. Shape (U, I).
        seed: Of everything that is drawn.
        width: Of an embedding, D.
        epochs: Over all pairs, rising: after how many of them to look.
        rounds: Of smoothing.
        batch: Pairs of a step.
        decay: Weight of the squared norms.

    Yields:
        Embeddings of users and of items, whose products are scores, after each number of epochs. Shapes (U,
        D), (I, D).
    """
    torch.manual_seed(seed)
    users, items = known.shape
    pairs = known.tocoo()
    adjacency = smoothing(pairs.row, pairs.col, users, items)
    table = torch.nn.Parameter(0.1 * torch.randn(users + items, width))
    optimizer = torch.optim.Adam([table], lr=2e-2)
    rng = np.random.default_rng(seed)
    for epoch in range(1, epochs[-1] + 1):
        for rows in np.array_split(rng.permutation(len(pairs.row)), max(1, len(pairs.row) // batch)):
            nodes = np.stack(
                [pairs.row[rows], users + pairs.col[rows], users + rng.integers(0, items, len(rows))]
            )
            places = torch.from_numpy(nodes.astype(np.int64))  # of a user, an item that is his, another
            user, liked, other = _Smoothed.apply(adjacency, table, rounds)[places]
            lead = (user * (liked - other)).sum(1)
            loss = torch.nn.functional.softplus(-lead).mean() + decay * table[places].square().sum() / (
                2 * len(rows)
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if epoch in epochs:
            with torch.inference_mode():
                mean = smoothed(adjacency, table, rounds).numpy()
            yield mean[:users], mean[users:]


class _Smoothed(torch.autograd.Function):
    """`smoothed`, whose gradient is itself of the gradient: the graph is symmetric, and nothing needs to be
    transposed.
    """

    @staticmethod
    def forward(ctx, adjacency: torch.Tensor, table: torch.Tensor, rounds: int) -> torch.Tensor:  # type: ignore[override]
        ctx.adjacency, ctx.rounds = adjacency, rounds
        return smoothed(adjacency, table, rounds)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[None, torch.Tensor, None]:  # type: ignore[override]
        return None, smoothed(ctx.adjacency, gradient, ctx.rounds), None


def smoothing(user: NDArray, item: NDArray, users: int, items: int) -> torch.Tensor:
    """D^-1/2 A D^-1/2 of the graph of users and items. Sparse, shape (U + I, U + I)."""
    ends = np.concatenate([user, item + users]), np.concatenate([item + users, user])
    degree = np.bincount(ends[0], minlength=users + items)
    values = 1 / np.sqrt(degree[ends[0]] * degree[ends[1]])
    places = torch.from_numpy(np.stack(ends).astype(np.int64))
    return (
        torch.sparse_coo_tensor(places, torch.from_numpy(values.astype(np.float32)), (users + items,) * 2)
        .coalesce()
        .to_sparse_csr()
    )


def smoothed(adjacency: torch.Tensor, table: torch.Tensor, rounds: int) -> torch.Tensor:
    """Mean of the embeddings after 0, 1, ... rounds. Shape (U + I, D)."""
    layers = [table]
    for _ in range(rounds):
        layers.append(adjacency @ layers[-1])
    return torch.stack(layers).mean(0)
