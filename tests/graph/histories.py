"""Histories to build graphs from: small ones with many ties, and larger ones with planted communities."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pandas as pd
from hypothesis import strategies as st

from mgoe.config import GraphSettings, SparkSettings
from mgoe.graph import MacroGraph, Source, build_graph
from mgoe.graph.build.workplace import Observer

RANKS = (1.0, 2.0, 3.0)
CUTS = (2, 5, 7)
"""Last buckets of the three snapshots before the latest."""
BUCKET = 10
"""Length of a bucket in units of time, so short that ties are common."""
Event = tuple[int, int, int, int]


@dataclass(frozen=True)
class History:
    """Events as the graph reads them.

    Attributes:
        rows: `user`, `item`, `time`, `task`, in the order given; and `bucket`, `snapshot`, which the graph
            has to find by itself.
        cuts: Last bucket of each snapshot but the latest.
    """

    rows: pd.DataFrame
    cuts: tuple[int, ...]

    @cached_property
    def distinct(self) -> pd.DataFrame:
        """The rows, each once."""
        return self.rows.drop_duplicates()

    @cached_property
    def users_at(self) -> np.ndarray:
        return self._known("user")

    @cached_property
    def items_at(self) -> np.ndarray:
        return self._known("item")

    def _known(self, side: str) -> np.ndarray:
        parts = [self.rows.loc[self.rows.snapshot <= s, side] for s in range(len(self.cuts) + 1)]
        return np.array([0 if part.empty else part.max() + 1 for part in parts])

    def until(self, snapshot: int) -> pd.DataFrame:
        """The rows that a snapshot holds."""
        return self.rows[self.rows.snapshot <= snapshot]

    def shuffled(self, seed: int) -> History:
        return History(self.rows.sample(frac=1, random_state=seed), self.cuts)

    def source(self, file: Path, threads: int = 1, **facts: Any) -> Source:
        """Write the events to a file, and return them as a table of an engine with so many threads."""
        self.rows[["user", "item", "time", "task"]].to_parquet(file)
        table = ibis.duckdb.connect(threads=threads).read_parquet(file)
        return Source(
            table, np.array(self.cuts, np.int32), self.users_at, self.items_at, RANKS, BUCKET, **facts
        )

    def build(
        self,
        out: Path,
        threads: int = 1,
        observer: Observer | None = None,
        keep: MacroGraph | None = None,
        memory: float = 4.0,
        spark: SparkSettings = SparkSettings(),
        **settings: Any,
    ) -> MacroGraph:
        """Build a graph with default settings, but with a sketch that fits the size of these logs."""
        source = self.source(out.with_name(out.name + ".history.parquet"), threads)
        graph = GraphSettings(**{"rank": 8, "recents": 4, **settings})
        return build_graph(source, graph, out, observer, keep, memory, spark)


def history(events: list[Event], cuts: tuple[int, ...] = CUTS) -> History:
    """Return the history of events (user, item, moment, task).

    Indices are given by first appearance, then number, as in the data package.
    """
    user, item, moment, task = np.array(events, np.int64).reshape(-1, 4).T
    bucket = moment // BUCKET
    columns = {
        "user": _indices(user, bucket),
        "item": _indices(item, bucket),
        "time": moment,
        "bucket": bucket.astype(np.int32),
    }
    snapshot = np.searchsorted(np.array(cuts), bucket).astype(np.int16)
    return History(pd.DataFrame({**columns, "snapshot": snapshot, "task": task.astype(np.int8)}), cuts)


def source_of(
    rows: list[Event], file: Path, cuts: Iterable[int], users: Iterable[int], items: Iterable[int]
) -> Source:
    """Of events by index."""
    frame = pd.DataFrame(np.array(rows, np.int64).reshape(-1, 4), columns=["user", "item", "time", "task"])
    frame.astype({"task": np.int8}).to_parquet(file)
    table = ibis.duckdb.connect(threads=1).read_parquet(file)
    return Source(table, np.array([*cuts], np.int32), np.array([*users]), np.array([*items]), RANKS, BUCKET)


def event_lists(
    least: int = 1, most: int = 40, first: int = 0, last: int = 10, users: int = 7, items: int = 8
) -> st.SearchStrategy:
    """Events of a few users on a few items in buckets `first` to `last`; the first bucket always has one, so
    that no snapshot is empty.
    """
    event = st.tuples(
        st.integers(0, users - 1),
        st.integers(0, items - 1),
        st.integers(first * BUCKET, (last + 1) * BUCKET - 1),
        st.integers(0, 2),
    )
    return st.lists(event, min_size=least, max_size=most)


def histories(most: int = 40) -> st.SearchStrategy[History]:
    start = st.tuples(st.integers(0, 6), st.integers(0, 7), st.integers(0, BUCKET - 1), st.integers(0, 2))
    return st.builds(lambda first, rest: history([first, *rest]), start, event_lists(0, most))


def planted(
    users: int = 150, items: int = 100, groups: int = 4, events: int = 2500, seed: int = 0, last: int = 10
) -> list[Event]:
    """Users of group g act on items of group g nine times in ten; user and item numbers modulo `groups` are
    their groups.
    """
    rng = np.random.default_rng(seed)
    user = rng.integers(0, users, events)
    group = np.where(rng.random(events) < 0.9, user % groups, rng.integers(0, groups, events))
    item = rng.integers(0, items // groups, events) * groups + group
    moment = rng.integers(0, (last + 1) * BUCKET, events)
    task = rng.choice(3, events, p=[0.7, 0.2, 0.1])
    return list(zip(*(column.tolist() for column in (user, item, moment, task)), strict=True))


def contents(graph: MacroGraph, snapshot: int) -> dict[str, np.ndarray]:
    """Every array of a snapshot by its file's name."""
    return {
        file.stem: np.load(file)
        for file in sorted((graph.path / "snapshots" / f"{snapshot:02d}").glob("*.npy"))
    }


def differences(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> list[str]:
    """Names of the arrays that are not identical."""
    return sorted(one.keys() ^ other.keys()) + [
        n for n in one.keys() & other.keys() if not np.array_equal(one[n], other[n])
    ]


def _indices(numbers: np.ndarray, bucket: np.ndarray) -> np.ndarray:
    first = pd.Series(bucket).groupby(numbers).min().reset_index()
    order = first.sort_values([0, "index"])["index"].to_numpy() if len(first) else np.empty(0, np.int64)
    return pd.Series(np.arange(len(order)), index=order).loc[numbers].to_numpy()
