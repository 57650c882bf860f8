"""LightGCN (He et al. 2020): embeddings of users and items, smoothed over the graph of who did what.

Axes: `U` users, `I` items, `D` width.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mgoe.config import RangeSettings
from mgoe.topn.baselines.baseline import Baseline, Budget
from mgoe.topn.lists import Events, Scores

BATCH, STEPS = 32_768, 8
"""Pairs per step, fewer where an epoch would have fewer steps. Each step smooths the whole graph, so large
batches make an epoch cheap."""


def fit_lightgcn(events: Events, settings: Mapping[str, Any], seed: int, budget: Budget) -> Scores:
    """Learn embeddings with the loss of pairs (eq. 15): an item that the user did before a random one.

    The score of a pair is the product of its embeddings after smoothing, the mean over rounds (eq. 7, 8).
    """
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    users, items = events.shape
    pairs = events.matrix().tocoo()
    adjacency, rounds = smoothing(pairs.row, pairs.col, users, items), settings["rounds"]
    table = torch.nn.Parameter(0.1 * torch.randn(users + items, settings["width"], generator=generator))
    optimizer = torch.optim.Adam([table], lr=settings["learning_rate"])
    steps = max(len(pairs.row) // BATCH, min(STEPS, len(pairs.row)))
    for _ in budget.epochs(settings["epochs"]):
        for rows in np.array_split(rng.permutation(len(pairs.row)), steps):
            other = rng.integers(0, items, len(rows))
            nodes = np.stack([pairs.row[rows], users + pairs.col[rows], users + other])
            places = torch.from_numpy(nodes.astype(np.int64))
            user, done, random = Smoothed.apply(adjacency, table, rounds)[places]
            lead = (user * (done - random)).sum(dim=1)
            penalty = settings["decay"] * table[places].square().sum() / (2 * len(rows))
            loss = torch.nn.functional.softplus(-lead).mean() + penalty
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.inference_mode():
        embeddings = smoothed(adjacency, table, rounds).numpy()
    return lambda chosen: embeddings[chosen] @ embeddings[users:].T


class Smoothed(torch.autograd.Function):
    """`smoothed`. The graph is symmetric, so a gradient is smoothed in the same way."""

    @staticmethod
    def forward(ctx: Any, adjacency: torch.Tensor, table: torch.Tensor, rounds: int) -> torch.Tensor:
        ctx.adjacency, ctx.rounds = adjacency, rounds
        return smoothed(adjacency, table, rounds)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[None, torch.Tensor, None]:
        return None, smoothed(ctx.adjacency, gradients[0], ctx.rounds), None


def smoothing(user: NDArray, item: NDArray, users: int, items: int) -> torch.Tensor:
    """Return D^-1/2 A D^-1/2 of the graph of users and items. Sparse, shape (U + I, U + I)."""
    ends = np.concatenate([user, item + users]), np.concatenate([item + users, user])
    degree = np.bincount(ends[0], minlength=users + items)
    values = 1 / np.sqrt(degree[ends[0]] * degree[ends[1]])
    places = torch.from_numpy(np.stack(ends).astype(np.int64))
    values = torch.from_numpy(values.astype(np.float32))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse")  # how new and how unchecked these matrices are
        return torch.sparse_coo_tensor(places, values, (users + items,) * 2).to_sparse_csr()


def smoothed(adjacency: torch.Tensor, table: torch.Tensor, rounds: int) -> torch.Tensor:
    """Return the mean of the embeddings after 0, 1, ... rounds. Shape (U + I, D)."""
    layers = [table]
    for _ in range(rounds):
        layers.append(adjacency @ layers[-1])
    return torch.stack(layers).mean(dim=0)


LIGHTGCN = Baseline(
    fit_lightgcn,
    {"width": 64, "rounds": 3, "learning_rate": 0.02, "decay": 1e-4, "epochs": 40},
    {
        "width": [64],
        "rounds": [1, 2, 3],
        "learning_rate": RangeSettings(low=0.005, high=0.1, log=True),
        "decay": RangeSettings(low=1e-5, high=1e-2, log=True),
        "epochs": [20, 40, 80],
    },
    random=True,
)
