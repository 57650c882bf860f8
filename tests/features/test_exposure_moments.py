"""Exposures as of moments against a service that was sent all exposures and labels known before."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from mgoe.config import TaskSettings
from mgoe.data import Prepared, Vocabulary
from mgoe.features import Reader, View
from mgoe.features.moments import WindowMoments
from mgoe.graph import MacroGraph, build_graph
from mgoe.graph.moments import Moments
from mgoe.graph.sweep import Events, follow
from mgoe.pipeline.stages import source_of
from mgoe.serving.events.event import Event
from mgoe.serving.events.exposure import Exposure, Label
from mgoe.serving.online.live import LiveNodes
from mgoe.serving.online.live_rates import ExposureFollower
from mgoe.serving.online.state import LiveBase
from tests.data import logs
from tests.effort import up_to
from tests.features.reading import gather
from tests.serving.events.test_exposures import opened
from tests.serving.online.worlds import GROUPS

SECOND, DAY = 1_000_000, 86_400_000_000
TASKS = [
    {"name": "click", "label": "clicked"},
    {"name": "buy", "label": "bought", "delay": "36h", "given": "click"},
    {"name": "stay", "label": "stayed", "kind": "regression", "known_at": "left"},
]
RATES = [
    "user", "item", "hour", "item x hour", "item x query", "user x hour", "user x item",
    {"by": "item", "last": "2d"}, "item x user_macro@0",
]  # fmt: skip
WINDOW = 1
"""Its snapshot is that of the service."""
ROW = st.tuples(
    st.integers(0, 5),
    st.integers(0, 5),
    st.integers(0, logs.DAYS - 1),
    st.sampled_from([0, 1, 3600, 50_000, 86_399]),
    st.sampled_from([0.0, 1.0, None]),
    st.sampled_from([0.0, 1.0, None]),
    st.sampled_from(["a|b", "b", None, "c|a|c"]),
)


def log_of(rows: list[tuple]) -> pd.DataFrame:
    """Return exposures of rows (user, item, day, second, click, buy, query), and those of every log."""
    names = ["user_id", "item_id", "day", "second", "clicked", "bought", "query"]
    own = pd.DataFrame(rows, columns=pd.Index(names))
    own["timestamp"] = logs.START + own.day * logs.DAY + own.second
    log = pd.concat([logs.quiet_exposures().assign(query="a"), own.drop(columns=["day", "second"])])
    log = log.drop_duplicates(["user_id", "item_id", "timestamp"]).reset_index(drop=True)
    log["hour"] = np.where(log.item_id % 3, "h" + (log.timestamp // 3600 % 3).astype(str), None)
    log["stayed"] = np.where(log.clicked == 1, log.user_id * 1.25, np.nan)
    log["left"] = np.where(log.stayed > 0, log.timestamp + 7 * (1 + log.item_id) * 3600, np.nan)
    log["query"] = log["query"].astype(object).where(log["query"].notna(), None)
    return log.astype({"clicked": float, "bought": float})


@dataclass
class Shown:
    """A prepared log, and the graph of a service as of the cut of one of its windows."""

    log: pd.DataFrame
    tasks: list[dict[str, Any]]
    prepared: Prepared
    graph: MacroGraph

    @classmethod
    def of(cls, log: pd.DataFrame, tasks: list[dict[str, Any]], folder: Path, history: str) -> "Shown":
        context = [{"name": "hour"}, {"name": "query", "kind": "multi"}]
        settings = logs.exposure_settings(
            data={"context": context, "history": history},
            tasks=tasks,
            graph={"rank": 4, "recents": 4, "resolutions": [(1, 1), (2, 2)][: len(tasks)], "rates": RATES},
        )
        prepared = logs.prepared(log, settings, folder / "data")
        source, cut = source_of(settings, prepared), int(prepared.cuts[WINDOW])
        assert source.exposures is not None
        until: Any = prepared.exposures
        held: Any = prepared.history
        source = replace(
            source,
            history=held.filter(held.snapshot <= WINDOW),
            exposures=replace(source.exposures, records=until.filter(until.bucket <= cut)),
            cuts=prepared.cuts[:WINDOW],
            users_at=prepared.users_at[: WINDOW + 1],
            items_at=prepared.items_at[: WINDOW + 1],
        )
        return cls(log, tasks, prepared, build_graph(source, settings.graph, folder / "graph"))

    def live(self) -> LiveNodes:
        held = {"user": self.prepared.users, "item": self.prepared.items}
        sizes = {"user": self.prepared.users_at[WINDOW], "item": self.prepared.items_at[WINDOW]}
        ids = {side: Vocabulary(held[side].ids(np.arange(sizes[side]))) for side in held}
        masks = {task["name"]: 1 << t for t, task in enumerate(self.tasks)}
        return LiveNodes(LiveBase.of(self.graph, ids, masks, context=self.prepared.context_features))  # type: ignore[arg-type]

    def pairs(self) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Return all pairs by index, each with a context."""
        sizes = self.prepared.users.size, self.prepared.items.size
        user, item = (side.ravel() for side in np.meshgrid(*map(np.arange, sizes)))
        hours = np.array(["h0", "h1", "h2", None], object)[np.arange(len(user)) % 4]
        queries = np.array(["a", "c|b", None, "b", "z|a"], object)[np.arange(len(user)) % 5]
        context = self.prepared.context_features.encode({"hour": hours, "query": queries}, len(user))
        return user, item, context

    def changed(self, moment: int) -> Moments:
        """Return the moments of a log in which all that comes from a moment on is otherwise."""
        history: Any = self.prepared.history.to_pandas()
        later = history[history.snapshot > WINDOW].sort_values(["time", "user", "item", "task"])
        coming = later.time.to_numpy() >= moment
        for name in ("user", "item"):
            later.loc[coming, name] = later.loc[coming, name].to_numpy()[::-1]
        events = Events.of(*(later[name].to_numpy() for name in ("user", "item", "time", "task")))
        records: Any = self.prepared.exposures.to_pandas()  # type: ignore[union-attr]
        records = records[(records.bucket > self.prepared.cuts[WINDOW]) & (records.time < moment)]
        records.loc[records.known >= moment, "done"] = 0
        records = ibis.memtable(records, schema=self.prepared.exposures.schema())  # type: ignore[union-attr]
        return follow(self.graph, WINDOW, events, records)

    def trained(self, of_window: Moments, moment: int) -> dict[str, np.ndarray]:
        """Return what all pairs read in training, neighbours as ids."""
        user, item, context = self.pairs()
        view = View.of(self.graph.latest, self.prepared.user_side, self.prepared.item_side)
        read = Reader([*GROUPS, "rates"])
        out = read(replace(view, moments=of_window), user, item, context, np.full(len(user), moment))
        for side, known in (("user", self.prepared.users), ("item", self.prepared.items)):
            ids = np.append(known.ids(np.arange(known.size)).to_numpy(), -1)
            out[f"recent_{side}s"] = ids[out[f"recent_{side}s"]]
        return out

    def served(self, live: LiveNodes, moment: int) -> dict[str, np.ndarray]:
        """Return what all pairs read in a service, neighbours as ids."""
        user, item, context = self.pairs()
        ids = [known.ids(nodes).to_pylist() for known, nodes in (
            (self.prepared.users, user), (self.prepared.items, item))]  # fmt: skip
        index = live.indices("user", ids[0]), live.indices("item", ids[1])
        out = gather(live, *index, [*GROUPS, "rates"], context, moment)
        for side in ("user", "item"):
            known = live.ids(side, np.arange(live.size(side)))
            out[f"recent_{side}s"] = np.array([*known, -1])[out[f"recent_{side}s"]]
        return out


def events_of(shown: Shown, moment: int) -> list[Event]:
    """Return what the service is sent of tasks that were done, by the times of the history."""
    history: Any = shown.prepared.history.to_pandas()
    rows = history[(history.snapshot > WINDOW) & (history.time < moment)]
    users, items = shown.prepared.users, shown.prepared.items
    names = np.array([task["name"] for task in shown.tasks])[rows.task]
    columns = users.ids(rows.user.to_numpy()).to_pylist(), items.ids(rows["item"].to_numpy()).to_pylist()
    found = zip(*columns, names.tolist(), rows.time.tolist(), strict=True)
    return [Event(user, item, name, time, f"e{n}") for n, (user, item, name, time) in enumerate(found)]


def exposures_of(shown: Shown, since: int, until: int) -> tuple[list[Exposure], list[Label]]:
    """Return the exposures between two moments, and the labels that become known between them."""
    exposures, labels = list[Exposure](), list[Label]()
    for n, row in enumerate(shown.log.to_dict("records")):
        time, ids = int(row["timestamp"]) * SECOND, (str(row["user_id"]), str(row["item_id"]))
        last = (time // DAY + 1) * DAY - 1
        end = last - (last - time) // SECOND
        known = {"click": end, "buy": max(end, time + 36 * 3600 * SECOND), "stay": end}
        if row["left"] > 0:
            known["stay"] = int(row["left"]) * SECOND
        values = {"click": row["clicked"], "stay": row["stayed"]}
        if row["clicked"] == 1:
            values["buy"] = row["bought"]
        query = row["query"].split("|") if isinstance(row["query"], str) else None
        context = {name: one for name, one in (("hour", row["hour"]), ("query", query)) if one == one and one}
        if since <= time < until:
            exposures.append(Exposure(f"r{n}", *ids, time, context=json.dumps(context) if context else None))
        labels += [
            Label(f"r{n}", "", ids[1], task, known[task], float(values[task]))
            for task in (one["name"] for one in shown.tasks)
            if task in values and since <= known[task] < until and values[task] == values[task]
        ]
    return exposures, labels


@contextmanager
def a_service(shown: Shown, moment: int, data: st.DataObject) -> Iterator[LiveNodes]:
    """Yield a service that was sent what came after its snapshot, in any order."""
    live, events = shown.live(), data.draw(st.permutations(events_of(shown, moment)), "sent")
    for part in range(2):
        live.apply(events[part::2])
    cut = (int(shown.prepared.cuts[WINDOW]) + 1) * DAY
    with opened(window=30 * DAY) as log:
        log.append((), *exposures_of(shown, 0, cut), now=cut)
        follower = ExposureFollower(log, [TaskSettings.model_validate(task) for task in shown.tasks])
        follower.read(cut - 1)  # the graph holds these
        exposures, labels = exposures_of(shown, cut, moment)
        log.append((), exposures[::2], labels[1::2], now=moment)
        log.append((), exposures[1::2], labels[::2], now=moment)
        while (changes := follower.read(moment - 1)) is not None:
            live.apply_exposures(changes)
        yield live


@up_to(3)
@given(
    rows=st.lists(ROW, min_size=3, max_size=40),
    tasks=st.sampled_from([TASKS, TASKS[2:]]),
    history=st.sampled_from(["moment", "bucket"]),
    data=st.data(),
)
def test_a_row_reads_what_a_service_knows_at_its_moment(rows, tasks, history, data):
    with tempfile.TemporaryDirectory() as folder:
        shown = Shown.of(log_of(rows), tasks, Path(folder), history)
        cut, end = (int(shown.prepared.cuts[WINDOW + k]) + 1 for k in (0, 1))
        times = [int(time) * SECOND for time in shown.log.timestamp]
        moment = data.draw(st.sampled_from([t for t in times if cut * DAY <= t < end * DAY] + [end * DAY]))
        found = shown.trained(WindowMoments(shown.prepared, shown.graph)[WINDOW], moment)
        for name, values in shown.trained(shown.changed(moment), moment).items():
            assert_array_equal(found[name], values, err_msg=name)
        with a_service(shown, moment, data) as live:
            for name, values in shown.served(live, moment).items():
                if name not in ("user", "item"):
                    assert_array_equal(found[name], values, err_msg=f"{name}, {moment}")
