"""`categories`: when the user last did something with an item of the same category."""

import numpy as np
from numpy.typing import NDArray

from mgoe._util.kernels import kernel
from mgoe.features.group import Arrays, InputGroup
from mgoe.features.trend import freshness
from mgoe.features.view import Pairs, View


class Categories(InputGroup):
    """Per feature of items that is one category: `freshness` of the user's last event with an item of the
    same category, 0 where there was none or the category is unknown. Shape (B, features).
    """

    name = "categories"
    fresh = True

    def read(self, view: View, pairs: Pairs) -> Arrays:
        held = view.side["item"]
        names = [name for name, one in held.arrays.items() if one.ndim == 1 and name != "numeric"]
        if not names:
            return {}
        out = np.zeros((len(names), len(pairs.user)), np.float32)
        rows = tuple(view.snapshot.arrays[f"pairs.{name}"] for name in ("indptr", "item", "time"))
        slots = pairs.changed("user")
        later = view.overlay.later_of(slots)
        for column, name in zip(out, names, strict=True):
            own, codes = held.column(name, pairs.items), _codes(view, name)
            latest = np.zeros((held.encoders.sizes[name], 2), np.int64)
            _read(rows, later, codes, own, pairs.now, pairs.user, latest, column)
        return {"categories": out.T}


def _codes(view: View, name: str) -> NDArray[np.integer]:
    """Return the category of every item, those included that were registered live. Shape (I,)."""
    held = view.side["item"]
    if not held.is_extended:
        return held.arrays[name]
    if (kept := f"categories.{name}") not in view.kept:
        every = np.arange(max(len(held.arrays[name]), len(view.overlay.item.slot)))
        view.kept[kept] = held.column(name, every)
    return view.kept[kept]


@kernel("latest", "out")
def _read(rows, later, codes, own, now, users, latest, out):  # pragma: no cover - compiled
    """Write the column of one feature. `latest` holds by category the number of the run of rows, of one user
    at one moment, that has filled it, and the latest time."""
    indptr, item, time = rows
    run = 0
    for row in range(len(users)):
        user, first, end = users[row], later.first[row], later.end[row]
        if row == 0 or users[row - 1] != user or later.first[row - 1] != first or later.end[row - 1] != end:
            run += 1
            if 0 <= user < len(indptr) - 1:
                for e in range(indptr[user], indptr[user + 1]):
                    _note(item[e], time[e], codes, run, latest)
            for e in range(first, end):
                _note(later.item[e], later.time[e], codes, run, latest)
        if own[row] > 0 and latest[own[row], 0] == run:
            out[row] = freshness(now[row] - latest[own[row], 1])


@kernel("latest", inline="always")
def _note(item, time, codes, run, latest):  # pragma: no cover - compiled
    if 0 <= item < len(codes) and codes[item] > 0:
        code = codes[item]
        latest[code, 1] = max(latest[code, 1], time) if latest[code, 0] == run else time
        latest[code, 0] = run
