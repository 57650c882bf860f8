from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Iterable
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from mgoe.config import GraphSettings
from mgoe.errors import GraphError
from mgoe.graph import MacroGraph, NewEvents, Source, build_graph, forget_users, update_graph
from mgoe.graph.build.workplace import Observer
from mgoe.graph.pair_rows import SIDES
from tests.effort import SOAK, slow, up_to
from tests.features.reading import gather
from tests.graph.build import cut_off
from tests.graph.build.cut_off import killed
from tests.graph.histories import (
    BUCKET,
    CUTS,
    Event,
    contents,
    differences,
    event_lists,
    history,
    planted,
    source_of,
)
from tests.serving.online.worlds import START as SOME
from tests.serving.online.worlds import World

EVENTS = planted()
SETTINGS: dict[str, Any] = {"rank": 8, "recents": 4}
SAID = (
    "cuts",
    "users",
    "items",
    "pairs",
    "events",
    "first",
    "last",
    "checksum",
    "drift",
    "ranks",
    "resolutions",
    "task_mask_scores",
)
"""Of the manifest, as after a rebuild."""
GROUPS = ["counts", "pair", "sketch", "edges", "aggregates", "recents"]
ways = st.sampled_from(
    [{}, {"sample": 2}, {"clusters": "random"}, {"refresh": False}, {"normalize": "none", "scale": 0.5}]
)
"""Settings that bear on what is learned."""
several = st.sampled_from([CUTS, (5,), ()])
"""Four snapshots, two, one."""


class Kept:
    """A graph in a folder of its own, and the events by index that it is of.

    Args:
        folder: Empty.
        events: As `history` takes them.
        cuts: Last bucket of each snapshot but the latest.
        settings: Of the graph.
    """

    def __init__(self, folder: Path, events: list[Event], cuts: tuple[int, ...] = CUTS, **settings: Any):
        self.folder, self.cuts, self.settings = folder, cuts, GraphSettings(**SETTINGS | settings)
        log = history(events, cuts)
        self.rows: list[Event] = list(
            map(tuple, log.rows[["user", "item", "time", "task"]].to_numpy().tolist())
        )
        self.users, self.items = log.users_at.tolist(), log.items_at.tolist()
        self.graph = build_graph(self._source(self.rows), self.settings, folder / "graph")
        self.copies = 0

    def _source(self, rows: list[Event]) -> Source:
        return source_of(rows, self.folder / "log.parquet", self.cuts, self.users, self.items)

    def moved(self, folder: Path) -> Kept:
        """The same in another folder, of a copy."""
        other = copy(self)
        other.folder = folder
        other.graph = MacroGraph.open(shutil.copytree(self.graph.path, folder / "graph"))
        return other

    def copied(self) -> MacroGraph:
        """The graph as it is now."""
        self.copies += 1
        return MacroGraph.open(shutil.copytree(self.graph.path, self.folder / f"copy{self.copies}"))

    def addition(self, rows: list[Event]) -> NewEvents:
        """Events to add; indices that are not known yet are new nodes."""
        users, items = (
            max([known, *(row[side] + 1 for row in rows)])
            for side, known in ((0, self.users[-1]), (1, self.items[-1]))
        )
        source = source_of(rows, self.folder / "new.parquet", [], [users], [items])
        return NewEvents(source.history, users, items, source.read_facts(), {})

    def add(self, rows: list[Event], observer: Observer | None = None) -> MacroGraph:
        new = self.addition(rows)
        self.graph = update_graph(self.graph, new, observer)
        self.rows = self.rows + rows
        self.users, self.items = [*self.users[:-1], new.users], [*self.items[:-1], new.items]
        return self.graph

    def rebuilt(self, keep: MacroGraph, without: Iterable[int] = ()) -> MacroGraph:
        """From all events, or those of other users, over the same time. A late event makes its nodes known in
        every snapshot.
        """
        gone = set(without)
        rows = [row for row in self.rows if row[0] not in gone]
        source = self._source(rows)
        ends = [(cut + 1) * BUCKET for cut in self.cuts]
        late = any(
            row[0] >= n or row[1] >= m
            for row in rows
            for end, n, m in zip(ends, self.users, self.items, strict=False)
            if row[2] < end
        )
        if late:
            known = len(ends) + 1
            source = replace(
                source, users_at=np.full(known, self.users[-1]), items_at=np.full(known, self.items[-1])
            )
        source = replace(source, facts=source.read_facts() | {"last": max(row[2] for row in self.rows)})
        return build_graph(source, self.settings, self.folder / f"rebuilt{self.copies}", keep=keep)


@pytest.fixture(scope="module")
def planted_graph(tmp_path_factory) -> Kept:
    """Of `EVENTS`."""
    return Kept(tmp_path_factory.mktemp("planted"), EVENTS)


@pytest.fixture
def kept(planted_graph, tmp_path) -> Kept:
    """A copy of it, which a test may change."""
    return planted_graph.moved(tmp_path)


def additions(kept: Kept, last: int = 12, most: int = 25) -> st.SearchStrategy[list[Event]]:
    """Events at any time, out of order, of known and of up to three new users and items; none that is there
    already.
    """
    there = set(kept.rows)
    return event_lists(0, most, 0, last, kept.users[-1] + 3, kept.items[-1] + 3).map(
        lambda rows: [row for row in rows if row not in there]
    )


def check_latest(one: MacroGraph, other: MacroGraph):
    """Every array of the latest snapshot is the same to the byte, and so is what the manifest says of it and
    of the log.
    """
    assert (
        differences(contents(one, len(one.manifest.cuts) - 1), contents(other, len(other.manifest.cuts) - 1))
        == []
    )
    for name in SAID:
        a, b = getattr(one.manifest, name), getattr(other.manifest, name)
        assert (
            (a[-1:], len(a)) == (b[-1:], len(b)) if name in ("users", "items", "pairs", "cuts") else a == b
        ), name
    one.verify()


def check_earlier(one: MacroGraph, other: MacroGraph):
    """All snapshots but the latest."""
    for s in range(len(one.manifest.cuts) - 1):
        assert differences(contents(one, s), contents(other, s)) == [], s
    for name in ("users", "items", "pairs", "cuts"):
        assert getattr(one.manifest, name)[:-1] == getattr(other.manifest, name)[:-1]


def check_only_graphs(folder: Path):
    """Nothing unfinished is left."""
    assert not [
        path.name for path in folder.iterdir() if path.name.startswith(".") or path.name.endswith(".building")
    ]


START = [(0, 0, 0, 0), (1, 1, 5, 1)]
KILLS = 50 if SOAK else 1


# --- new events ---


@up_to(2)
@given(events=event_lists(5, 30), cuts=several, settings=ways, data=st.data())
def test_updates_equal_a_rebuild_that_keeps_the_macro_nodes(events, cuts, settings, data):
    """Late, out of order, repeated among themselves, of new users and items, or none at all; and once more on
    top.
    """
    with tempfile.TemporaryDirectory() as folder:
        kept = Kept(Path(folder), START + events, cuts, **settings)
        for _ in range(data.draw(st.integers(1, 2), "updates")):
            before = kept.copied()
            rows = data.draw(additions(kept), "rows")
            rows = data.draw(st.permutations(rows + rows[:3]), "with repeats")
            check_latest(kept.add(rows), kept.rebuilt(before))
            check_earlier(kept.graph, before)
            check_only_graphs(kept.folder)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"sample": 40},
        pytest.param({"clusters": "random"}, marks=slow),
        pytest.param({"refresh": False}, marks=slow),
    ],
    ids=str,
)
def test_an_update_of_a_larger_graph_equals_a_rebuild_in_every_snapshot(tmp_path, settings):
    rng = np.random.default_rng(0)
    kept = Kept(tmp_path, EVENTS, resolutions=[(4, 4), (8, 8)], **settings)
    before = kept.copied()
    draws = (
        rng.integers(0, 170, 900),
        rng.integers(0, 110, 900),
        rng.integers(8 * BUCKET, 14 * BUCKET, 900),
        rng.integers(0, 3, 900),
    )
    rows = list(set(zip(*(column.tolist() for column in draws), strict=True)) - set(kept.rows))
    grown, rebuilt = kept.add(rows), kept.rebuilt(before)
    check_latest(grown, rebuilt)
    check_earlier(grown, rebuilt)
    assert grown.latest.n_users == 170
    assert differences(contents(grown, len(CUTS)), contents(before, len(CUTS))) != []
    assert grown.manifest.changes == [
        {"what": "update", "events": len(rows), "late_pairs": 0, "recluster": False}
    ]
    assert 0 < grown.drift < 1 or settings == {"clusters": "random"}


@up_to(2)
@given(events=event_lists(10, 30), cuts=several, settings=ways, data=st.data())
def test_several_updates_of_known_nodes_equal_one(events, cuts, settings, data):
    """New nodes are placed once, by what they did until then, so their updates have an order."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        kept, at_once = (Kept(Path(folder), START + events, cuts, **settings) for folder in (one, other))
        rows = data.draw(event_lists(2, 25, 0, 12, kept.users[-1], kept.items[-1]), "rows")
        rows = [*dict.fromkeys(row for row in rows if row not in kept.rows)]
        parts = np.array_split(np.arange(len(rows)), data.draw(st.integers(2, 4), "parts"))
        for part in parts:
            kept.add([rows[row] for row in part])
        check_latest(kept.graph, at_once.add(rows))
        assert len(kept.graph.manifest.changes) == len(parts)


@up_to(2)
@given(events=event_lists(10, 30), cuts=several, data=st.data())
def test_what_depends_on_pairs_alone_is_the_same_after_several_updates_of_new_nodes_too(events, cuts, data):
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        kept, at_once = (Kept(Path(folder), START + events, cuts) for folder in (one, other))
        rows = [*dict.fromkeys(data.draw(additions(kept), "rows"))]
        half = len(rows) // 2
        kept.add(rows[:half])
        kept.add(rows[half:])
        at_once.add(rows)
        unequal = differences(contents(kept.graph, len(cuts)), contents(at_once.graph, len(cuts)))
        assert [
            name
            for name in unequal
            if name.startswith(("pairs", "recent", "user_counts", "item_counts", "user_sum", "item_sum"))
        ] == []


def test_nothing_to_add_changes_nothing(kept):
    before = kept.copied()
    after = kept.add([])
    check_latest(after, before)
    check_earlier(after, before)
    with pytest.raises(GraphError, match="an update needs new events, or `recluster`"):
        update_graph(after, None)


def test_an_event_that_is_there_already_counts_as_one_more_event_and_as_nothing_else(kept):
    """The graph holds pairs, not events: it cannot know. A pair's tasks, scores and edges do not count
    events.
    """
    before = contents(kept.copied(), len(CUTS))
    twice = [row for row in kept.rows if row[2] >= 9 * BUCKET][:50]
    after = contents(kept.add(twice), len(CUTS))
    assert {*differences(after, before)} == {
        *("pairs.events", "pairs.total"),
        *(f"{side}_{name}" for side in SIDES for name in ("counts", "total", "again")),
    }
    assert after["pairs.events"].sum() == before["pairs.events"].sum() + len(set(twice))


def test_late_events_join_the_latest_snapshot_and_are_reported(kept):
    before = kept.copied()
    late = [(0, 5, 1, 2), (0, 5, 12, 1), (3, 4, (CUTS[-1] + 1) * BUCKET - 1, 2)]
    grown = kept.add([*late, (160, 3, (CUTS[-1] + 1) * BUCKET, 0)])
    assert grown.manifest.changes[-1]["late_pairs"] == 2
    check_latest(grown, kept.rebuilt(before))
    check_earlier(grown, before)
    pair = (np.array([0]), np.array([5]), ["pair"])
    assert gather(grown.latest, *pair)["pair"][0, 2] == 1
    earlier, unchanged = (gather(graph.snapshots[-2], *pair)["pair"] for graph in (grown, before))
    assert_array_equal(earlier, unchanged)


@pytest.mark.parametrize("cuts", [CUTS, ()], ids=["several", "one"])
def test_events_older_than_all_there_are_late_ones_and_move_the_first_moment(tmp_path, cuts):
    later = [(user, item, moment + BUCKET, task) for user, item, moment, task in EVENTS]
    kept = Kept(tmp_path, later, cuts)
    before = kept.copied()
    assert before.manifest.first >= BUCKET
    grown = kept.add([(2, 7, 3, 2), (150, 100, 4, 0)])
    assert grown.manifest.first == 3
    check_latest(grown, kept.rebuilt(before))
    check_earlier(grown, before)
    assert grown.manifest.changes[-1]["late_pairs"] == (2 if cuts else 0)  # with one snapshot nothing is late
    assert grown.latest.resolutions[0].user_macro[150] < grown.latest.macro_users


def test_the_latest_snapshot_alone_is_updated_as_the_whole_graph_is(kept, tmp_path):
    """A bundle keeps nothing of earlier snapshots but when the last of them ended."""
    kept.graph.save_latest(tmp_path / "alone" / "graph")
    rows = [(0, 5, 1, 2), (151, 3, 11 * BUCKET, 0), (3, 101, 12 * BUCKET, 1)]
    alone = update_graph(MacroGraph.open(tmp_path / "alone" / "graph"), kept.addition(rows))
    kept.add(rows).save_latest(tmp_path / "latest" / "graph")
    latest = MacroGraph.open(tmp_path / "latest" / "graph")
    check_latest(alone, latest)
    assert alone.manifest.since == latest.manifest.since == CUTS[-1]


def test_files_beside_the_snapshots_are_replaced_by_new_events_and_kept_otherwise(kept, tmp_path):
    (tmp_path / "ids").write_text("ids")
    graph = update_graph(
        kept.graph, replace(kept.addition([(0, 0, 99, 0)]), files={"users.parquet": tmp_path / "ids"})
    )
    assert (graph.path / "users.parquet").read_text() == "ids"
    graph = update_graph(graph, None, recluster=True)
    assert (graph.path / "users.parquet").read_text() == "ids"
    graph.verify()
    (tmp_path / "ids").write_text("fewer")
    graph = forget_users(graph, [3], {"users.parquet": tmp_path / "ids"})
    assert (graph.path / "users.parquet").read_text() == "fewer"
    graph.verify()


# --- users that are forgotten ---


@up_to(2)
@given(events=event_lists(5, 40), cuts=several, settings=ways, data=st.data())
def test_forgotten_users_were_never_there_given_the_same_macro_nodes(events, cuts, settings, data):
    with tempfile.TemporaryDirectory() as folder:
        kept = Kept(Path(folder), START + events, cuts, **settings)
        if data.draw(st.booleans(), "after an update"):
            end = (max(cuts, default=-1) + 1) * BUCKET  # a late event would be none of the earlier snapshots
            kept.add([row for row in data.draw(additions(kept), "rows") if row[2] >= end])
        everyone = sorted({row[0] for row in kept.rows})
        gone = data.draw(st.sets(st.sampled_from(everyone), min_size=1, max_size=len(everyone) - 1), "gone")
        before = kept.copied()
        never = kept.rebuilt(before, without=gone)
        after = forget_users(kept.graph, gone, {})
        check_earlier(after, never)
        assert differences(contents(after, len(cuts)), contents(never, len(cuts))) == []
        assert (after.manifest.drift, after.manifest.pairs) == (never.manifest.drift, never.manifest.pairs)
        assert (after.manifest.users, after.manifest.items, after.manifest.cuts) == (
            before.manifest.users,
            before.manifest.items,
            before.manifest.cuts,
        )
        after.verify()
        check_only_graphs(kept.folder)


def test_a_forgotten_user_reads_as_an_unseen_one_in_every_snapshot(kept):
    after = forget_users(kept.graph, [4, 7, 7], {})
    assert after.manifest.changes == [{"what": "forget", "users": 2}]
    items = np.arange(20)
    for snapshot in after.snapshots:
        for user in (4, 7):
            one, unseen = (gather(snapshot, np.full(20, index), items, GROUPS) for index in (user, -1))
            for name in one:
                assert_array_equal(one[name], unseen[name], err_msg=name)
        for array in snapshot.arrays.values():
            if array.shape[:1] == (snapshot.n_users,) and array.dtype.kind == "f":
                assert not array[[4, 7]].any()


def test_forgetting_one_after_the_other_is_forgetting_both_and_once_more_changes_nothing(kept):
    both = forget_users(kept.copied(), [3, 50], {})
    each = forget_users(forget_users(kept.graph, [50], {}), [3], {})
    check_latest(each, both)
    check_earlier(each, both)
    check_latest(forget_users(each, [3], {}), both)


def test_nothing_is_left_of_what_a_forgotten_user_is_about(tmp_path):
    graph = World(tmp_path, SOME, (), content=True, resolutions=[(2, 2)]).graph
    before = np.array(graph.latest.placed["user"]["kappa"])
    after = forget_users(graph, [2], {}).latest.placed["user"]
    assert before[2] > 0
    assert not after["content"][2].any()
    assert not after["vectors"][2].any()
    assert_array_equal(after["kappa"], np.where(np.arange(len(before)) == 2, 0, before))


def test_everyone_can_be_forgotten_and_come_back(kept):
    before = kept.copied()
    empty = forget_users(kept.graph, range(150), {})
    empty.verify()
    assert empty.manifest.pairs == [0] * 4
    for snapshot in empty.snapshots:
        users, items = np.meshgrid(np.arange(-1, 9), np.arange(-1, 9))
        read = gather(snapshot, users.ravel(), items.ravel(), GROUPS)
        assert all(np.isfinite(array).all() for array in read.values())
        assert not np.asarray(snapshot.arrays["user_vectors"]).any()
    kept.graph, rows, kept.rows = empty, kept.rows, []
    again = kept.add([row for row in rows if row[2] > (CUTS[-1] + 1) * BUCKET])
    assert again.manifest.pairs[-1] > 100
    assert_array_equal(again.latest.arrays["basis"], before.latest.arrays["basis"])


@pytest.mark.parametrize(
    ("indices", "found"),
    [([150], r"\[150\]"), ([-1, 3], r"\[-1, 3\]"), ([], r"\[\]"), (range(3, 200), r"\[3, 4, 5, 6, 7\]")],
)
def test_a_user_that_is_not_in_the_graph_is_refused(kept, tmp_path, indices, found):
    with pytest.raises(GraphError, match=f"users to forget are indices from 0 to 149, found {found}"):
        forget_users(kept.graph, indices, {})
    check_only_graphs(tmp_path)
    kept.graph.verify()


# --- macro nodes learned again ---


def numbers(graph: MacroGraph, side: str, of: dict[int, int]) -> dict[int, int]:
    """The macro node of most nodes of each planted group."""
    macro = np.asarray(getattr(graph.latest.resolutions[0], f"{side}_macro"))
    groups = np.array([of[node] for node in range(len(macro))])
    return {group: int(np.bincount(macro[groups == group], minlength=4).argmax()) for group in range(4)}


@pytest.mark.parametrize("settings", [{}, {"refresh": False}], ids=str)
def test_macro_nodes_learned_again_keep_their_numbers_and_follow_users_who_moved(tmp_path, settings):
    """A tenth of the users turn to the next group, and thirty come to them; a known item keeps its place
    until then.
    """
    kept = Kept(tmp_path, EVENTS, resolutions=[(4, 4)], rank=16, **settings)
    log = history(EVENTS)
    group = {
        side: dict(zip(log.rows[side], [event[at] % 4 for event in EVENTS], strict=True))
        for at, side in enumerate(("user", "item"))
    }
    found = {side: numbers(kept.graph, side, group[side]) for side in group}
    assert all(len(set(found[side].values())) == 4 for side in found)
    rng, rows = np.random.default_rng(1), []
    movers = [user for user in range(150) if user % 10 == 0]
    group["user"] |= {user: (group["user"][user] + 1) % 4 for user in movers} | {
        user: user % 4 for user in range(150, 180)
    }
    of_group = {g: [item for item, own in group["item"].items() if own == g] for g in range(4)}
    for user in (*movers, *range(150, 180)):
        rows += [
            (user, int(item), 12 * BUCKET, 2)
            for item in rng.choice(of_group[group["user"][user]], 20, replace=False)
        ]
    grown = kept.add([row for row in rows if row not in kept.rows])
    assert grown.drift > 0.05
    moved_before = np.asarray(grown.latest.resolutions[0].user_macro)[movers]
    again = update_graph(grown, None, recluster=True)
    assert again.manifest.drift == [0.0]
    assert again.manifest.changes[-1] == {"what": "update", "events": 0, "late_pairs": 0, "recluster": True}
    for side in group:
        assert numbers(again, side, group[side]) == found[side]
    macro = np.asarray(again.latest.resolutions[0].user_macro)
    assert (macro[movers] != moved_before).mean() > 0.9
    right = np.array([macro[user] == found["user"][group["user"][user]] for user in range(180)])
    assert right.mean() > 0.95
    again.verify()


def test_macro_nodes_learned_again_from_new_events_are_those_of_the_next_snapshot(tmp_path):
    """As if the log had been cut where the graph ended: each snapshot starts from earlier macro nodes."""
    early, late = ([event for event in EVENTS if (event[2] < 9 * BUCKET) == first] for first in (True, False))
    kept = Kept(tmp_path, [*early, *late], (8,), resolutions=[(4, 4)])
    (tmp_path / "other").mkdir()
    first = Kept(tmp_path / "other", early, (), resolutions=[(4, 4)])
    new = [row for row in kept.rows if row[2] >= 9 * BUCKET]
    again = update_graph(first.graph, first.addition(new), recluster=True)
    unequal = differences(contents(again, 0), contents(kept.graph, 1))
    assert {*unequal} == {
        "item_counts",
        "pairs.events",
        "user_counts",
    }  # events since the snapshot before, which that graph has not
    assert again.manifest.drift == kept.graph.manifest.drift == [0.0]


# --- changes that are interrupted ---


class Cut(BaseException):
    """What a test cuts a change off with."""


class CutAt(Observer):
    """Cuts a change off when its stage of that number begins."""

    def __init__(self, at: int):
        self.at, self.begun = at, []

    def stage(self, name, total, unit):
        self.begun.append(name)
        if len(self.begun) - 1 == self.at:
            raise Cut
        return lambda done: None


ROWS = [(0, 5, 1, 2), (151, 3, 11 * BUCKET, 0), (3, 101, 12 * BUCKET, 1)]
CHANGES = {
    "update": lambda kept, graph, observer: update_graph(graph, kept.addition(ROWS), observer),
    "forget": lambda kept, graph, observer: forget_users(graph, [3, 9], {}, observer),
    "recluster": lambda kept, graph, observer: update_graph(graph, None, observer, recluster=True),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_that_is_interrupted_in_any_stage_leaves_the_graph_and_resumes(tmp_path, name):
    """In the short form a third of the stages of each change, others of every change."""
    change, kept = CHANGES[name], Kept(tmp_path, EVENTS[:400], (5,))
    seen = CutAt(-1)
    changed = change(kept, kept.copied(), seen)
    assert len(seen.begun) > 6
    for at in range(0 if SOAK else [*CHANGES].index(name), len(seen.begun), 1 if SOAK else 3):
        graph = kept.copied()
        with pytest.raises(Cut):
            change(kept, graph, CutAt(at))
        still = MacroGraph.open(graph.path)
        assert still.manifest == kept.graph.manifest
        still.verify()
        rest = CutAt(-1)
        again = change(kept, still, rest)
        assert rest.begun == seen.begun[at:]
        check_latest(again, changed)
        check_earlier(again, changed)
        assert again.manifest.changes == changed.manifest.changes
        check_only_graphs(tmp_path)


def test_another_change_is_refused_until_the_one_that_was_begun_is_done(tmp_path):
    kept = Kept(tmp_path, EVENTS[:400])
    with pytest.raises(Cut):
        CHANGES["update"](kept, kept.graph, CutAt(4))
    with pytest.raises(
        GraphError,
        match=r"graph.building: holds an unfinished update, found a new forget; finish that, or remove",
    ):
        forget_users(kept.graph, [3], {})
    with pytest.raises(GraphError, match="holds an unfinished update, found a new build"):
        build_graph(kept._source(kept.rows), kept.settings, kept.graph.path)
    with pytest.raises(
        GraphError,
        match=r"the log changed since this update was begun \(3 events then, 2 now\); restore the log",
    ):
        update_graph(kept.graph, kept.addition(ROWS[:2]))
    with pytest.raises(GraphError, match=r"an unfinished update had other settings \(recluster\)"):
        update_graph(kept.graph, kept.addition(ROWS), recluster=True)
    kept.graph.verify()
    done = kept.add(ROWS)
    assert forget_users(done, [3], {}).manifest.changes[-1] == {"what": "forget", "users": 1}


@slow
def test_an_update_killed_at_random_moments_leaves_the_graph_or_the_grown_one_and_resumes(tmp_path):
    before = cut_off.log().build(tmp_path / "before", **cut_off.SETTINGS)
    shutil.copytree(before.path, tmp_path / "grown")
    began = time.perf_counter()
    grown = cut_off.update(tmp_path / "grown")
    seconds, moments, kills = time.perf_counter() - began, random.Random(0), 0
    while kills < KILLS:
        out = tmp_path / "graph"
        shutil.copytree(before.path, out)
        for _ in range(moments.choice([1, 1, 2])):
            killed("update", out, moments.uniform(0, seconds))
            kills += 1
            still = MacroGraph.open(out)
            still.verify()
            if still.checksum == grown.checksum:  # it was whole when the kill came
                break
            assert still.manifest == before.manifest
        else:
            cut_off.update(out)
        check_latest(MacroGraph.open(out), grown)
        check_earlier(MacroGraph.open(out), before)
        check_only_graphs(tmp_path)
        shutil.rmtree(out)
