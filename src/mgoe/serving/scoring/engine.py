"""What a service does with a bundle: codes and ids, scores, explanations. Joins the bundle, the scorer and the live state.

Axes: `B` candidates, `T` tasks.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mgoe._util.files import sha256
from mgoe.bundle import MANIFEST, Bundle
from mgoe.config import did_you_mean
from mgoe.data import to_arrow
from mgoe.errors import RequestError
from mgoe.graph.pair_rows import OTHER, SIDES, Side
from mgoe.serving.events.event import Event, EventReader
from mgoe.serving.events.log import EventLog
from mgoe.serving.online.consumer import Consumer
from mgoe.serving.online.id_lookup import Id
from mgoe.serving.scoring.context import check_context
from mgoe.serving.scoring.onnx import Precision, Runtime
from mgoe.serving.scoring.scorer import Scorer

SHOWN = 20
"""Users that the page offers, and neighbours that an explanation names."""


@dataclass(frozen=True)
class Scoring:
    """How a bundle is scored: see `Scorer`."""

    engine: Runtime = "onnx"
    precision: Precision = "float32"


class Engine:
    """One bundle, ready to serve. A refreshed bundle is another engine; requests that began with this one end with it.

    Args:
        bundle: Checked.
        log: Of live events, which is read to its end.
        index: Folder for what is made of the bundle once and read by every worker; see `item_rows`.
        scorer: What runs the model, and how exactly.
    """

    def __init__(
        self, bundle: Bundle, log: EventLog, index: Path | None = None, scorer: Scoring | None = None
    ):
        self.bundle, self.tasks, self.objective = bundle, bundle.tasks, bundle.objective
        self.name = sha256(bundle.path / MANIFEST)[:12]
        self.events = EventReader.of(bundle)
        self._consumer = Consumer.of(log, bundle, index)
        self.live = self._consumer.live
        self._context = bundle.encoders.context_features
        how = scorer or Scoring()
        self._scorer = Scorer.open(bundle, self.live, engine=how.engine, precision=how.precision, kept=index)
        self._warm()

    @classmethod
    def open(
        cls, path: Path, log: EventLog, index: Path | None = None, scorer: Scoring | None = None
    ) -> Engine:
        """Open a bundle, checked against its checksums. Arguments as for the class.

        Raises:
            BundleError, GraphError: It cannot be served.
            StoreError: The log of events cannot be read.
        """
        return cls(Bundle.open(path), log, index, scorer)

    @property
    def may_be_behind(self) -> bool:
        """Whether `catch_up` may find something; answered at once."""
        return self._consumer.may_be_behind

    def catch_up(self) -> None:
        """Apply what is new in the log, and compute again what is kept of the items it touches, so that no request has to.

        Raises:
            StoreError: The log is away.
        """
        if self._consumer.catch_up():
            self._scorer.refresh()

    @property
    def n_items(self) -> int:
        """Items of the catalogue, newcomers included."""
        return self.live.size("item")

    def indices(self, side: Side, ids: Sequence[Id]) -> NDArray[np.int64]:
        """Codes of ids, newcomers included; -1 where never seen. Shape (B,)."""
        return self.live.look_up(side, ids)

    def ids(self, side: Side, codes: NDArray[np.int64]) -> list[Id]:
        """Ids of codes."""
        return self.live.ids(side, codes)

    def context(self, given: Mapping[str, Any]) -> dict[str, NDArray] | None:
        """Encode context features, one value each; None: all unknown.

        Raises:
            RequestError: A feature is unknown, or takes a list where one value was given or the reverse.
            DataError: A numeric feature was given what is no number.
        """
        kinds = {feature.name: feature.kind for feature in self._context.features}
        for name, value in given.items():
            if name not in kinds:
                rule = f"{name[:80]!r} is no context feature of this bundle{did_you_mean(name, list(kinds))}"
                raise RequestError(f"context.{name[:80]}", rule)
            check_context(name, kinds[name], value)
        return (
            self._context.encode({name: to_arrow([value]) for name, value in given.items()}, 1)
            if given
            else None
        )

    def score(
        self, user: int, items: NDArray[np.int64], context: Mapping[str, NDArray] | None
    ) -> NDArray[np.float32]:
        """Score one user's pairs, by codes; encoded context has one row. Shape (B, T)."""
        return self._scorer.score(user, items, context)

    def known_items(self, user: int) -> NDArray[np.int32]:
        """Items in a user's history, by codes."""
        return self.live.known_items(user)

    def explain(self, user: Id, item: Id | None, context: Mapping[str, Any]) -> dict[str, Any]:
        """What carried a score: a `wire.Explanation`. Without an item, what is known of the user."""
        code, encoded = int(self.indices("user", [user])[0]), self.context(context)
        other = -1 if item is None else int(self.indices("item", [item])[0])
        with self.live.lock:  # nothing changes between what is shown and what is scored
            return self._explained(user, item, code, other, encoded)

    def _explained(
        self, user: Id, item: Id | None, code: int, other: int, context: dict[str, NDArray] | None
    ) -> dict[str, Any]:
        gathered = self.live.gather(np.array([code]), np.array([other]), ["aggregates", "recents"])
        found: dict[str, Any] = {
            "user": user, "item": item, "bundle": self.name,
            "user_macro": int(gathered["user_macro"][0]), "item_macro": None, "tasks": None, "item_edges": None,
            "user_edges": _edges(gathered["u1"][0]),
            "recents": {"items": self._recents(gathered, "item"), "users": []},
            "live": {"user": self._changes("user", code)},
        }  # fmt: skip
        if item is None:
            return found
        shown = self._scorer.explain(code, other, context)
        weights = {
            kind: [one["weight"] for one in listed] for kind, listed in shown.get("recents", {}).items()
        }
        return found | {
            "item_macro": int(gathered["item_macro"][0]),
            "tasks": shown["tasks"],
            "gates": {task: self._by_expert(row) for task, row in shown["gates"].items()}
            if "gates" in shown
            else None,
            "macro": shown.get("macro"),
            "item_edges": _edges(gathered["i1"][0]),
            "recents": {f"{side}s": self._recents(gathered, side, weights.get(f"{side}s")) for side in SIDES},
            "live": found["live"] | {"item": self._changes("item", other)},
        }

    @cached_property
    def about(self) -> dict[str, Any]:
        """What a client should know: a `wire.About`, as of when the bundle was opened."""
        latest = self.bundle.graph.latest
        sums = latest.arrays["user_sum"]
        most = np.argsort(-np.asarray(sums), kind="stable")[:SHOWN]
        return {
            "model": self.bundle.manifest["model"]["name"],
            "tasks": list(self.tasks),
            "objective": self.objective,
            "behaviors": list(self.events.behaviors),
            "context": [feature.name for feature in self._context.features],
            "users": self.live.size("user"),
            "items": self.n_items,
            "macro_users": latest.macro_users,
            "macro_items": latest.macro_items,
            "busiest_users": self.ids("user", most),
            "bundle": self.name,
        }

    def _warm(self) -> None:
        """Compile and open what is compiled or opened late, so that no request waits for it."""
        for user in (-1, 0):
            self.score(user, np.arange(-1, min(500, self.n_items)), None)
        _ = self.about, self._members
        self.known_items(0)
        live, ids = self.live.without_events(), {side: self._some_ids(side) for side in SIDES}
        behavior, now = next(iter(self.events.behaviors)), time.time_ns() // 1000
        live.apply([Event(user, item, behavior, now, None) for user in ids["user"] for item in ids["item"]])
        self._scorer.rehearse(live, live.look_up("user", ids["user"]), live.look_up("item", ids["item"]))

    def _some_ids(self, side: Side) -> list[Id]:
        """One that is known and one that is not, where there are such."""
        strangers: list[Id] = (
            [*range(64)] if pa.types.is_integer(self.events.kinds[side]) else ["", "nobody", "nothing"]
        )
        unknown = np.flatnonzero(self.indices(side, strangers) < 0)[:1]
        return [*self.ids(side, np.arange(min(1, self.live.size(side)))), *(strangers[n] for n in unknown)]

    @cached_property
    def _members(self) -> dict[Side, NDArray[np.int64]]:
        """Nodes of each macro node, the cold one last, at the dense resolution."""
        part = self.bundle.graph.latest.resolutions[self.bundle.graph.latest.dense]
        return {
            "user": np.bincount(part.user_macro, minlength=len(part.user_mass) + 1),
            "item": np.bincount(part.item_macro, minlength=len(part.item_mass) + 1),
        }

    def macro(self, limit: int) -> dict[str, Any]:
        """The heaviest macro nodes of the dense resolution and the edges between them: a `wire.Macro`."""
        part = self.bundle.graph.latest.resolutions[self.bundle.graph.latest.dense]
        users, items = (
            np.sort(np.argsort(-mass, kind="stable")[:limit]) for mass in (part.user_mass, part.item_mass)
        )
        return {
            "users": [{"node": int(k), "members": int(self._members["user"][k])} for k in users],
            "items": [{"node": int(k), "members": int(self._members["item"][k])} for k in items],
            "edges": np.round(part.macro_edges[np.ix_(users, items)].astype(np.float64), 3).tolist(),
            "bundle": self.name,
        }

    def _by_expert(self, weights: Sequence[float]) -> dict[str, float]:
        """Experts by number, from 1: none belongs to a task."""
        return {str(number): weight for number, weight in enumerate(weights, 1)}

    def _recents(
        self, gathered: Mapping[str, NDArray], side: Side, weights: Sequence[float] | None = None
    ) -> list[dict[str, Any]]:
        """Neighbours that are items, or users, newest first, with their weights where the model weighs them."""
        codes, done = gathered[f"recent_{side}s"][0], gathered[f"recent_{side}s_task_mask"][0]
        there = codes >= 0
        tasks = [
            [task for t, task in enumerate(self.tasks) if code >> t & 1] for code in done[there].tolist()
        ]
        parts = zip(self.ids(side, codes[there]), tasks, weights or [None] * len(tasks), strict=True)
        return [{"id": one, "tasks": names, "weight": weight} for one, names, weight in parts]

    def _changes(self, side: Side, code: int) -> dict[str, Any] | None:
        """What live events changed of a node: numbers before and now, dense edges that moved, live neighbours. None: nothing."""
        found = self.live.changes(side, code)
        if not found:
            return None
        before, now = found["edges"]
        moved = np.flatnonzero(before != now)
        pairs = {name: [float(value) for value in found[name]] for name in ("pairs", "events", "score")}
        edges = [
            {"node": int(k), "before": round(float(before[k]), 4), "now": round(float(now[k]), 4)}
            for k in moved
        ]
        return {"new": found["new"], **pairs, "edges": edges, "neighbours": found[f"{OTHER[side]}s"][:SHOWN]}


def _edges(logs: NDArray) -> list[dict[str, float]]:
    """Scores of the edges there are, strongest first, from log1p."""
    scores = np.expm1(logs.astype(np.float64))
    order = np.argsort(-scores, kind="stable")
    return [{"node": int(k), "score": round(float(scores[k]), 4)} for k in order if scores[k] > 0]
