"""`links`: how strongly the item is tied to the last items of the user, by `mgoe.graph.links`."""

import numpy as np

from mgoe._util.arrays import run_starts
from mgoe._util.hash_table import free_places, place_of
from mgoe._util.kernels import kernel
from mgoe.features.group import Arrays, InputGroup
from mgoe.features.view import Pairs, View
from mgoe.graph import Snapshot
from mgoe.graph.edges import find_place
from mgoe.graph.links import MOST_LINKS

FADING = 0.9
"""Weight of a recent item over that of the one after it."""
MANY = 16
"""Rows with the same recent items from which the links of these are collected once."""


class Links(InputGroup):
    """Weights of the links from the user's recent items to the item, as of the snapshot: the sum of all,
    each `FADING` times the one before it, the largest, and that of the last item. Shape (B, 3).
    """

    name = "links"
    fresh = True

    def names(self, snapshot: Snapshot) -> dict[str, list[str]]:
        return {"links": [f"links.{form}" for form in ("sum", "max", "last")]}

    def read(self, view: View, pairs: Pairs) -> Arrays:
        recent = view.rows("user", "recent", pairs.user, -1, pairs.user_slots)
        starts = run_starts(pairs.user, pairs.changed("user"))
        out = np.zeros((len(starts), 3), np.float32)
        _read(
            view.snapshot.links,
            recent,
            np.cumprod([1, *[FADING] * (recent.shape[1] - 1)], dtype=np.float32),
            np.flatnonzero(np.append(starts, True)),
            pairs.item,
            free_places(MOST_LINKS * recent.shape[1], np.int32),
            out,
        )
        return {"links": out}


@kernel("key", "out")
def _read(links, recent, fading, runs, items, key, out):  # pragma: no cover - compiled
    for run in range(len(runs) - 1):
        first, end = runs[run], runs[run + 1]
        if end - first >= MANY:
            _collect(links, recent[first], fading, items[first:end], key, out[first:end])
        else:
            for row in range(first, end):
                for k in range(recent.shape[1]):
                    if 0 <= recent[row, k] < len(links.indptr) - 1 and items[row] >= 0:
                        place = find_place(links.indptr, links.item, recent[row, k], items[row])
                        if place >= 0:
                            _add(out[row], links.weight[place], fading, k)


@kernel("key", "out", inner=True)
def _collect(links, recent, fading, items, key, out):  # pragma: no cover - compiled
    """Write rows of one user. The links of the recent items go once into a hash table by their other item."""
    key[:], total = -1, np.zeros((len(key), out.shape[1]), np.float32)
    for k in range(len(recent)):
        if 0 <= recent[k] < len(links.indptr) - 1:
            for e in range(links.indptr[recent[k]], links.indptr[recent[k] + 1]):
                place = place_of(key, links.item[e])
                key[place] = links.item[e]
                _add(total[place], links.weight[e], fading, k)
    for row in range(len(items)):
        if items[row] >= 0:
            out[row] = total[place_of(key, items[row])]


@kernel("out", inline="always")
def _add(out, weight, fading, k):  # pragma: no cover - compiled
    out[0] += fading[k] * weight
    out[1] = max(out[1], weight)
    out[2] = weight if k == 0 else out[2]
