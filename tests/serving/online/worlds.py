"""A small graph of random events, live nodes over it, and what a model reads of them."""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from mgoe._util.arrays import take
from mgoe.config import GraphSettings
from mgoe.data import Vocabulary
from mgoe.features import View
from mgoe.graph import MacroGraph, NewEvents, build_graph, update_graph
from mgoe.serving.events.event import Event
from mgoe.serving.online.live import LiveNodes
from mgoe.serving.online.state import LiveBase
from tests.features.reading import gather
from tests.graph.histories import BUCKET, CUTS, event_lists, history, source_of

BEHAVIORS = {"click": 1, "cart": 2, "buy": 4, "click and buy": 5}
NAMES = list(BEHAVIORS)
GROUPS = [
    "counts",
    "pair",
    "sketch",
    "edges",
    "aggregates",
    "recents",
    "placing",
    "repeats",
    "trend",
    "links",
]
START = [(k, k, k, k % 3) for k in range(5)]
Row = tuple[int, int, int, int]


class World:
    """A graph of random events in a folder, and live nodes over it. Ids are indices.

    With `content`, all users and items but the first are about something, and two more of each are known by
    this alone, but for the items if they are not `listed`. They are placed by it although it `tells` nothing.
    Times are stretched by `scale`.
    """

    def __init__(
        self,
        folder: Path,
        events: list[Row],
        cuts: tuple[int, ...] = CUTS,
        content: bool = False,
        listed: bool = True,
        tells: float = -np.inf,
        scale: int = 1,
        **settings: Any,
    ):
        self.folder, log, about = folder, history(events, cuts), {}
        self.users, self.items = int(log.users_at[-1]), int(log.items_at[-1])
        each = log.rows.assign(time=log.rows.time * scale)[["user", "item", "time", "task"]]
        rows = [tuple(row) for row in each.to_numpy().tolist()]
        self.there = set(rows)
        source = source_of(rows, folder / "log.parquet", cuts, log.users_at, log.items_at)
        if content:
            self.users, self.items = self.users + 2, self.items + 2 * listed
            drawn = np.random.default_rng(0).normal(size=(2, 20, 3)).astype(np.float32)
            drawn[:, 0] = 0
            about = {"user": drawn[0, : self.users], "item": drawn[1, : self.items]}
        source = replace(source, content=about, bucket=BUCKET * scale)
        with mock.patch("mgoe.graph.build.snapshot_builder.TELLS", tells):
            self.graph = build_graph(
                source, GraphSettings(**{"rank": 8, "recents": 4} | settings), folder / "graph"
            )

    def live(self) -> LiveNodes:
        users, items = (Vocabulary(pa.array(np.arange(n))) for n in (self.users, self.items))
        return LiveNodes(LiveBase.of(self.graph, {"user": users, "item": items}, BEHAVIORS))

    def updated(self, events: list[Event], content: dict[str, np.ndarray] | None = None) -> MacroGraph:
        rows = [
            (e.user, e.item, e.time, t)
            for e in events
            for t in range(3)
            if BEHAVIORS.get(e.behavior, 0) >> t & 1
        ]
        users, items = (
            max([n, *(row[k] + 1 for row in rows)]) for k, n in ((0, self.users), (1, self.items))
        )
        copy = MacroGraph.open(
            shutil.copytree(self.graph.path, Path(tempfile.mkdtemp(dir=self.folder)) / "graph")
        )
        source = source_of(rows, self.folder / "new.parquet", [], [users], [items])
        new = (
            NewEvents(source.history, users, items, source.read_facts(), {}) if rows or not content else None
        )
        return update_graph(copy, new, content=content)


def streams(world: World, most: int = 20, last: int = 12) -> st.SearchStrategy[list[Event]]:
    """Events of known and up to three new users and items that do not repeat an interaction of the log."""
    rows = event_lists(1, most, 0, last, world.users + 3, world.items + 3)

    def named(rows: list[Row]) -> list[Event]:
        kept = [row for row in rows if not any((*row[:3], t) in world.there for t in range(3))]
        return [
            Event(u, i, NAMES[(task + time) % 4], time, f"e{k}") for k, (u, i, time, task) in enumerate(kept)
        ]

    return rows.map(named)


class Registered(NamedTuple):
    """Two items with content and no events: of the side table, and registered in memory and live."""

    built: World
    world: World
    content: np.ndarray
    new: np.ndarray
    memory: View
    live: LiveNodes


def registered(folder: Path, events: list[Row]) -> Registered:
    """Build a graph whose side table has both items, and one that takes them afterwards."""
    built, world = (
        World(
            Path(tempfile.mkdtemp(dir=folder)),
            START + events,
            (),
            listed=listed,
            content=True,
            resolutions=[(2, 2), (3, 4)],
        )
        for listed in (True, False)
    )
    content = np.asarray(built.graph.latest.placed["item"]["content"])
    told, new = SimpleNamespace(content_of=lambda at: take(content, at, 0)), np.arange(2) + world.items
    memory, live = View.of(world.graph.latest, None, told), world.live()  # type: ignore[arg-type]
    memory.place("item", new)
    live.sides["item"].add_newcomers(new.tolist())
    live.sides["item"].place(new, content[new], version=1)
    return Registered(built, world, content, new, memory, live)


def read(live: LiveNodes, users: int, items: int, moment: int | None = None) -> dict[str, np.ndarray]:
    """What a model reads of every pair of ids; neighbours as ids."""
    user, item = (grid.ravel() for grid in np.meshgrid(np.arange(users), np.arange(items)))
    indices = live.indices("user", user), live.indices("item", item)
    out = gather(live, *indices, GROUPS, moment=moment)
    for side in ("user", "item"):
        ids = np.array(
            [-1 if one is None else one for one in live.ids(side, np.arange(live.size(side)))] + [-1]
        )
        out[f"recent_{side}s"] = ids[out[f"recent_{side}s"]]
    return out


def read_of(live: LiveNodes, ids: list[int]) -> dict[str, np.ndarray]:
    user, item = (grid.ravel() for grid in np.meshgrid(ids, ids))
    return gather(live, live.look_up("user", user.tolist()), live.look_up("item", item.tolist()), GROUPS)
