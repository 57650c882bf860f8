"""Counts of what was shown: equal to a count by hand at every snapshot, for every group, resolution and
task."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe._util.arrays import fence
from mgoe.config import FeatureSettings, RunSettings
from mgoe.data import FeatureEncoders, Prepared, Vocabulary
from mgoe.data.exposure_history import exposure_history
from mgoe.errors import ConfigError, GraphError
from mgoe.experiments import graphs
from mgoe.graph import MacroGraph, build_graph
from mgoe.graph.build.rate_counter import RECORDS
from mgoe.graph.rates import LEAST_EVIDENCE, RateGroup, RateTable, parse_groups
from mgoe.graph.shrinkage import WEIGHTS, evidence, fit_mean_prior
from mgoe.lifecycle import forget_in_macro_graph, update_macro_graph
from mgoe.pipeline.stages import source_of
from tests.data import logs
from tests.effort import SOAK, up_to
from tests.graph.histories import history, planted

GROUPS = [
    "user",
    "item",
    "hour",
    "items.tags",
    "user x items.tags",
    "user x item",
    "hour x items.kind",
    "query",
    "item x query",
    "query x items.tags",
    "user_macro@0 x item_macro",
    "user_macro x items.tags",
    "item x user_macro@0",
    {"by": "user", "last": "2d"},
    {"by": ["item", "hour"], "last": "1d"},
    {"by": ["query", "hour"], "last": "2d"},
]
TASKS = [
    {"name": "click", "label": "clicked"},
    {"name": "buy", "label": "bought", "delay": "36h", "given": "click"},
    {"name": "stay", "label": "stayed", "kind": "regression", "known_at": "left"},
]


def log_of(rows: list[tuple]) -> pd.DataFrame:
    """Return exposures of rows (user, item, day, click, buy), with a stay that is known some days later."""
    log = logs.exposures(rows)
    log["stayed"] = np.where(log.clicked == 1, (log.item_id % 4) * 1.25, np.nan)
    log["left"] = np.where((log.user_id % 2) | (log.stayed > 0), log.timestamp + 50 * 3600, np.nan)
    log["hour"] = np.where(log.item_id % 3, log.hour % 3, np.nan)
    log["place"] = np.where(log.user_id % 3, (log.item_id + log.timestamp // logs.DAY) % 3, np.nan)
    log["query"] = np.array(["a|b", " b||c|b", None, "a|d|a"], object)[log.timestamp // 3 % 4]
    return log


def settings_for(folder: Path, **graph: Any) -> RunSettings:
    folder.mkdir(exist_ok=True)
    items = pd.DataFrame({"item": range(5), "kind": list("aabbc"), "tags": ["x", "x|y", "", "z|y|x", None]})
    items.to_parquet(folder / "items.parquet")
    side = {
        "path": str(folder / "items.parquet"),
        "id": "item",
        "features": [{"name": "kind"}, {"name": "tags", "kind": "multi"}],
    }
    return logs.exposure_settings(
        data={
            "context": [{"name": "hour"}, {"name": "query", "kind": "multi"}],
            "position": "place",
            "items": side,
        },
        tasks=TASKS,
        graph={"rank": 4, "resolutions": [(1, 1), (2, 2)], "rates": GROUPS, **graph},
    )


def built(log: pd.DataFrame, settings: RunSettings, folder: Path) -> tuple[Prepared, MacroGraph]:
    prepared = logs.prepared(log, settings, folder / "data")
    return prepared, build_graph(source_of(settings, prepared), settings.graph, folder / "graph")


def latest(log: pd.DataFrame, settings: RunSettings, folder: Path) -> MacroGraph:
    """Return the graph of a whole log, of one snapshot and without examples."""
    whole = settings.graph.model_copy(update={"snapshots": "last"})
    return graphs.macro_graph(settings.model_copy(update={"graph": whole}), folder / "run", table=log)


def tables_of(graph: MacroGraph) -> list[RateTable]:
    """Return the tables of the latest snapshot, each with the cells of its own group alone."""
    assert graph.latest.rates is not None
    return [cells_of(table) for table in graph.latest.rates.tables]


@dataclass
class Known:
    """What ids, categories of the context and items are called in a graph; each is looked up once."""

    users: Vocabulary
    items: Vocabulary
    context: FeatureEncoders
    categories: Mapping[str, np.ndarray]
    found: dict[tuple[str, Any], Any] = field(default_factory=dict)

    def index(self, side: str, node: int) -> int:
        if (side, node) not in self.found:
            known = self.users if side == "user" else self.items
            self.found[side, node] = int(known.indices([node])[0])
        return self.found[side, node]

    def codes(self, name: str, value: Any) -> list[int]:
        """Return the categories that a value of the context has, each once."""
        if (name, value) not in self.found:
            held = self.context.encode({name: [value]}, 1)[name]
            self.found[name, value] = [*{*held[held >= 0].tolist()}]
        return self.found[name, value]


def records_by_hand(log: pd.DataFrame) -> list[tuple[Any, int, int, int, int, float]]:
    """Return (row, day, shown, labelled, done, value) as the definition says it."""
    out = []
    for row in log.drop_duplicates().itertuples():
        day = row.timestamp // logs.DAY
        out.append((row, day, 1, 0, 0, 0.0))
        if not np.isnan(row.clicked):
            out.append((row, day, 0, 1, int(row.clicked), 0.0))
        if row.clicked == 1 and not np.isnan(row.bought):
            out.append((row, (row.timestamp + 36 * 3600) // logs.DAY, 0, 2, 2 * int(row.bought), 0.0))
        if not np.isnan(row.stayed):
            known = row.timestamp if np.isnan(row.left) else row.left
            out.append((row, int(known // logs.DAY), 0, 4, 4 * (row.stayed > 0), row.stayed))
    return out


def cells_by_hand(
    records: list[tuple], encoders: Known, graph: MacroGraph, snapshot: int, group: RateGroup
) -> dict[tuple[int, int], np.ndarray]:
    at, cut = graph.snapshots[snapshot], graph.manifest.cuts[snapshot]
    cells: dict[tuple[int, int], np.ndarray] = {}
    shown_last = max(one[1] for one in records if one[2] and one[1] <= cut)
    for row, day, shown, labelled, done, value in records:
        if day > cut or (group.last is not None and day <= shown_last - group.last):
            continue
        user, item = encoders.index("user", row.user_id), encoders.index("item", row.item_id)
        keys = []
        for axis in group.axes:
            if axis.kind == "node":
                keys.append([user if axis.side == "user" else item])
            elif axis.kind == "macro":
                part = at.resolutions[axis.resolution]
                keys.append([int(part.user_macro[user] if axis.side == "user" else part.item_macro[item])])
            elif axis.side == "context":
                keys.append(encoders.codes(axis.name, getattr(row, axis.name)))
            else:
                held = encoders.categories[axis.name]
                keys.append([*{*held[item][held[item] >= 0].tolist()}] if item < len(held) else [0])
        counts = np.array(
            [shown, *(labelled >> t & 1 for t in range(3)), *(done >> t & 1 for t in range(3)), value]
        )
        for first in keys[0]:
            for second in keys[1] if len(keys) > 1 else [0]:
                cells[first, second] = cells.get((first, second), 0) + counts
    return cells


def cells_of(table: RateTable) -> RateTable:
    """Return a table with the cells of its own group alone."""
    low, high = table.indptr[[0, -1]]
    own = (array[low:high] for array in (table.other, table.counts, table.values))
    return RateTable(table.indptr - low, *own, table.prior)


def check_positions(log: pd.DataFrame, graph: MacroGraph) -> None:
    """Compare what was shown and labelled at each position, 0 where it is unknown, in all records."""
    by_hand, found = np.zeros((4, 2), int), np.zeros((4, 2), int)
    for one, _, shown, labelled, _, _ in records_by_hand(log):
        by_hand[0 if np.isnan(one.place) else int(one.place) + 1] += shown, labelled.bit_count()
    for row in pq.read_table(graph.path / RECORDS).to_pylist():
        found[row["position"]] += row["shown"], row["labelled"].bit_count()
    assert found.tolist() == by_hand.tolist()


def check_counts(log: pd.DataFrame, context: FeatureEncoders, graph: MacroGraph) -> None:
    """Compare all cells of every snapshot."""
    check_positions(log, graph)
    encoders = Known(
        Vocabulary.load(graph.path / "users.parquet"),
        Vocabulary.load(graph.path / "items.parquet"),
        context,
        graph.latest.rates.categories if graph.latest.rates else {},
    )
    records = records_by_hand(log)
    for s, snapshot in enumerate(graph.snapshots):
        assert snapshot.rates is not None
        for group, table in zip(snapshot.rates.groups, snapshot.rates.tables, strict=True):
            table = cells_of(table)
            first = np.repeat(np.arange(len(table.indptr) - 1), np.diff(table.indptr))
            found = {
                (int(a), int(b)): [*counts.tolist(), value[0] * 1e-6]
                for a, b, counts, value in zip(first, table.other, table.counts, table.values, strict=True)
            }
            by_hand = cells_by_hand(records, encoders, graph, s, group)
            assert found == {key: pytest.approx(cell.tolist()) for key, cell in by_hand.items()}, group.name
            assert [*found] == sorted(found)


def telling(**how: int) -> st.SearchStrategy[list[tuple]]:
    """Return rows as `exposure_rows` does, but never so few that one example tells nothing."""
    return logs.exposure_rows(**how).filter(lambda rows: len({*rows}) > 3)


@contextmanager
def graph_of(rows: list[tuple], **graph: Any) -> Iterator[tuple[pd.DataFrame, Prepared, MacroGraph]]:
    """Yield a log of rows and what every log here holds, prepared, with its graph."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = pd.concat([log_of(rows), logs_quiet()])
        yield log, *built(log, settings_for(folder, **graph), folder)


@up_to(1)
@given(rows=telling())
def test_counts_equal_a_count_by_hand(rows):
    with graph_of(rows) as (log, prepared, graph):
        check_counts(log, prepared.context_features, graph)


@up_to(1)
@given(rows=telling(), later=logs.exposure_rows(first=4))
def test_an_update_counts_as_a_rebuild_does(rows, later):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = settings_for(folder, snapshots="last")
        first = pd.concat([logs_quiet(), log_of(rows)])
        new = log_of([(*row[:2], row[2] + 2, *row[3:]) for row in later])
        new["item_id"] += 3  # some of them without categories
        graph = graphs.macro_graph(settings, folder / "run", table=first)
        context = FeatureEncoders.load(graph.path / "context")
        check_counts(first, context, graph)
        if len(new):
            graph = update_macro_graph(graph.path, table=new)
        check_counts(pd.concat([first, new.drop_duplicates()]), context, graph)
        everyone = {str(user) for user in first.user_id}
        graph = forget_in_macro_graph(graph.path, sorted(everyone - {"1"}))
        left = pd.concat([first, new.drop_duplicates()])
        check_counts(left[left.user_id.isin([1]) | ~left.user_id.isin(first.user_id)], context, graph)


@up_to(1)
@given(rows=logs.exposure_rows(), later=telling(first=7))
def test_later_exposures_change_no_earlier_snapshot(rows, later):
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        log, groups = pd.concat([log_of(rows), logs_quiet()]), GROUPS if SOAK else GROUPS[::3]
        graphs_of = [
            built(pd.concat([log, more]), settings_for(Path(folder), rates=groups), Path(folder))[1]
            for folder, more in ((one, log_of([])), (other, log_of(later)))
        ]
        for before, after in zip(*(graph.snapshots[:2] for graph in graphs_of), strict=True):
            assert before.cut < logs.START // logs.DAY + 7
            assert before.rates is not None
            assert after.rates is not None
            for one, other in zip(before.rates.adjusted, after.rates.adjusted, strict=True):
                assert one is None or np.array_equal(one, other[: len(one)])
            for a, b in zip(before.rates.tables, after.rates.tables, strict=True):
                for name, mine, theirs in zip(a._fields, cells_of(a), cells_of(b), strict=True):
                    wide = theirs[: len(mine)] if name == "indptr" else theirs  # nodes that came later
                    assert np.array_equal(mine, wide), name


def test_outliers_of_a_regression_count_as_the_largest_value_that_is_none(tmp_path):
    rng = np.random.default_rng(0)
    rows = [(int(u), int(i), int(d), 1.0, None) for u, i, d in rng.integers(0, [40, 5, 6], (600, 3))]
    log = log_of(rows).drop_duplicates(["user_id", "item_id", "timestamp"])
    log["left"], log["stayed"] = log["timestamp"], rng.exponential(5e3, len(log)).astype(np.float32)
    log.loc[log.index[:5], "stayed"] *= 1e15
    log = pd.concat([log, logs_quiet()])
    graph = latest(log, settings_for(tmp_path, rates=["user"]), tmp_path)
    counted = np.minimum(log["stayed"], fence(log["stayed"].to_numpy())).groupby(log["user_id"]).sum()
    [table] = tables_of(graph)
    known = Vocabulary.load(graph.path / "users.parquet")
    users = known.ids(np.flatnonzero(np.diff(table.indptr))).to_pylist()
    assert table.values[:, 0] * 1e-6 == pytest.approx(counted[users].to_numpy(), rel=1e-6)
    assert table.prior[2, 0] < 2e4
    values = np.minimum(log["stayed"], fence(log["stayed"].to_numpy()))
    sums = table.values[:, 0] * 1e-6
    naive = fit_mean_prior(table.counts[:, 3], sums, float((values**2).sum()))
    assert table.prior[2] == pytest.approx(naive, rel=1e-5)


def test_a_missing_label_is_shown_and_nothing_else(tmp_path):
    log = logs_quiet()
    lost = log.user_id == 0
    settings = settings_for(tmp_path, rates=["user"])
    whole = latest(log, settings, tmp_path / "whole")
    less = latest(log.assign(clicked=log.clicked.where(~lost)), settings, tmp_path / "less")
    [all_of], [some] = map(tables_of, (whole, less))
    assert (some.counts[:, 0] == all_of.counts[:, 0]).all()  # shown
    assert some.counts[0, [1, 2, 4, 5]].sum() == 0  # the purchase is given the click
    assert (some.counts[1] == all_of.counts[1]).all()


def test_categories_of_the_context_are_counted_as_they_are_encoded(tmp_path):
    log = logs_quiet()
    place = np.arange(len(log))
    values = {
        "half": place % 3 / 2,  # an engine writes 1.0 where the encoder writes 1
        "late": np.where(place > 30, 1.5, place % 3),  # a fraction where training has none
        "short": (place % 3 / 10).astype(np.float32),
        "flag": place % 2 == 0,
        'a "name"': np.array(["a", " b", "7"])[place % 3],
    }
    log = log.assign(**values)
    settings = logs.exposure_settings(
        data={"context": [{"name": name} for name in values]},
        tasks=TASKS,
        graph={"rank": 4, "resolutions": [(1, 1)], "rates": [{"by": [name]} for name in values]},
    )
    graph = latest(log, settings, tmp_path)
    context = FeatureEncoders.load(graph.path / "context")
    codes = context.encode({name: log[name] for name in values}, len(log))
    for name, table in zip(values, tables_of(graph), strict=True):
        found = np.zeros(len(table.indptr) - 1)
        found[np.flatnonzero(np.diff(table.indptr))] = table.counts[:, 0]
        assert found.tolist() == np.bincount(codes[name], minlength=len(found)).tolist(), name


def test_rows_count_once_unless_they_differ_in_a_category_however_rare(tmp_path):
    log = logs_quiet()
    rare = [log.iloc[:1].assign(hour=hour) for hour in (7, 8)]  # each seen once, so the encoder knows neither
    settings = settings_for(tmp_path, snapshots="last", rates=["hour"])
    context = [FeatureSettings(name="hour", min_count=3)]
    settings = settings.model_copy(update={"data": settings.data.model_copy(update={"context": context})})
    graph = graphs.macro_graph(settings, tmp_path / "run", table=pd.concat([log, log, *rare]))
    assert pq.read_table(graph.path / RECORDS).to_pandas().shown.sum() == len(log) + len(rare)
    assert tables_of(graph)[0].counts[0, 0] == len(rare) + log.hour.isna().sum()


def test_a_node_keeps_its_name_beside_a_category_of_the_context(tmp_path):
    names = ["user", "item_macro@0", "items.kind"]
    settings = settings_for(tmp_path, rates="auto")
    context = [FeatureSettings(name=name) for name in names]
    settings = settings.model_copy(update={"data": settings.data.model_copy(update={"context": context})})
    log = logs_quiet()
    log = log.assign(**dict.fromkeys(names, np.where(log.clicked == 1, "yes", "no")))
    graph = latest(log, settings, tmp_path)
    assert graph.latest.rates is not None
    axes = {axis for group in graph.latest.rates.groups for axis in group.axes}
    assert {"user", "item"} <= {axis.name for axis in axes}
    assert "context" not in {axis.side for axis in axes}


def test_the_name_of_a_group_does_not_depend_on_the_log():
    for sizes in ({"hour": 3, "items.kind": 9}, {"hour": 9, "items.kind": 3}):
        listed = [
            (["hour", "items.kind"], None),
            (["items.kind", "user"], None),
            (["item_macro", "hour"], None),
        ]
        groups = parse_groups(listed, sizes, (), resolutions=1, dense=0)
        assert [one.name for one in groups] == ["hour x items.kind", "user x items.kind", "hour x item_macro"]


def test_a_label_0_that_is_known_in_a_far_future_never_counts(tmp_path):
    log = logs_quiet()
    done = log.stayed > 0
    log["stayed"] = log.stayed.fillna(0)
    log["left"] = np.where(done, log.timestamp, 2e11)  # its bucket does not fit 32 bits
    settings = settings_for(tmp_path, rates=["user", {"by": "user", "last": "2d"}])
    data = settings.data.model_copy(update={"bucket": "1m", "time_unit": "s"})
    settings = settings.model_copy(update={"data": data})
    graph = latest(log, settings.model_copy(update={"tasks": settings.tasks[::2]}), tmp_path)
    assert graph.manifest.cuts[-1] * 60 <= log.timestamp.max()
    everything, recent = tables_of(graph)
    assert everything.counts[:, 2].sum() == done.sum()
    assert 0 < recent.counts[:, 0].sum() < len(log)


def test_a_label_is_known_no_earlier_than_the_task_that_it_is_given():
    tasks = [
        {"name": "click", "label": "clicked", "delay": "3d"},
        {"name": "buy", "label": "bought", "given": "click"},
    ]
    settings = logs.exposure_settings(tasks=tasks)
    rows = pd.DataFrame({"user": [0], "item": [0], "time": [0], "bucket": [0]})
    rows = ibis.memtable(rows.assign(label_click=1.0, label_buy=0.0))
    found = exposure_history(rows, settings).to_pandas().sort_values(["bucket", "labelled"])
    assert found[["bucket", "shown", "labelled", "done"]].to_numpy().tolist() == [
        [0, 1, 0, 0],
        [3, 0, 1, 1],
        [3, 0, 2, 0],
    ]


def test_an_update_that_was_interrupted_takes_other_exposures(tmp_path, monkeypatch):
    settings = settings_for(tmp_path, snapshots="last", rates=["user"])
    graph = graphs.macro_graph(settings, tmp_path / "run", table=logs_quiet())
    one, other = (log_of([(user, item, 13, 0.0, None)]) for user, item in ((7, 0), (8, 1)))
    with monkeypatch.context() as patch:
        patch.setattr("mgoe.lifecycle.graphs.update_graph", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            update_macro_graph(graph.path, table=one)
    graph = update_macro_graph(graph.path, table=other)
    users = Vocabulary.load(graph.path / "users.parquet")
    assert users.ids(np.arange(users.size)).to_pylist() == [0, 1, 8]
    assert graph.latest.n_users == 3


def test_categories_with_evidence_are_counted(tmp_path):
    rng = np.random.default_rng(0)
    n = 4000
    log = log_of(
        [
            (*pair, float(rng.random() < 0.1 + 0.6 * (pair[1] < 2)), None)
            for pair in rng.integers(0, [5, 5, 12], (n, 3)).tolist()
        ]
    )
    log["hour"] = rng.integers(0, 3, n)
    log["timestamp"] += rng.integers(0, 3600, n)
    log["bought"] = (rng.random(n) < 0.5).astype(float)
    graph = latest(log, settings_for(tmp_path, rates="auto"), tmp_path)
    assert graph.latest.rates is not None
    names = [group.name for group in graph.latest.rates.groups]
    assert {"user", "item", "items.kind", "user x items.kind", "item, last 3"} <= {*names}
    assert "hour" not in names  # it tells nothing


@given(st.integers(2, 40), st.sampled_from([0.5, 0.01]), st.integers(0, 9))
def test_evidence_is_the_share_of_entropy_that_cells_explain(cells, rate, seed):
    rng = np.random.default_rng(seed)
    labelled = rng.integers(100_000, 200_000, cells)
    alike, apart = (
        evidence(labelled, rng.binomial(labelled, rates))
        for rates in (np.full(cells, rate), np.where(np.arange(cells) % 2, 0, 2 * rate))
    )
    assert alike < LEAST_EVIDENCE < apart < 1
    assert evidence(labelled, 0 * labelled) == evidence(labelled, labelled) == 0


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        (["user x itms.tags"], r"graph.rates: an axis is .* found 'itms.tags'; did you mean 'items.tags'\?"),
        (["user", "user"], "groups and their axes must differ, found 'user' twice"),
        (["user x user"], "must differ, found 'user x user' twice"),
    ],
)
def test_groups_that_cannot_be_counted(tmp_path, rates, message):
    with pytest.raises(ConfigError, match=message):
        latest(logs_quiet(), settings_for(tmp_path, rates=rates), tmp_path)


def test_a_group_with_too_many_cells_is_refused_before_it_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("mgoe.graph.build.rate_counter.MOST_CELLS", 2)
    with pytest.raises(GraphError, match="at most 2 cells, found some 3 in 'user x item'"):
        latest(logs_quiet(), settings_for(tmp_path, rates=["user x item"]), tmp_path)


def test_events_have_no_rates(tmp_path):
    log = history(planted(30, 20, 2, 300))
    with pytest.raises(GraphError, match="counts exposures, found a log of events"):
        log.build(tmp_path / "graph", rates=["user"], resolutions=[(2, 2)])


def logs_quiet() -> pd.DataFrame:
    """Every day, two users see two items; every fourth day a click is followed by a purchase."""
    rows = [
        (user, item, day, float(user == item), float(user == item) * float(day % 4 == user))
        for day in range(logs.DAYS)
        for user, item in ((0, 0), (1, 0), (1, 1))
    ]
    return log_of(rows)


@up_to(20)
@given(seed=st.integers(0, 2**32 - 1), between=st.floats(0.3, 3), within=st.floats(0.3, 3))
def test_means_are_shrunk_as_much_as_cells_differ(seed, between, within):
    rng = np.random.default_rng(seed)
    n = rng.integers(1, 30, 4000)
    cell = np.repeat(np.arange(len(n)), n)
    values = rng.normal(7, between, len(n))[cell] + rng.normal(0, within, len(cell))
    mean, weight = fit_mean_prior(n, np.bincount(cell, values), float((values**2).sum()))
    assert mean == pytest.approx(values.mean())
    assert weight == pytest.approx(min(max((within / between) ** 2, 1), 1e4), rel=0.2)
    alike = rng.normal(7, within, len(cell))
    assert fit_mean_prior(n, np.bincount(cell, alike), float((alike**2).sum()))[1] > 10 * weight
    assert fit_mean_prior(n[:1], np.ones(1), 1.0)[1] == 20  # nothing tells
    assert fit_mean_prior(n, 7.0 * n, 49.0 * n.sum())[1] == WEIGHTS[1]
