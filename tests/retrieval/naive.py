"""Item-to-item links in plain Python, one number at a time; and snapshots of pairs alone."""

from collections import defaultdict
from itertools import combinations
from math import log2, sqrt

import numpy as np
from hypothesis import strategies as st

from mgoe.graph import Snapshot
from mgoe.graph.latest import DAY, LATEST
from mgoe.graph.links import NEAR, SHRINK
from mgoe.graph.pair_rows import starts
from mgoe.retrieval.history import LEAST
from mgoe.retrieval.links import ALPHA, FRESH, FRESHNESS, USERS

SCORES = np.array([0.0, 1.0, 1.5, 2.25])
CUT = 50
Pair = tuple[int, int, int, int]
Row = dict[int, float]
Weights = dict[int, Row]


def snapshot_of(pairs: list[Pair], users: int, items: int) -> Snapshot:
    """A snapshot with pairs (user, item, task mask, time) alone, of one to three events each."""
    rows = np.array(sorted(pairs), np.int64).reshape(-1, 4)
    arrays = {
        "pairs.indptr": starts(np.bincount(rows[:, 0], minlength=users)),
        "pairs.item": rows[:, 1].astype(np.int32),
        "pairs.task_mask": rows[:, 2].astype(np.uint8),
        "pairs.time": rows[:, 3].copy(),
        "pairs.total": (rows[:, 0] + rows[:, 1]) % 3 + 1,
        "user_sum": np.zeros(users),
        "item_sum": np.zeros(items),
    }
    return Snapshot(arrays, (), 0, CUT, DAY, SCORES, (CUT + 1) * DAY)


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


def latest(snapshot: Snapshot) -> dict[int, dict[int, tuple[float, float]]]:
    """Score and days since the last event of each user's latest items."""
    out = {}
    for user in range(snapshot.n_users):
        row = slice(*snapshot.arrays["pairs.indptr"][user : user + 2])
        columns = (snapshot.arrays[f"pairs.{name}"][row].tolist() for name in ("item", "task_mask", "time"))
        pairs = [(-time, -SCORES[mask], item) for item, mask, time in zip(*columns, strict=True)]
        out[user] = {
            item: (-score, ((CUT + 1) * DAY + time) / DAY) for time, score, item in sorted(pairs)[:LATEST]
        }
    return out


def fresh(snapshot: Snapshot) -> Row:
    ages = (CUT + 1) - snapshot.arrays["pairs.time"] / DAY
    half_life = FRESH * (np.median(ages) if len(ages) else 1)
    out: Row = defaultdict(float)
    for row in latest(snapshot).values():
        for i, (_, age) in row.items():
            out[i] += max(0.5 ** (age / half_life), LEAST)
    return {i: value**FRESHNESS for i, value in out.items()}


def cosine(snapshot: Snapshot) -> Weights:
    square: Row = defaultdict(float)
    product: Weights = defaultdict(lambda: defaultdict(float))
    for row in latest(snapshot).values():
        for i, (x, age) in row.items():
            square[i] += x * x
            for j, (y, other) in row.items():
                product[i][j] += x * y / (1 + abs(age - other) / NEAR)
    length = {i: 2 ** (round(2 * log2(value)) / 4) for i, value in square.items()}
    return {
        i: {j: value / (length[i] * length[j] + SHRINK) for j, value in row.items() if j != i}
        for i, row in product.items()
    }


def swing(snapshot: Snapshot) -> Weights:
    pairs, out = latest(snapshot), {}
    for i in range(snapshot.n_items):
        users = sorted((row[i][1], user) for user, row in pairs.items() if i in row)[:USERS]
        out[i] = defaultdict(float)
        for (_, u), (_, v) in combinations(users, 2):
            common = pairs[u].keys() & pairs[v].keys()
            for j in common - {i}:
                ties = [sqrt(pairs[w][i][0] * pairs[w][j][0] / len(pairs[w])) for w in (u, v)]
                out[i][j] += ties[0] * ties[1] / (ALPHA + len(common))
    return out


LINKS = {"cosine": cosine, "swing": swing}
