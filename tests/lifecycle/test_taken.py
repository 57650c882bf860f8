"""What a service has taken of exposures: into a new bundle, and as a log."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal
from typer.testing import CliRunner

import mgoe
from mgoe import experiments
from mgoe.bundle import Bundle
from mgoe.bundle.held import FILES, Held, exposures_of, mark_of, read_held, write_held
from mgoe.cli.app import app
from mgoe.config import RunSettings, make_settings
from mgoe.errors import BundleError, OtherLogError, StoreError
from mgoe.features import View, read
from mgoe.features.rates import RatesOfExposures
from mgoe.lifecycle import Sources, update, update_macro_graph
from mgoe.lifecycle.new_rows import learned_until
from mgoe.lifecycle.taken import export
from mgoe.serving import Consumer, Event, LiveBundle, LiveNodes, open_log
from mgoe.serving.events.exposure import ExposureReader
from mgoe.serving.events.log import DAY, ServiceLog
from mgoe.serving.online.overlay import LiveView
from mgoe.serving.scoring.engine import Engine
from mgoe.serving.scoring.runtime import Runtime
from tests.graph.histories import contents, differences
from tests.graph.test_rates import cells_of
from tests.lifecycle.test_update import check_as_rebuilt
from tests.sharing import Shared

SECOND = 1_000_000
LONG_AGO = time.time_ns() // 1000 - 10 * DAY
"""When what no longer waits was taken."""


@pytest.mark.parametrize("history", ["cut", "moment"])
def test_rows_after_the_log_are_new_though_labels_of_their_bucket_are_known_later(tmp_path, history):
    """Where rows read up to moments, a label counts from the end of its bucket."""
    data, tasks = {"log": "log.parquet", "history": history}, [{"name": "click", "label": "clicked"}]
    last, known = 10 * DAY + 3600 * SECOND, 11 * DAY - 1 if history == "moment" else 10 * DAY
    write_held(tmp_path, {FILES: Held("", "", last)})
    settings, graph = (
        make_settings({"data": data, "tasks": tasks}),
        SimpleNamespace(manifest=SimpleNamespace(last=known)),
    )
    bundle = SimpleNamespace(path=tmp_path, settings=settings, graph=graph)
    assert learned_until(cast(Bundle, bundle)) == last


def requests(bundle: Bundle, n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Requests of four items each, after the bundle's log: some of new users, some of new items, a few
    clicked."""
    rng, last = np.random.default_rng(seed), learned_until(bundle) // SECOND + 1
    users, items = (
        [*ids.ids(np.arange(30)).to_pylist(), *range(first, first + 5)]
        for ids, first in ((bundle.encoders.users, 10**6), (bundle.encoders.items, 10**6))
    )
    lists = [["a", "b", "a"], ["unseen", "other"], [], ["c"]]
    known, found = "query" in bundle.encoders.context_features.vocabularies, []
    for k in range(n):
        several = {"query": lists[k % 4]} if known else {}
        shown = [items[i] for i in rng.choice(len(items), 4, replace=False)]
        user = users[rng.integers(len(users))]
        name = f"{seed}.{k}"
        found.append(
            {
                "exposures": [
                    {"request": name, "user": user, "item": item, "time": last + k + 1, "position": place,
                     "context": {"device": "phone", **several}}
                    for place, item in enumerate(shown)
                ],
                "labels": [
                    {"request": name, "item": item, "time": last + k + 1,
                     "labels": {"click": int(place < k % 3), "buy": int(place < k % 2), "stay": 0.5 * place}}
                    for place, item in enumerate(shown)
                ],
            }
        )  # fmt: skip
    return found


def take(
    state: Path | ServiceLog, bundle: Bundle, asked: list[dict[str, Any]], now: int = LONG_AGO
) -> ServiceLog:
    log = state if isinstance(state, ServiceLog) else ServiceLog(state / "log.sqlite")
    reader = ExposureReader.of(bundle)
    for one in asked:
        log.append(
            (),
            [reader.read_exposure(record, now) for record in one["exposures"]],
            [label for record in one["labels"] for label in reader.read_labels(record, now)],
            now=now,
        )
    return log


def done(asked: list[dict[str, Any]]) -> list[Event]:
    """The tasks done, as events."""
    return [
        Event(exposure["user"], label["item"], task, label["time"] * SECOND)
        for one in asked
        for exposure, label in zip(one["exposures"], one["labels"], strict=True)
        for task, value in label["labels"].items()
        if value > 0
    ]


def counted(bundle: Bundle, user: int | None = None) -> np.ndarray:
    """Return exposures, labels of click and buy, and those done, over all users or of one."""
    assert bundle.graph.latest.rates is not None
    [table] = [
        table
        for group, table in zip(
            bundle.graph.latest.rates.groups, bundle.graph.latest.rates.tables, strict=True
        )
        if group.name == "user"
    ]
    tasks = len(bundle.tasks)
    cells = cells_of(table)
    of = slice(None) if user is None else slice(*cells.indptr[[user, user + 1]])
    return cells.counts[of].sum(0, dtype=np.int64)[[0, 1, 2, 1 + tasks, 2 + tasks]]


def counts_of(asked: list[dict[str, Any]]) -> list[int]:
    """Return what `counted` should: only what was clicked has a label of buy."""
    labels = [label["labels"] for one in asked for label in one["labels"]]
    clicked = [one for one in labels if one["click"]]
    return [len(labels), len(labels), len(clicked), len(clicked), sum(one["buy"] for one in clicked)]


def test_a_refreshed_bundle_holds_what_was_done_of_what_was_shown(
    shown: Path, tmp_path: Path, said: pytest.LogCaptureFixture
):
    old = mgoe.load(shown / "bundle")
    asked = requests(old, 40)
    take(tmp_path / "state", old, asked)
    new = update(shown / "bundle", Sources(events=tmp_path / "state"), tmp_path / "new", groups="keep")
    check_as_rebuilt(new, old, shown / "data", done(asked), tmp_path)
    assert counted(new) - counted(old) == pytest.approx(counts_of(asked))
    Bundle.open(tmp_path / "new", verify=True).graph.verify()
    assert not (tmp_path / "new" / "taken.parquet").exists()
    assert any("160 exposures that have waited" in line for line in said.messages)
    with pytest.raises(BundleError, match="when exposures have waited for their labels"):
        update(tmp_path / "new", Sources(events=tmp_path / "state"), tmp_path / "again", groups="keep")


def test_exposures_count_once_and_when_they_have_waited(shown: Path, tmp_path: Path):
    """Refreshed in parts, with live events between them, the graph is that of everything that has waited."""
    old, state = mgoe.load(shown / "bundle"), tmp_path / "state"
    asked, events = requests(old, 30), open_log(state)
    early, late = asked[:20], asked[20:]
    take(state, old, early)
    first = update(shown / "bundle", Sources(events=state), tmp_path / "first", groups="keep")
    newcomer = Event(2 * 10**6, early[0]["exposures"][0]["item"], "click", done(early)[-1].time)
    events.append([newcomer])
    live = Consumer.of(open_log(state, make=False), first).live
    log = take(state, old, early[:5] + late)  # some are sent again
    waiting = requests(old, 5, seed=7)
    take(state, old, waiting, time.time_ns() // 1000)
    second = update(first.path, Sources(events=state), tmp_path / "second", groups="keep")
    check_as_rebuilt(second, first, shown / "data", [*done(asked), newcomer], tmp_path)
    assert second.indices("user", [newcomer.user]).tolist() == live.look_up("user", [newcomer.user]).tolist()
    assert log.counts["exposure duplicates"] == 20
    upto = mark_of(read_held(first.path), exposures_of(log.identity)).number
    log.forget(upto, upto, upto)
    assert log._store.read("SELECT count(*) FROM exposures") == [(61,)]  # the first bundle held 80


GROUPS = [["item"], ["item", "device"], ["item", "query"], ["user"], ["item_macro", "user"]]


@pytest.fixture(scope="module")
def by_device(exposures: RunSettings, world: Path, shared: Shared) -> Bundle:
    """A bundle with rates of items by device, and by each category of a query."""

    def make(path: Path) -> None:
        path.mkdir()
        rows = pd.read_parquet(world / "exposures")
        rows["query"] = np.array(["a|b", "b", None, "c|a"], object)[rows["item_id"] % 4]
        rows.to_parquet(path / "log.parquet")
        raw = exposures.model_dump(mode="json")
        raw["data"] |= {"log": str(path / "log.parquet")}
        raw["data"]["context"].append({"name": "query", "kind": "multi"})
        raw["graph"]["rates"] = [{"by": by} for by in GROUPS]
        experiments.run(make_settings(raw), path / "run")

    return mgoe.load(shared("experiments-by-device", make) / "run" / "bundle")


def columns_of(view: View, names: list[str], pairs: tuple[np.ndarray, np.ndarray, dict]) -> np.ndarray:
    """Return some columns of the rates of pairs."""
    found, (user, item, context) = RatesOfExposures().names(view.snapshot)["rates"], pairs
    return read(view, user, item, ["rates"], context)["rates"][:, [found.index(name) for name in names]]


def grid_of(bundle: Bundle, live: LiveNodes | None, ids: list[Any]) -> tuple[np.ndarray, np.ndarray, dict]:
    """Return every item on every device, for one user."""
    item = (bundle if live is None else live).indices("item", ids)
    devices = bundle.encoders.context_features.vocabularies["device"].size + 1
    device = np.repeat(np.arange(devices), len(item))
    query = np.stack([device, np.arange(len(device)) % 5 - 1], axis=1)
    return np.zeros(len(device), np.int64), np.tile(item, devices), {"device": device, "query": query}


def test_live_rates_of_items_are_those_of_the_next_graph(
    by_device: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Read in parts, with newcomers and labels; all other rates wait."""
    monkeypatch.setattr("mgoe.serving.online.live_rates.PAUSE", 0)
    old, state = by_device, tmp_path / "state"
    assert old.graph.latest.rates is not None
    names = RatesOfExposures().names(old.graph.latest)["rates"]
    moved = [
        name
        for name in names
        if name.split(".")[1] in ("item", "item x device", "item x query") and "adjusted" not in name
    ]
    assert len(moved) == 3 * (1 + len(old.tasks))
    asked = requests(old, 60)
    consumer = Consumer.of(take(state, old, asked[:1]), old)
    for part in (asked[:20], asked[20:]):
        take(state, old, part)
        while consumer.catch_up():
            pass
    live, new = consumer.live, update(old.path, Sources(events=state), tmp_path / "new", groups="keep")
    assert live.stats["exposures"] == 240
    ids = sorted({one["item"] for request in asked for one in request["exposures"]})
    assert max(ids) >= 10**6  # newcomers
    with LiveView(View.of(live.snapshot), live).reading() as view:
        grid = grid_of(old, live, ids)
        found = columns_of(view, moved, grid)
        waiting = [name for name in names if name not in moved]
        assert_array_equal(columns_of(view, waiting, grid), columns_of(View.of(live.snapshot), waiting, grid))
    later = new.graph.latest
    assert later.rates is not None
    frozen = [
        table._replace(prior=before.prior)
        for table, before in zip(later.rates.tables, old.graph.latest.rates.tables, strict=True)
    ]
    object.__setattr__(later, "rates", replace(later.rates, tables=tuple(frozen)))
    assert_array_equal(found, columns_of(View.of(later), moved, grid_of(new, None, ids)))
    assert np.abs(found - columns_of(View.of(live.snapshot), moved, grid)).max() > 0.1


def test_a_service_and_a_bundle_score_with_live_rates_alike(by_device: Bundle, tmp_path: Path):
    old, state = by_device, tmp_path / "state"
    asked = requests(old, 30)
    log = take(state, old, asked)
    engine = Engine(old.path, log, runtime=Runtime(engine="torch"))
    items = sorted({one["item"] for request in asked for one in request["exposures"]})
    user, context = asked[0]["exposures"][0]["user"], {"device": "phone", "query": ["a", "b", "a"]}
    of_user, index = engine.live.look_up("user", [user]), engine.live.look_up("item", items)
    served = engine.scorer.score(int(of_user[0]), index, engine.context(context))

    def predicted(bundle: Bundle) -> np.ndarray:
        each = {name: [value] * len(items) for name, value in context.items()}
        frame = bundle.predict([user] * len(items), items, context=each)
        return frame[list(old.tasks)].to_numpy()

    live = LiveBundle(old, open_log(state, make=False))
    assert served == pytest.approx(predicted(live), rel=1e-5, abs=1e-6)
    assert np.abs(served - predicted(old))[:, 0].max() > 1e-4


def test_the_command_writes_a_log_that_a_graph_is_updated_with(shown: Path, tmp_path: Path):
    old, run = mgoe.load(shown / "bundle"), Path(shutil.copytree(shown, tmp_path / "run"))
    take(tmp_path / "state", old, requests(old, 40))
    file = tmp_path / "taken.parquet"
    words = ["exposures", str(shown / "bundle"), "--state", str(tmp_path / "state"), "--out", str(file)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "160 exposures" in result.output
    rows = pq.read_table(file)
    log = pq.read_schema(next(Path(old.settings.data.log[0]).glob("*.parquet")))
    assert {"user_id", "item_id", "timestamp", "click", "buy", "stay", "device", "position"} <= {
        *rows.column_names
    } & {*log.names}
    assert rows["position"].to_pylist() == [0, 1, 2, 3] * 40
    updated = update_macro_graph(run, [str(file)])
    new = update(shown / "bundle", Sources(events=tmp_path / "state"), tmp_path / "new", groups="keep")
    assert differences(contents(new.graph, 0), contents(updated, len(updated.snapshots) - 1)) == []


def test_exposures_are_read_as_of_the_clock_of_their_service(shown: Path, tmp_path: Path):
    """Those of the last day still wait for labels on the clock that a simulated world supplies."""
    old, state = mgoe.load(shown / "bundle"), tmp_path / "state"
    asked, moment = requests(old, 30), learned_until(old) + 1000 * SECOND
    log = take(state, old, asked[:20], now=moment)
    take(log, old, asked[20:], now=moment + DAY)
    now, file = moment + DAY + 3600 * SECOND, tmp_path / "taken.parquet"
    assert export(shown / "bundle", state, file, "exposures", now=now) == 20 * 4
    new = update(shown / "bundle", Sources(events=state), tmp_path / "new", groups="keep", now=now)
    assert export(new.path, state, file, "exposures", new=True, now=now) == 0
    assert export(new.path, state, file, "exposures", new=True) == 10 * 4


def test_what_cannot_be_written_is_refused(shown: Path, finished: Path, tmp_path: Path):
    with pytest.raises(BundleError, match="must be of an exposure log, found one of an event log"):
        export(finished / "bundle", tmp_path, tmp_path / "out.parquet", "exposures")
    with pytest.raises(StoreError, match="holds no log of events"):
        export(shown / "bundle", tmp_path, tmp_path / "out.parquet", "exposures")
    assert not (tmp_path / "out.parquet").exists()


def test_an_older_copy_of_the_exposures_is_refused(shown: Path, tmp_path: Path):
    """Also when it has grown past what the bundle holds: later exposures would never count."""
    old, state = mgoe.load(shown / "bundle"), tmp_path / "state"
    asked = requests(old, 12)
    take(state, old, asked[:4]).close()
    shutil.copytree(state, tmp_path / "older")
    take(state, old, asked[4:8])
    new = update(shown / "bundle", Sources(events=state), tmp_path / "new", groups="keep")
    for more, found in ((0, "ends before position 39"), (8, "holds another record at position 39")):
        take(tmp_path / "older", old, [*asked[8:], *requests(old, 4, seed=5)][:more])
        with pytest.raises(OtherLogError, match=f"the log {found}.*restore the latest copy"):
            update(new.path, Sources(events=tmp_path / "older"), tmp_path / "next", groups="keep")


def test_a_position_that_is_missing_is_no_obstacle(shown: Path, tmp_path: Path):
    old = mgoe.load(shown / "bundle")
    asked = requests(old, 10)
    del asked[3]["exposures"][0]["position"], asked[3]["exposures"][1]["context"]
    take(tmp_path / "state", old, asked)
    new = update(shown / "bundle", Sources(events=tmp_path / "state"), tmp_path / "new", groups="keep")
    assert "49" in [held.position for held in read_held(new.path).values()]
    assert new.graph.manifest.events > old.graph.manifest.events


def test_requests_at_one_moment_are_different_exposures_where_the_log_has_their_ids(
    exposures: RunSettings, tmp_path: Path
):
    log = pd.concat(map(pd.read_parquet, sorted(Path(exposures.data.log[0]).glob("*.parquet"))))
    log.assign(rid=np.arange(len(log)) // 4).to_parquet(tmp_path / "log.parquet")
    data = exposures.data.model_copy(update={"log": [str(tmp_path / "log.parquet")], "request": "rid"})
    settings = exposures.model_copy(update={"data": data, "models": ["shared-bottom"]})
    experiments.run(settings, tmp_path / "run")
    old = mgoe.load(tmp_path / "run" / "bundle")
    asked = requests(old, 20)
    again = json.loads(json.dumps(asked).replace('"request": "', '"request": "again '))
    take(tmp_path / "state", old, [*asked, *again])
    new = update(old.path, Sources(events=tmp_path / "state"), tmp_path / "new", groups="keep")
    assert counted(new) - counted(old) == pytest.approx(counts_of([*asked, *again]))
