"""`links`: how strongly the item is tied to the last items of the user, by `mgoe.graph.links`."""

import numpy as np

from mgoe._util.kernels import kernel
from mgoe.features.group import PAIR, Arrays, InputGroup, Key, dense
from mgoe.features.spec import FeatureSpec
from mgoe.features.view import Pairs, View
from mgoe.graph import Snapshot
from mgoe.graph.edges import find_place

FADING = 0.9
"""Weight of a recent item over that of the one after it."""


class Links(InputGroup):
    """Weights of the links from the user's recent items to the item, as of the snapshot: the sum of all,
    each `FADING` times the one before it, the largest, and that of the last item. Shape (B, 3).
    """

    name = "links"
    fresh = True

    def keys(self, spec: FeatureSpec) -> tuple[Key]:
        return (dense("links", (PAIR, spec.widths.get("links", 0))),)

    def names(self, snapshot: Snapshot) -> dict[str, list[str]]:
        return {"links": [f"links.{form}" for form in ("sum", "max", "last")]}

    def read(self, view: View, pairs: Pairs) -> Arrays:
        recent = view.rows("user", "recent", pairs.user, -1, pairs.user_slots)
        out = np.zeros((len(pairs.user), 3), np.float32)
        _read(view.snapshot.links, recent, pairs.item, out)
        return {"links": out}


@kernel("out")
def _read(links, recent, items, out):  # pragma: no cover - compiled
    for row in range(len(items)):
        fade = np.float32(1)
        for k in range(recent.shape[1]):
            one = recent[row, k]
            if one < 0 or items[row] < 0:
                break
            known = one < len(links.indptr) - 1
            place = find_place(links.indptr, links.item, one, items[row]) if known else -1
            if place >= 0:
                weight = links.weight[place]
                out[row, 0] += fade * weight
                out[row, 1] = max(out[row, 1], weight)
                if k == 0:
                    out[row, 2] = weight
            fade *= np.float32(FADING)
