"""One bundle ready to serve: its live state, its scorer, and the events that it understands."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mgoe._util.files import Hold
from mgoe.bundle import Bundle
from mgoe.bundle.context import encode_json
from mgoe.bundle.held import read_held
from mgoe.bundle.membership import deployment_of
from mgoe.errors import AwayError, OtherLogError
from mgoe.features.macro_nodes import describe_macro_nodes
from mgoe.graph.matrices import lift
from mgoe.graph.pair_rows import SIDES, Side
from mgoe.retrieval import known_items
from mgoe.serving.events.event import Event, EventReader, Id
from mgoe.serving.events.exposure import ExposureReader
from mgoe.serving.events.log import ServiceLog
from mgoe.serving.online.live import Consumer, LiveNodes
from mgoe.serving.scoring.runtime import Runtime
from mgoe.serving.scoring.scorer import Scorer

SHOWN_USERS = 20
"""Users that the page offers."""
Clock = Callable[[], int]
"""Returns the present, in microseconds since 1970."""


class Engine:
    """One bundle, ready to serve. A refreshed bundle gets a new engine; requests finish with their old one.

    Args:
        path: The bundle's folder, checked against its checksums.
        log: Live events, which are read to the end unless they are away or of another log.
        index: Folder for what is made from the bundle once and read by every worker.
        runtime: What runs the model.
        clock: What the present is; None for the system's clock. As of a supplied clock, `catch_up` reads
            all exposures, without a pause.

    Raises:
        BundleError, GraphError: The bundle cannot be served.
        StoreError: A log is damaged, or of another deployment.

    Attributes:
        name: Identifies the bundle, in answers and in logs.
        events: Reads events of this bundle.
        exposures: Reads exposures and their labels, which a bundle of an exposure log takes.
        away: Why the logs could not be read; None if they could. `catch_up` tries again.
        consumer: Follows the logs.
        live: The live state.
        scorer: Scores pairs, with live events.
    """

    def __init__(
        self,
        path: Path,
        log: ServiceLog,
        index: Path | None = None,
        runtime: Runtime = Runtime(),
        clock: Clock | None = None,
    ):
        self._clock = clock
        self.bundle = bundle = Bundle.open(path)
        self._hold = Hold(bundle.path)  # files are opened when they are first read
        self.tasks = bundle.tasks
        self.name = bundle.name
        self.events = EventReader.of(bundle)
        self.exposures = ExposureReader.of(bundle)
        self.live = LiveNodes.of(bundle, index)
        of = bundle.settings.tasks, deployment_of(bundle)
        self.consumer = Consumer(log, self.live, read_held(bundle.path), *of)
        self.away: AwayError | OtherLogError | None = None
        try:
            self._read()
        except (AwayError, OtherLogError) as error:
            self.away = error
        self.scorer = Scorer(bundle, self.live, runtime, cache=index)
        for user in (-1, 0):  # compile and open what would otherwise wait for the first requests
            self.scorer.score(user, np.arange(-1, min(500, self.live.size("item"))))
            if bundle.retrieval is not None:
                with self.scorer.reading() as view:
                    bundle.retrieval.candidates(view, user)

    def catch_up(self) -> None:
        """Apply new events and exposures and recompute the rows of their items, so that no request has to.

        Raises:
            StoreError: The log cannot be read.
        """
        if self._read():
            self.scorer.refresh()

    def _read(self) -> int:
        """Apply what is new, and return how much changed something."""
        if self._clock is None:
            return self.consumer.catch_up()
        changed = self.consumer.catch_up(now := self._clock())
        while self.consumer.has_more:
            changed += self.consumer.catch_up(now)
        return changed

    def now(self) -> int:
        """Return the moment that a request is answered as of, microseconds since 1970: it is asked once, when
        the request comes."""
        return time.time_ns() // 1000 if self._clock is None else self._clock()

    def context(self, given: Mapping[str, Any]) -> dict[str, NDArray] | None:
        """Encode the context features of a request, see `encode_json`; None if there are none."""
        return encode_json(self.bundle.encoders.context_features, given) if given else None

    @cached_property
    def about(self) -> dict[str, Any]:
        """What a client should know of the bundle, as of when it was opened: an `About`."""
        latest = self.bundle.graph.latest
        busiest = np.argsort(-np.asarray(latest.arrays["user_sum"]), kind="stable")[:SHOWN_USERS]
        return {
            "model": self.bundle.manifest.model.name,
            "tasks": list(self.tasks),
            "kinds": {task.name: task.kind for task in self.bundle.manifest.tasks},
            "objective": self.bundle.objective,
            "named": [
                f"{side}s"
                for side in SIDES
                if len(getattr(self.bundle.encoders, f"{side}_side").names.drop_null())
            ],
            "behaviors": list(self.events.behaviors),
            "item_features": self.bundle.item_index.features,
            "context": [feature.name for feature in self.bundle.encoders.context_features.features],
            "users": self.live.size("user"),
            "items": self.live.size("item"),
            "macro_users": latest.macro_users,
            "macro_items": latest.macro_items,
            "busiest_users": self.live.ids("user", busiest),
            "bundle": self.name,
        }

    def macro(self, limit: int) -> dict[str, Any]:
        """Return the heaviest macro nodes of the dense resolution and the edges between them: a `Macro`."""
        latest = self.bundle.graph.latest
        part = latest.resolutions[latest.dense]
        users, items = (
            np.sort(np.argsort(-mass, kind="stable")[:limit]) for mass in (part.user_mass, part.item_mass)
        )
        heaviest = np.ix_(users, items)
        return {
            "users": [self.macro_nodes["user"][k] for k in users],
            "items": [self.macro_nodes["item"][k] for k in items],
            "edges": np.round(part.macro_edges[heaviest].astype(np.float64), 3).tolist(),
            "lift": np.round(lift(part.macro_edges)[heaviest], 3).tolist(),
            "bundle": self.name,
        }

    @cached_property
    def macro_nodes(self) -> dict[Side, list[dict[str, Any]]]:
        """Every macro node, described, as of when the bundle was opened: by side, a `MacroNode` each."""
        encoders, latest = self.bundle.encoders, self.bundle.graph.latest
        of = {
            "user": (encoders.users, encoders.user_side),
            "item": (encoders.items, encoders.item_side),
        }
        return {
            side: [asdict(node) for node in describe_macro_nodes(latest, side, *of[side])] for side in SIDES
        }

    def names(self, side: Side, ids: Sequence[Id]) -> list[str | None]:
        """Return what people call nodes, None where the bundle holds no name."""
        encoders = self.bundle.encoders
        table = encoders.user_side if side == "user" else encoders.item_side
        return table.names_of(self.live.look_up(side, ids))

    def prepare(self) -> None:
        """Compile what live events need, and describe the macro nodes: what a service leaves until it serves.

        An event that comes earlier waits.
        """
        _ = self.about, self.macro_nodes
        self.bundle.item_index.prepare()
        with self.scorer.reading() as view:
            known_items(view, 0)
        live, ids = LiveNodes(self.live.base), {side: self._some_ids(side) for side in SIDES}
        behavior, now = next(iter(self.events.behaviors)), self.now()
        live.apply([Event(user, item, behavior, now, None) for user in ids["user"] for item in ids["item"]])
        self.scorer.rehearse(live, live.look_up("user", ids["user"]), live.look_up("item", ids["item"]))

    def _some_ids(self, side: Side) -> list[Id]:
        """Return an id that is known and one that is not, as far as there are such."""
        strange: list[Id] = (
            [*range(64)] if pa.types.is_integer(self.events.kinds[side]) else ["", "nobody", "none"]
        )
        unknown = np.flatnonzero(self.live.look_up(side, strange) < 0)[:1]
        known = self.live.ids(side, np.arange(min(1, self.live.size(side))))
        return [*known, *(strange[n] for n in unknown)]
