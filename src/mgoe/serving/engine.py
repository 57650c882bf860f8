"""What a service does with a bundle: codes and ids, scores, explanations. Joins the bundle, the scorer and the live state.

Axes: `B` candidates, `T` tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgoe.bundle import MANIFEST, Bundle
from mgoe.config import did_you_mean
from mgoe.data import to_arrow
from mgoe.files import sha256
from mgoe.serving.codes import Codes, Id
from mgoe.serving.ranking import RequestError

SHOWN_USERS = 20
"""Users that the page offers."""


class Engine:
    """One bundle, ready to serve. A refreshed bundle is another engine; requests that began with this one end with it.

    Args:
        bundle: Checked.
    """

    def __init__(self, bundle: Bundle):
        self.bundle = bundle
        self.tasks = bundle.tasks
        self.name = sha256(bundle.path / MANIFEST)[:12]
        self.strongest = bundle.strongest
        self._users, self._items = Codes(bundle.encoders.users), Codes(bundle.encoders.items)
        self._context = bundle.encoders.context_features
        self.score(-1, np.array([-1]), None)  # what is opened late is opened now

    @classmethod
    def open(cls, path: Path) -> Engine:
        """Open a bundle, checked against its checksums.

        Raises:
            BundleError, GraphError: It cannot be served.
        """
        return cls(Bundle.open(path))

    @property
    def n_items(self) -> int:
        """Items of the catalogue."""
        return self.bundle.encoders.items.size

    @property
    def n_users(self) -> int:
        return self.bundle.encoders.users.size

    def user_code(self, user: Id) -> int:
        """-1 where never seen."""
        return int(self.user_codes([user])[0])

    def user_codes(self, users: Sequence[Id]) -> NDArray[np.int64]:
        """-1 where never seen. Shape (B,)."""
        return self._users.of(users)

    def item_codes(self, items: Sequence[Id]) -> NDArray[np.int64]:
        """-1 where never seen. Shape (B,)."""
        return self._items.of(items)

    def user_ids(self, codes: NDArray[np.int64]) -> list[Id]:
        """Ids of codes; None for -1."""
        return self.bundle.encoders.users.ids(codes).to_pylist()

    def item_ids(self, codes: NDArray[np.int64]) -> list[Id]:
        """Ids of codes; None for -1."""
        return self.bundle.encoders.items.ids(codes).to_pylist()

    def context(self, given: Mapping[str, Any]) -> dict[str, NDArray] | None:
        """Encode context features, one value each; None: all unknown.

        Raises:
            RequestError: A feature is unknown.
            DataError: A value is of the wrong type.
        """
        known = [feature.name for feature in self._context.features]
        for name in given:
            if name not in known:
                raise RequestError(f"context.{name}", f"{name!r} is no context feature of this bundle{did_you_mean(name, known)}")
        return self._context.encode({name: to_arrow([value]) for name, value in given.items()}, 1) if given else None

    def score(self, user: int, items: NDArray[np.int64], context: Mapping[str, NDArray] | None) -> NDArray[np.float32]:
        """Score one user's pairs, by codes; encoded context has one row. Shape (B, T)."""
        rows = self._context.encode({}, 1) if context is None else context
        return self.bundle.score_codes(
            np.full(len(items), user), items, {name: np.repeat(values, len(items), axis=0) for name, values in rows.items()}
        )

    def known_items(self, user: int) -> NDArray[np.int32]:
        """Items in a user's history, by codes."""
        return self.bundle.graph.latest.known_items(user)

    def explain(self, user: Id, item: Id | None, context: Mapping[str, Any]) -> dict[str, Any]:
        """What carried a score: see `wire.Explanation`. Without an item, what there is about the user."""
        code = self.user_code(user)
        other = -1 if item is None else int(self.item_codes([item])[0])
        gathered = self.bundle.graph.latest.gather(np.array([code]), np.array([other]), ["aggregates", "recents"])
        return {
            "user": user,
            "item": item,
            "user_macro": int(gathered["user_macro"][0]),
            "item_macro": None if item is None else int(gathered["item_macro"][0]),
            "tasks": None if item is None else self._by_task(self.score(code, np.array([other]), self.context(context))[0]),
            "user_edges": _edges(gathered["u1"][0]),
            "item_edges": None if item is None else _edges(gathered["i1"][0]),
            "recents": self._recents(gathered, item),
            "bundle": self.name,
        }

    @cached_property
    def about(self) -> dict[str, Any]:
        """What a client should know: see `wire.About`."""
        latest = self.bundle.graph.latest
        sums = latest.arrays["user_sum"]
        most = np.argsort(-np.asarray(sums), kind="stable")[:SHOWN_USERS]
        return {
            "model": self.bundle.manifest["model"]["name"],
            "tasks": list(self.tasks),
            "objective": self.strongest,
            "context": [feature.name for feature in self._context.features],
            "users": self.n_users,
            "items": self.n_items,
            "macro_users": latest.macro_users,
            "macro_items": latest.macro_items,
            "busiest_users": self.user_ids(most),
            "bundle": self.name,
        }

    def macro(self, limit: int) -> dict[str, Any]:
        """The heaviest macro nodes of the dense resolution and the edges between them: see `wire.MacroGraph`."""
        part = self.bundle.graph.latest.resolutions[self.bundle.graph.latest.dense]
        users, items = (np.sort(np.argsort(-mass, kind="stable")[:limit]) for mass in (part.user_mass, part.item_mass))
        sizes = [np.bincount(macro, minlength=len(mass) + 1) for macro, mass in ((part.user_macro, part.user_mass), (part.item_macro, part.item_mass))]
        return {
            "users": [{"node": int(k), "members": int(sizes[0][k])} for k in users],
            "items": [{"node": int(k), "members": int(sizes[1][k])} for k in items],
            "edges": np.round(part.macro_edges[np.ix_(users, items)].astype(np.float64), 3).tolist(),
            "bundle": self.name,
        }

    def _by_task(self, row: NDArray[np.float32]) -> dict[str, float]:
        return dict(zip(self.tasks, row.tolist(), strict=True))

    def _recents(self, gathered: Mapping[str, NDArray], item: Id | None) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for kind, ids in (("items", self.item_ids), ("users", self.user_ids)):
            codes = gathered[f"recent_{kind}"][0]
            there = codes >= 0
            done = [[task for t, task in enumerate(self.tasks) if code >> t & 1] for code in gathered[f"recent_{kind}_code"][0][there].tolist()]
            found[kind] = [{"id": one, "tasks": tasks} for one, tasks in zip(ids(codes[there]), done, strict=True)]
        return found if item is not None else {"items": found["items"], "users": []}


def _edges(logs: NDArray) -> list[dict[str, float]]:
    """Scores of the edges there are, strongest first, from log1p."""
    scores = np.expm1(logs.astype(np.float64))
    order = np.argsort(-scores, kind="stable")
    return [{"node": int(k), "score": round(float(scores[k]), 4)} for k in order if scores[k] > 0]
