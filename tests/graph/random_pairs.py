"""Pairs drawn at random, with macro nodes drawn at random, and their score matrix for explicit products."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from mgoe.graph.pair_rows import OTHER, SIDES, PairRows, Reading, Side, starts

TASKS = 3
SCORES = np.array([0, *(7 * mask + 1000 for mask in range(1, 1 << TASKS))])
"""Fixed-point score of every task mask."""


@dataclass(frozen=True)
class Pairs:
    """Distinct pairs in the order of user, then item. Arrays of shape (E,)."""

    user: np.ndarray
    item: np.ndarray
    task_mask: np.ndarray
    time: np.ndarray
    events: np.ndarray
    shape: tuple[int, int]

    def rows(self, side: Side) -> PairRows:
        """By one side, sorted again."""
        own, other = getattr(self, side), getattr(self, OTHER[side])
        order = np.lexsort((other, own))
        indptr = starts(np.bincount(own, minlength=self.nodes(side)))
        columns = (self.task_mask, self.time, self.events, self.time - 3, self.events.astype(np.uint32) + 1)
        return PairRows(indptr, other[order].astype(np.int32), *(column[order] for column in columns))

    def block(self, side: Side) -> PairRows:
        """All nodes of one side."""
        return self.rows(side).block(0, self.nodes(side))

    def nodes(self, side: Side) -> int:
        return self.shape[SIDES.index(side)]

    @property
    def sums(self) -> dict[Side, np.ndarray]:
        """Fixed-point score sum of each node."""
        s = matrix(self)
        return {"user": s.sum(axis=1), "item": s.sum(axis=0)}


def draw(seed: int, users: int, items: int, share: float) -> Pairs:
    """Every pair with a probability; times have ties."""
    rng = np.random.default_rng(seed)
    user, item = np.nonzero(rng.random((users, items)) < share)
    task_mask = rng.integers(1, 1 << TASKS, len(user)).astype(np.uint8)
    time = rng.integers(0, 4, len(user))
    return Pairs(user, item, task_mask, time, rng.integers(0, 9, len(user)).astype(np.uint16), (users, items))


pairs = st.builds(draw, st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9), st.floats(0, 1))


def matrix(pairs: Pairs) -> np.ndarray:
    """S in fixed point. Shape (U, I)."""
    out = np.zeros(pairs.shape, np.int64)
    out[pairs.user, pairs.item] = SCORES[pairs.task_mask]
    return out


def neighbors_of(graph: Pairs, side: Side) -> list[dict[int, tuple[int, int, int]]]:
    """For each node, its neighbours with task mask, time and score."""
    found = [{} for _ in range(graph.nodes(side))]
    for node, j, mask, time in zip(
        getattr(graph, side), getattr(graph, OTHER[side]), graph.task_mask, graph.time, strict=True
    ):
        found[node][int(j)] = (int(mask), int(time), int(SCORES[mask]))
    return found


def macro_nodes(pairs: Pairs, ku: int, ki: int, seed: int) -> dict[Side, np.ndarray]:
    """Random macro nodes for nodes with pairs, the cold one for others."""
    rng = np.random.default_rng(seed)
    drawn = {"user": rng.integers(0, ku, pairs.shape[0]), "item": rng.integers(0, ki, pairs.shape[1])}
    cold = {"user": ku, "item": ki}
    return {side: np.where(pairs.sums[side] > 0, drawn[side], cold[side]).astype(np.int32) for side in SIDES}


def members(macro: np.ndarray, k: int) -> np.ndarray:
    """C as a 0/1 matrix; the cold node has no column. Shape (nodes, k)."""
    return np.eye(k + 1, dtype=np.int64)[macro][:, :k]


def read(rows: PairRows, reading: Reading, pairs: int, length: int) -> dict[str, np.ndarray]:
    """A reading of all nodes by blocks of at most so many pairs and so many rows."""
    parts = [reading(block) for block in rows.blocks(pairs, length)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
