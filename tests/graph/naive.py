"""The graph in plain Python: what a snapshot holds and what a model reads of a pair, one number at a time.

Macro nodes and sketch vectors are taken from the graph under test; all else is made from the history again.
"""

from collections import defaultdict
from math import log, sqrt

import numpy as np

from mgoe.graph import MacroGraph
from tests.graph.histories import RANKS, History

TASKS = len(RANKS)


def score_of(mask: int, beta: float, bits: bool = False) -> float:
    """Eq. 6, then rounded to the grid of fixed-point scores."""
    rho = mask if bits else sum(rank for t, rank in enumerate(RANKS) if mask >> t & 1)
    exact = log(rho + 1) if beta == 0 else ((rho + 1) ** beta - 1) / beta
    return round(exact * 4096) / 4096


def pairs_of(history: History, snapshot: int) -> dict[tuple[int, int], tuple[int, int, int]]:
    """Code, last time and last bucket of every pair, grouped from scratch."""
    found: dict[tuple[int, int], tuple[int, int, int]] = {}
    for row in history.until(snapshot).itertuples():
        mask, time, bucket = found.get((row.user, row.item), (0, -1, -1))
        found[row.user, row.item] = (mask | 1 << row.task, max(time, row.time), max(bucket, row.bucket))
    return found


def recent_of(neighbors: dict[int, tuple[int, int, float]], length: int) -> list[tuple[int, int]]:
    """Neighbour and task mask, newest first, from `neighbour -> (mask, time, score)`."""
    order = sorted(neighbors, key=lambda other: (-neighbors[other][1], -neighbors[other][2], other))
    return [(other, neighbors[other][0]) for other in order[:length]]


def table_of(neighbors: dict[int, tuple[int, int, float]], macro: np.ndarray, width: int, task: int) -> int:
    """The macro node with most members that have the task, then of higher score, then of lower number."""
    done, merged = defaultdict(int), defaultdict(float)
    for other, (mask, _, score) in neighbors.items():
        done[macro[other]] += mask >> task & 1
        merged[macro[other]] += score
    return min(merged, key=lambda k: (-done[k], -merged[k], k), default=width)


class Reading:
    """What a model reads at one snapshot; a node that the snapshot has not seen has no pairs."""

    def __init__(self, history: History, graph: MacroGraph, snapshot: int, beta: float):
        self.history, self.number = history, snapshot
        self.at = graph.snapshots[snapshot]
        self.cut = graph.manifest.cuts[snapshot]
        self.recents = graph.manifest.settings.recents
        self.by: dict[str, dict[int, dict[int, tuple[int, int, float]]]] = {
            "user": defaultdict(dict),
            "item": defaultdict(dict),
        }
        self.pairs = pairs_of(history, snapshot)
        for (user, item), (mask, time, _) in self.pairs.items():
            self.by["user"][user][item] = self.by["item"][item][user] = (mask, time, score_of(mask, beta))
        self.sum = {
            side: {node: sum(s for *_, s in others.values()) for node, others in self.by[side].items()}
            for side in self.by
        }

    def macro(self, r: int, side: str, node: int) -> int:
        array = getattr(self.at.resolutions[r], f"{side}_macro")
        return int(array[node]) if 0 <= node < len(array) else self.width(r, side)

    def width(self, r: int, side: str) -> int:
        return len(getattr(self.at.resolutions[r], f"{side}_mass"))

    def first(self, r: int, side: str, node: int, k: int) -> float:
        other = "item" if side == "user" else "user"
        return sum(s for j, (*_, s) in self.by[side][node].items() if self.macro(r, other, j) == k)

    def second(self, r: int, side: str, node: int, k: int) -> float:
        """Over every other node that shares a neighbour, never back to the node itself."""
        other = "item" if side == "user" else "user"
        return sum(
            s * back
            for j, (*_, s) in self.by[side][node].items()
            for v, (*_, back) in self.by[other][j].items()
            if v != node and self.macro(r, side, v) == k
        )

    def counts(self, side: str, node: int) -> list[float]:
        others = self.by[side][node]
        if not others:
            return [0.0] * (2 * TASKS + 3)
        rows = self.history.until(self.number)
        mine = rows[rows[side] == node].drop_duplicates(["user", "item", "time", "task"])
        done = [sum(mask >> t & 1 for mask, *_ in others.values()) for t in range(TASKS)]
        share = [
            (sum(mask >> t & 1 for mask, *_ in self.pairs.values()) + 1) / (len(self.pairs) + 2)
            for t in range(TASKS)
        ]
        return [
            *(log(1 + n) for n in done),
            log(1 + len(others)),
            log(1 + int((mine.snapshot == self.number).sum())),
            log(1 + self.cut - mine.bucket.max()),
            *(log((n + 5 * p) / (len(others) + 5) / p) for n, p in zip(done, share, strict=True)),
        ]

    def pair(self, user: int, item: int) -> list[float]:
        if (user, item) not in self.pairs:
            return [0.0] * (TASKS + 1)
        mask, _, bucket = self.pairs[user, item]
        return [*(float(mask >> t & 1) for t in range(TASKS)), 1 / (1 + self.cut - bucket)]

    def sketch(self, user: int, item: int) -> list[float]:
        users, items = self.at.arrays["user_vectors"], self.at.arrays["item_vectors"]
        rank = users.shape[1]
        ranks = sorted({max(1, rank // 8), rank // 4, rank // 2, rank})
        if not (0 <= user < len(users) and 0 <= item < len(items)):
            return [0.0] * (2 * len(ranks) + 2)
        u, i = users[user].astype(float), items[item].astype(float)
        products = [u[:r] @ i[:r] for r in ranks]
        liked = [
            _cosine(i, items[j].astype(float)) for j, _ in recent_of(self.by["user"][user], self.recents)
        ]
        return [
            *(_cosine(u[:r], i[:r]) for r in ranks),
            *(np.sign(p) * abs(p) ** 0.25 for p in products),
            *((max(liked), sum(liked) / len(liked)) if liked else (0, 0)),
        ]

    def edges(self, user: int, item: int) -> list[float]:
        out = []
        for r in range(len(self.at.resolutions)):
            ku, ki, cu, ci = (
                self.width(r, "user"),
                self.width(r, "item"),
                self.macro(r, "user", user),
                self.macro(r, "item", item),
            )
            total = sum(self.sum["user"].values())
            su, si = self.sum["user"].get(user, 0), self.sum["item"].get(item, 0)
            mu, mi = self._mass(r, "user", cu), self._mass(r, "item", ci)
            out += _forms(self.first(r, "user", user, ci), su, mi, total, ki)
            out += _forms(self.first(r, "item", item, cu), si, mu, total, ku)
            for side, node, k, width in (("user", user, cu, ku), ("item", item, ci, ki)):
                nodes = list(self.by[side])
                reach = {v: sum(self.second(r, side, v, c) for c in range(width)) for v in nodes}
                column = sum(self.second(r, side, v, k) for v in nodes)
                out += _forms(
                    self.second(r, side, node, k), reach.get(node, 0), column, sum(reach.values()), width
                )
            members = [u for u in self.by["user"] if self.macro(r, "user", u) == cu]
            out += _forms(sum(self.first(r, "user", u, ci) for u in members), mu, mi, total, ki)
        return out

    def _mass(self, r: int, side: str, k: int) -> float:
        return sum(s for node, s in self.sum[side].items() if self.macro(r, side, node) == k)


def _forms(edge: float, row: float, column: float, total: float, width: int) -> list[float]:
    expected = row * column / max(total, 1e-9)
    return [log(1 + edge), log((edge + 0.5 / width) / (row + 0.5)), log((edge + 0.3) / (expected + 0.3))]


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b) / sqrt(float(a @ a) * float(b @ b) + 1e-20)
