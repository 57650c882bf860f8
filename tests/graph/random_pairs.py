"""Pairs drawn at random, with macro nodes drawn at random, and their score matrix for explicit products."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from mgoe.graph.pairs import Pairs

TASKS = 3


def draw(seed: int, users: int, items: int, share: float) -> Pairs:
    """Every pair with a probability; times have ties, scores are those of their codes."""
    rng = np.random.default_rng(seed)
    user, item = np.nonzero(rng.random((users, items)) < share)
    code = rng.integers(1, 1 << TASKS, len(user))
    time = rng.integers(0, 4, len(user))
    steps = {"user": user, "item": item, "code": code, "score": 7 * code + 1000, "time": time, "bucket": time // 2}
    steps |= {"since": np.zeros_like(user), "until": np.ones_like(user), "events": np.ones_like(user)}
    return Pairs.at(steps, 0, users, items)


pairs = st.builds(draw, st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9), st.floats(0, 1))


def matrix(pairs: Pairs) -> np.ndarray:
    """S in fixed point. Shape (U, I)."""
    out = np.zeros(pairs.shape, np.int64)
    out[pairs.user, pairs.item] = pairs.score
    return out


def macro_nodes(pairs: Pairs, ku: int, ki: int, seed: int) -> dict[str, np.ndarray]:
    """Any macro node for a node with pairs, the cold one for others."""
    rng = np.random.default_rng(seed)
    drawn = {"user": rng.integers(0, ku, pairs.shape[0]), "item": rng.integers(0, ki, pairs.shape[1])}
    cold = {"user": ku, "item": ki}
    return {side: np.where(pairs.sums[side] > 0, node, cold[side]).astype(np.int32) for side, node in drawn.items()}


def members(macro: np.ndarray, k: int) -> np.ndarray:
    """C as a 0/1 matrix; the cold node has no column. Shape (nodes, k)."""
    return np.eye(k + 1, dtype=np.int64)[macro][:, :k]
