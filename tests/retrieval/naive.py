"""Item-to-item links in plain Python, one number at a time; and snapshots of pairs alone."""

from collections import defaultdict
from itertools import combinations
from math import sqrt

import numpy as np
from hypothesis import strategies as st

from mgoe.graph import Snapshot
from mgoe.graph.pair_rows import starts
from mgoe.retrieval.history import HALF_LIFE, LATEST, LEAST
from mgoe.retrieval.links import ALPHA, SHRINK, USERS

SCORES = np.array([0.0, 1.0, 1.5, 2.25])
DAY = 24 * 3600 * 1_000_000
CUT = 50
Pair = tuple[int, int, int, int]
Row = dict[int, float]
Weights = dict[int, Row]


def snapshot_of(pairs: list[Pair], users: int, items: int) -> Snapshot:
    """A snapshot with pairs (user, item, task mask, time) alone."""
    rows = np.array(sorted(pairs), np.int64).reshape(-1, 4)
    arrays = {
        "pairs.indptr": starts(np.bincount(rows[:, 0], minlength=users)),
        "pairs.item": rows[:, 1].astype(np.int32),
        "pairs.task_mask": rows[:, 2].astype(np.uint8),
        "pairs.time": rows[:, 3],
        "user_sum": np.zeros(users),
        "item_sum": np.zeros(items),
    }
    return Snapshot(arrays, (), 0, CUT, DAY, SCORES)


def draw(seed: int, users: int, items: int, share: float) -> Snapshot:
    """Every pair with a probability; days have ties, and two items have the same users."""
    rng = np.random.default_rng(seed)
    there = rng.random((users, items)) < share
    mask, time = rng.integers(1, 4, there.shape), rng.integers(0, CUT, there.shape) * DAY
    if items > 2:
        there[:, 2], mask[:, 2], time[:, 2] = there[:, 0], mask[:, 0], time[:, 0]
    pairs = [(u, i, int(mask[u, i]), int(time[u, i])) for u, i in zip(*np.nonzero(there), strict=True)]
    return snapshot_of([(int(u), int(i), m, t) for u, i, m, t in pairs], users, items)


snapshots = st.builds(
    draw, st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12), st.floats(0.1, 1)
)


def weights_of(snapshot: Snapshot) -> Weights:
    """The weight of each user's latest items."""
    out: Weights = {}
    for user in range(snapshot.n_users):
        row = slice(*snapshot.arrays["pairs.indptr"][user : user + 2])
        columns = (snapshot.arrays[f"pairs.{name}"][row].tolist() for name in ("item", "task_mask", "time"))
        pairs = [(-time, -SCORES[mask], item) for item, mask, time in zip(*columns, strict=True)]
        out[user] = {
            item: -score * max(0.5 ** (((CUT + 1) * DAY + time) / HALF_LIFE), LEAST)
            for time, score, item in sorted(pairs)[:LATEST]
        }
    return out


def cosine(snapshot: Snapshot) -> Weights:
    weights, product, square = (
        weights_of(snapshot),
        defaultdict(lambda: defaultdict(float)),
        defaultdict(float),
    )
    for row in weights.values():
        for i, x in row.items():
            square[i] += x * x
            for j, y in row.items():
                product[i][j] += x * y
    return {
        i: {j: value / (sqrt(square[i]) * sqrt(square[j]) + SHRINK) for j, value in row.items() if j != i}
        for i, row in product.items()
    }


def swing(snapshot: Snapshot) -> Weights:
    weights, out = weights_of(snapshot), {}
    for i in range(snapshot.n_items):
        users = [(-row[i], user) for user, row in weights.items() if i in row]
        row = defaultdict(float)
        for (_, u), (_, v) in combinations(sorted(users)[:USERS], 2):
            common = weights[u].keys() & weights[v].keys()
            for j in common - {i}:
                tie = [sqrt(weights[w][i] * weights[w][j]) / sqrt(len(weights[w])) for w in (u, v)]
                row[j] += tie[0] * tie[1] / (ALPHA + len(common))
        out[i] = row
    return out


LINKS = {"cosine": cosine, "swing": swing}
