"""A bundle with live events for good, and servers that follow a log over bundles and kills."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from typer.testing import CliRunner

import mgoe
from mgoe import experiments
from mgoe._util.files import sha256
from mgoe._util.tables import hand_over
from mgoe.bundle import CARD, Bundle
from mgoe.bundle.held import START, mark_of, read_held
from mgoe.bundle.training_state import state_folder
from mgoe.cli.app import app
from mgoe.data import Prepared
from mgoe.errors import BundleError, OutputError, StoreError
from mgoe.graph import MacroGraph, build_graph
from mgoe.lifecycle import Sources, taken, update
from mgoe.lifecycle.bundle_update import _work_folder
from mgoe.lifecycle.taken import later
from mgoe.pipeline.stages import source_of
from mgoe.serving import Consumer, Event, EventReader, LiveNodes, every, open_log
from tests.effort import SOAK, slow, up_to
from tests.features.reading import gather
from tests.graph.histories import contents, differences

GROUPS = ["counts", "pair", "sketch", "edges", "aggregates", "recents"]
KILLS = 20 if SOAK else 1
ROOT = Path(__file__).parents[2]
SECOND = 1_000_000


def stream(bundle: Bundle, n: int, seed: int = 0, new: int = 5) -> list[Event]:
    """Events around the end of the bundle's log, some late, of known and new users and items; each
    different."""
    rng, last = np.random.default_rng(seed), bundle.graph.manifest.last
    users, items = (
        vocabulary.ids(np.arange(vocabulary.size)).to_pylist()
        for vocabulary in (bundle.encoders.users, bundle.encoders.items)
    )
    users, items = users + [10_000 + k for k in range(new)], items + [20_000 + k for k in range(new)]
    names = list(EventReader.of(bundle).behaviors)
    return [
        Event(users[u], items[i], names[b], int(last + (k - n // 4) * 3600 * SECOND + seed), f"{seed}:{k}")
        for k, (u, i, b) in enumerate(
            zip(
                rng.integers(0, len(users), n),
                rng.integers(0, len(items), n),
                rng.integers(0, len(names), n),
                strict=True,
            )
        )
    ]


def check_same(one: LiveNodes, other: LiveNodes):
    """Both read the same of a grid of ids."""
    users, items = (one.ids(side, np.arange(one.size(side))) for side in ("user", "item"))
    rng = np.random.default_rng(0)
    user, item = (
        np.array(users)[rng.integers(0, len(users), 400)],
        np.array(items)[rng.integers(0, len(items), 400)],
    )
    a, b = (
        gather(live, live.indices("user", user), live.indices("item", item), GROUPS) for live in (one, other)
    )
    for name in a:
        if name not in ("recent_users", "recent_items"):
            assert_array_equal(a[name], b[name], err_msg=name)
    for name in one.stats.keys() - {"duplicates"}:
        assert one.stats[name] == other.stats[name], name


def check_as_rebuilt(bundle: Bundle, before: Bundle, prepared: Path, events: Iterable[Event], folder: Path):
    """The graph is that of all events, built with the macro nodes of the graph before; what was shown is not
    compared."""
    users, items = bundle.encoders.users, bundle.encoders.items
    assert len(set(users.ids(np.arange(users.size)).to_pylist())) == users.size
    behaviors = EventReader.of(before).behaviors
    history = Prepared.open(prepared).history.select("user", "item", "time", "task").to_pandas()
    rows = [
        (u, i, e.time, t)
        for e, u, i in zip(
            events,
            users.indices([e.user for e in events]),
            items.indices([e.item for e in events]),
            strict=True,
        )
        for t in range(len(before.tasks))
        if behaviors[e.behavior] >> t & 1
    ]
    assert min(min(u, i) for u, i, _, _ in rows) >= 0
    every_row = pd.concat([history, pd.DataFrame(rows, columns=history.columns)]).astype("int64")
    table = hand_over(ibis.duckdb.connect(), "history", pa.Table.from_pandas(every_row))
    settings, source = before.settings, source_of(before.settings, Prepared.open(prepared))
    at = len(source.cuts) + 1
    source = replace(
        source, history=table, users_at=np.full(at, users.size), items_at=np.full(at, items.size)
    )
    rebuilt = build_graph(source, settings.graph, folder / "rebuilt", keep=MacroGraph.open(before.graph.path))
    differ = differences(contents(bundle.graph, 0), contents(rebuilt, at - 1))
    assert [name for name in differ if not name.startswith("rates")] == []


def test_a_refreshed_bundle_equals_a_rebuild(finished: Path, tmp_path: Path):
    before, log = mgoe.load(finished / "bundle"), open_log(tmp_path / "state")
    events = stream(before, 200)
    log.append(events + events[:20])
    bundle = update(finished / "bundle", Sources(events=tmp_path / "state"), tmp_path / "new", groups="keep")
    check_as_rebuilt(bundle, before, finished / "data", events, tmp_path)
    Bundle.open(tmp_path / "new", verify=True).graph.verify()
    assert (tmp_path / "new" / "model.safetensors").read_bytes() == (
        finished / "bundle" / "model.safetensors"
    ).read_bytes()
    assert bundle.predict([10_000, 10_001], [20_000, 3])[list(bundle.tasks)].notna().all(axis=None)
    one, other = (state_folder(path) for path in (before.path, bundle.path))
    assert {file.name for file in one.iterdir()} == {file.name for file in other.iterdir()}
    lineage = bundle.manifest.lineage
    assert (lineage.parent, lineage.trained) == (before.name, "refreshed")
    assert lineage.log[1] > before.manifest.lineage.log[1]
    assert "it was changed 1 time after the training" in (tmp_path / "new" / CARD).read_text()
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_server_that_swaps_applies_later_events_alone(finished: Path, tmp_path: Path):
    old, log = mgoe.load(finished / "bundle"), open_log(tmp_path / "state")
    log.append(stream(old, 60))
    consumer = Consumer.of(log, old, tmp_path / "state")
    assert consumer.live.stats["events"] == 60
    bundle = update(finished / "bundle", Sources(events=tmp_path / "state"), tmp_path / "new", groups="keep")
    assert Consumer.of(log, bundle).live.stats["events"] == 0
    log.append(stream(old, 10, seed=1))
    log.append(stream(old, 60)[:7])  # sent again
    swapped = Consumer.of(log, bundle, tmp_path / "state")
    assert swapped.live.stats["events"] == 10
    assert swapped.live.stats["duplicates"] == 7
    assert swapped.catch_up() == 0
    assert consumer.catch_up() == 10
    third = update(bundle.path, Sources(events=tmp_path / "state"), tmp_path / "third", groups="keep")
    log.forget(mark_of(read_held(bundle.path), log.identity).number)
    check_as_rebuilt(third, bundle, finished / "data", stream(old, 60) + stream(old, 10, seed=1), tmp_path)
    assert Consumer.of(log, third).live.stats["events"] == 0
    with pytest.raises(BundleError, match="holds every event"):
        update(third.path, Sources(events=tmp_path / "state"), tmp_path / "fourth", groups="keep")


def test_a_bundle_of_an_exposure_log_takes_tasks_as_behaviors(shown: Path, tmp_path: Path):
    old, log = mgoe.load(shown / "bundle"), open_log(tmp_path / "state")
    events = stream(old, 80)
    assert {event.behavior for event in events} == {"click", "buy", "stay"}
    log.append(events)
    bundle = update(shown / "bundle", Sources(events=tmp_path / "state"), tmp_path / "new", groups="keep")
    check_as_rebuilt(bundle, old, shown / "data", events, tmp_path)
    assert bundle.graph.manifest.log == old.graph.manifest.log


def test_what_is_in_the_way_stays(finished: Path, tmp_path: Path):
    bundle = finished / "bundle"
    with pytest.raises(StoreError, match="holds no log of events"):
        update(bundle, Sources(events=tmp_path / "none"), tmp_path / "new", groups="keep")
    log = open_log(tmp_path / "state")
    with pytest.raises(BundleError, match="holds every event"):
        update(bundle, Sources(events=tmp_path / "state"), tmp_path / "new", groups="keep")
    log.append(stream(mgoe.load(bundle), 5))
    for holding in (bundle, finished):
        with pytest.raises(OutputError, match="holds the bundle that is read"):
            update(bundle, Sources(events=tmp_path / "state"), holding, groups="keep", overwrite=True)
    (tmp_path / "new").mkdir()
    with pytest.raises(OutputError, match="or overwrite one"):
        update(bundle, Sources(events=tmp_path / "state"), tmp_path / "new", groups="keep")
    made = update(bundle, Sources(events=tmp_path / "state"), tmp_path / "new", overwrite=True)
    assert made.graph.manifest.changes[-1]["recluster"]
    (tmp_path / "new" / "live.json").write_text("{}")
    with pytest.raises(BundleError, match=r"live\.json"):
        Consumer.of(log, Bundle.open(tmp_path / "new", verify=False))


def two_bundles(bundle: Path, folder: Path) -> tuple[Path, Path]:
    """Of the same events, with other weights."""
    one, other = (Path(shutil.copytree(bundle, folder / name)) for name in ("one", "other"))
    (other / "model.safetensors").write_bytes(b"of another bundle")
    return one, other


def test_an_interrupted_training_is_resumed_by_the_same_call_alone(tmp_path: Path):
    def left(weights: str) -> list[str]:
        found = []
        with suppress(KeyboardInterrupt), _work_folder(tmp_path / "next", {"weights": weights}) as (work, _):
            found += [path.name for path in work.glob("fit-*")]
            (work / "fit-1").mkdir(exist_ok=True)
            raise KeyboardInterrupt
        return found

    assert [left(call) for call in ("continue", "continue", "keep", "keep")] == [[], ["fit-1"], [], ["fit-1"]]


def test_a_link_that_moves_while_a_bundle_is_refreshed_changes_nothing(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    one, other = two_bundles(finished / "bundle", tmp_path)
    log, link = open_log(tmp_path / "state"), tmp_path / "current"
    log.append(stream(mgoe.load(one), 5))
    link.symlink_to(one)

    def move(_: str) -> None:
        link.unlink()
        link.symlink_to(other)

    monkeypatch.setattr(taken.logger, "info", move)
    bundle = update(link, Sources(events=tmp_path / "state"), tmp_path / "new", groups="keep")
    assert (bundle.path / "model.safetensors").read_bytes() == (one / "model.safetensors").read_bytes()


def test_a_folder_that_is_replaced_while_it_is_refreshed_is_refused(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    one, other = two_bundles(finished / "bundle", tmp_path)
    log = open_log(tmp_path / "state")
    log.append(stream(mgoe.load(one), 5))

    def exchange(_: str) -> None:
        if other.exists():
            one.rename(tmp_path / "former")
            other.rename(one)

    monkeypatch.setattr(taken.logger, "info", exchange)
    with pytest.raises(BundleError, match="was replaced while it was read"):
        update(one, Sources(events=tmp_path / "state"), tmp_path / "new", groups="keep")
    assert not (tmp_path / "new").exists()


def test_only_a_bundle_or_an_empty_folder_is_replaced(finished: Path, tmp_path: Path):
    log, out = open_log(tmp_path / "state"), tmp_path / "papers"
    log.append(stream(mgoe.load(finished / "bundle"), 5))
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("")
    for place in (out, tmp_path / "file"):
        with pytest.raises(OutputError, match="must be empty or hold a bundle"):
            update(
                finished / "bundle", Sources(events=tmp_path / "state"), place, groups="keep", overwrite=True
            )
    assert (out / "thesis.tex").read_text() == "years of work"
    (out / "thesis.tex").unlink()
    for _ in range(2):
        update(finished / "bundle", Sources(events=tmp_path / "state"), out, groups="keep", overwrite=True)


def test_macro_nodes_that_no_longer_fit_are_learned_again_without_new_events(finished: Path, tmp_path: Path):
    log = open_log(tmp_path / "state")
    with pytest.raises(BundleError, match="holds every event"):
        update(finished / "bundle", Sources(events=tmp_path / "state"), tmp_path / "new")
    log.append(stream(mgoe.load(finished / "bundle"), 400))
    stale = update(finished / "bundle", Sources(events=tmp_path / "state"), tmp_path / "stale", groups="keep")
    bundle = update(stale.path, Sources(events=tmp_path / "state"), tmp_path / "new")
    change = bundle.graph.manifest.changes[-1]
    assert (change["recluster"], change["events"]) == (True, 0)
    Bundle.open(tmp_path / "new", verify=True).graph.verify()
    with pytest.raises(BundleError, match="holds every event"):
        update(bundle.path, Sources(events=tmp_path / "state"), tmp_path / "newer")
    log.append(stream(bundle, 5, seed=1))
    assert Consumer.of(log, bundle).live.stats["events"] == 5


REPEATING = st.lists(
    st.tuples(*[st.integers(0, n) for n in (2, 1, 2, 1)], st.sampled_from(["a", "b", None])),
    min_size=1,
    max_size=12,
)
"""User, item and behaviour by number (the last does no task), moment, and id: few of each."""


@up_to(2)
@example(
    rows=[(0, 0, 0, 0, "a"), (0, 1, 0, 0, "a"), (0, 1, 0, 0, "b")], cut=2
)  # an id repeated in the snapshot, then what it came with
@example(
    rows=[(0, 0, 0, 0, "a"), (0, 0, 0, 0, "b"), (0, 1, 0, 0, "b")], cut=1
)  # what the snapshot holds with a new id, then that id
@example(rows=[(0, 0, 0, 0, "a"), (0, 0, 2, 0, "b"), (0, 1, 0, 0, "b")], cut=2)  # an id of what does no task
@given(rows=REPEATING, cut=st.integers(0, 12))
def test_what_counts_live_is_what_the_next_refresh_adds(finished: Path, rows: list, cut: int):
    old = mgoe.load(finished / "bundle")
    users, items = (old.ids(side, np.arange(2)) for side in ("user", "item"))
    names, last = [*EventReader.of(old).behaviors, "of no task"], old.graph.manifest.last
    events = [
        Event([*users, 10**9][u], items[i], names[b], last + (1 + t) * SECOND, key)
        for u, i, b, t, key in rows
    ]
    with tempfile.TemporaryDirectory() as name:
        folder, log = Path(name), open_log(name)
        log.append(events[:cut])
        bundle = refreshed(old, folder, folder / "first")
        log.append(events[cut:])
        live = Consumer.of(log, bundle).live
        new = refreshed(bundle, folder, folder / "second")
        assert (new is bundle) == (live.stats["events"] == 0)
        asked = np.repeat(users, 2), np.tile(items, 2)
        found = gather(
            live, live.indices("user", asked[0]), live.indices("item", asked[1]), ["pair", "counts"]
        )
        wanted = gather(
            new.graph.latest, new.indices("user", asked[0]), new.indices("item", asked[1]), ["pair", "counts"]
        )
        tasks = len(old.tasks)
        assert_array_equal(found["pair"][:, :tasks], wanted["pair"][:, :tasks])
        assert_array_equal(found["counts"][:, : tasks + 2], wanted["counts"][:, : tasks + 2])


def test_of_behaviours_with_a_task_in_common_a_refresh_adds_what_is_new(tmp_path: Path):
    log, reader = (
        open_log(tmp_path),
        EventReader({"click": 1, "tap": 1, "buy": 3}, {"user": pa.int64(), "item": pa.int64()}),
    )
    log.append([Event(1, 2, "click", 5), Event(1, 2, "tap", 5)])
    held, _ = next(every(log))
    assert later(log, START, reader)[0] == [(1, 2, 5, 0)]
    log.append([Event(1, 2, "buy", 5), Event(1, 2, "tap", 6)])
    assert later(log, held, reader)[0] == [(1, 2, 5, 1), (1, 2, 6, 0)]


def refreshed(bundle: Bundle, events: Path, out: Path) -> Bundle:
    """With the log's events, or as it is where it holds all of them."""
    try:
        return update(bundle.path, Sources(events=events), out, groups="keep")
    except BundleError:
        return bundle


def test_a_log_of_another_service_is_read_from_its_start(finished: Path, tmp_path: Path):
    old, log, other = (
        mgoe.load(finished / "bundle"),
        open_log(tmp_path / "one"),
        open_log(tmp_path / "other"),
    )
    log.append(stream(old, 20))
    other.append(stream(old, 15, seed=2))
    bundle = update(finished / "bundle", Sources(events=tmp_path / "one"), tmp_path / "new", groups="keep")
    assert Consumer.of(other, bundle).live.stats["events"] == 15


@pytest.mark.parametrize("order", ["bacab", *["aba", "abab"] * SOAK])
def test_logs_that_take_turns_count_once(finished: Path, tmp_path: Path, order: str):
    bundle = mgoe.load(finished / "bundle")
    logs = {name: open_log(tmp_path / name) for name in sorted(set(order))}
    events = {name: stream(bundle, 40, seed=seed, new=0) for seed, name in enumerate(logs)}
    all_of_them = open_log(tmp_path / "all")
    for turn, name in enumerate(order):
        again = order[:turn].count(name)
        part = events[name][(again + 1) * 10 : (again + 2) * 10]
        logs[name].append(part)
        all_of_them.append(part)
        bundle = update(
            bundle.path, Sources(events=tmp_path / name), tmp_path / f"bundle{turn}", groups="keep"
        )
    assert [Consumer.of(log, bundle).live.stats["events"] for log in logs.values()] == [0] * len(logs)
    once = update(finished / "bundle", Sources(events=tmp_path / "all"), tmp_path / "once", groups="keep")
    counts = [one.graph.snapshots[-1].arrays["pairs.events"] for one in (bundle, once)]
    assert counts[0].sum() == counts[1].sum()


@pytest.mark.parametrize("place", ["bundle.state", "bundle/state", "bundle/deep/er/state"])
def test_events_that_were_taken_are_never_replaced(finished: Path, tmp_path: Path, place: str):
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    log = open_log(run / place)
    log.append(stream(mgoe.load(finished / "bundle"), 5))
    for command in (experiments.run, experiments.macro_graph):
        with pytest.raises(OutputError, match="holds live events"):
            command(run / "settings.yaml", run, overwrite=True)
    if place != "bundle.state":
        with pytest.raises(OutputError, match="holds live events"):
            update(
                finished / "bundle",
                Sources(events=tmp_path / "state"),
                run / "bundle",
                groups="keep",
                overwrite=True,
            )
    assert len(log.read()) == 5


def with_texts(bundle: Path, out: Path) -> Path:
    """The same bundle, its users' ids texts."""
    shutil.copytree(bundle, out)
    ids = pq.read_table(out / "users.parquet")["id"].cast(pa.string())
    for folder in (out, out / "graph"):
        pq.write_table(pa.table({"id": ids}), folder / "users.parquet")
    manifest, graph = (json.loads((out / name).read_text()) for name in ("bundle.json", "graph/graph.json"))
    file = out / "graph" / "users.parquet"
    graph["files"]["users.parquet"] = {"bytes": file.stat().st_size, "sha256": sha256(file)}
    (out / "graph" / "graph.json").write_text(json.dumps(graph))
    manifest["checksums"] |= {
        name: sha256(out / name) for name in ("users.parquet", "graph/users.parquet", "graph/graph.json")
    }
    (out / "bundle.json").write_text(json.dumps(manifest))
    return out


def test_a_bundle_reads_a_log_whose_ids_are_of_another_type(
    finished: Path, tmp_path: Path, said: pytest.LogCaptureFixture
):
    """Its newcomers are one each, whichever way they are written, live and for good."""
    numbers, log = mgoe.load(finished / "bundle"), open_log(tmp_path / "state")
    texts = mgoe.load(with_texts(finished / "bundle", tmp_path / "texts"))
    after = numbers.graph.manifest.last + SECOND
    log.append([Event(90_500, 3, "click", after), Event(90_501, 3, "buy", after + 1)])
    log.append(
        [
            Event("90500", 3, "buy", after + 2),
            Event("90500", 3, "click", after),
            Event("A17", 4, "click", after + 3),
        ]
    )
    log.append([Event(2**70, 4, "click", after + 3)])
    left_out: list[str] = []
    for bundle, born, unknown in ((numbers, 2, 2), (texts, 3, 1)):
        said.clear()
        live = Consumer.of(log, bundle).live
        assert (live.stats["new users"], live.stats["unknown"]) == (born, unknown)
        assert ("events of the log are ignored" in said.text) == (unknown > 0)
        codes = live.indices("user", ["90500", "90501"])
        assert (
            codes.tolist()
            == live.indices("user", [90_500, 90_501]).tolist()
            == [bundle.size("user"), bundle.size("user") + 1]
        )
        new = update(bundle.path, Sources(events=tmp_path / "state"), tmp_path / f"new {born}", groups="keep")
        assert new.size("user") == bundle.size("user") + born
        assert (new.indices("user", ["90500", "90501"]) >= bundle.size("user")).all()
        again = Consumer.of(log, new).live
        assert (again.stats["events"], again.size("user")) == (0, new.size("user"))
        left_out += [line for line in said.messages if "left out" in line]
    rule = "events are left out, because their ids have another type than those of the bundle"
    assert left_out == [f"2 {rule}", f"1 {rule}"], "2**70 is no id, whatever the type"


def test_the_command(finished: Path, tmp_path: Path):
    open_log(tmp_path / "state").append(stream(mgoe.load(finished / "bundle"), 12))
    words = [
        "update",
        str(finished / "bundle"),
        "--state",
        str(tmp_path / "state"),
        "--out",
        str(tmp_path / "new"),
        "--json",
    ]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["graph"]["changes"][-1]["events"] == 12
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 2
    assert "is there already" in again.stderr


@slow
def test_kills_while_events_stream_in(finished: Path, tmp_path: Path):
    """A server is killed again and again; what it acknowledged is there once, and after a refresh the graph
    equals a rebuild."""
    old, acknowledged = mgoe.load(finished / "bundle"), []
    for kill in range(KILLS):
        words = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "tests.lifecycle.test_update",
            str(finished / "bundle"),
            str(tmp_path / "state"),
        ]
        with subprocess.Popen([*words, str(kill)], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            for _ in range(6 + kill * 7 % 10):
                acknowledged.append(process.stdout.readline().strip())
            process.send_signal(signal.SIGKILL)
            acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
    log = open_log(tmp_path / "state")
    consumer = Consumer.of(log, old, tmp_path / "state")
    taken = {event.id: event for _, event in every(log)}
    assert len(acknowledged) > 5 * KILLS
    assert set(acknowledged) <= set(taken)
    once = LiveNodes.of(old)
    once.apply(list(taken.values()))
    assert once.stats["events"] == len(taken) == consumer.live.stats["events"]
    check_same(once, Consumer.of(log, old).live)
    bundle = update(finished / "bundle", Sources(events=tmp_path / "state"), tmp_path / "new", groups="keep")
    check_as_rebuilt(bundle, old, finished / "data", list(taken.values()), tmp_path)
    assert Consumer.of(log, bundle).live.stats["events"] == 0


if __name__ == "__main__":
    served, state, run = Bundle.open(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    server = Consumer.of(open_log(state), served, state)
    coming = stream(served, 2000, seed=run + 10)[498:]  # two of them are late
    for event in coming:
        for _ in range(1 + (event.time % 3 == 0)):  # some are sent twice
            server.log.append([event])
        server.catch_up()
        print(event.id, flush=True)
