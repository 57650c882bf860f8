import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mgoe._util.files import exclusive, lock_file
from mgoe._util.memory import anonymous_memory
from mgoe.config import GraphSettings
from mgoe.errors import GraphError, OutputError
from mgoe.graph import MacroGraph, Source, build_graph
from mgoe.graph.build import workplace
from mgoe.graph.build.workplace import Observer, Stages, building, peak_memory
from tests.effort import SOAK, slow
from tests.graph.build import cut_off
from tests.graph.build.cut_off import child, killed
from tests.graph.histories import contents, differences, history, planted

KILLS = 50 if SOAK else 1
EVENTS = planted(60, 40, 2, 400)
LOG = history(EVENTS, (5,))
"""Two snapshots."""


class Cut(BaseException):
    """Interrupts a build; no code in the build expects it."""


class Recorder(Observer):
    """Records the stages that begin, and interrupts the build at one of them."""

    def __init__(self, cut_at: int | None = None, midway: bool = False):
        self.begun: list[str] = []
        self.cut_at, self.midway = cut_at, midway

    def stage(self, name, total, unit):
        self.begun.append(name)
        here = len(self.begun) - 1 == self.cut_at
        if here and not self.midway:
            raise Cut

        def advance(part):
            if here:
                raise Cut

        return advance


def check_identical(one: MacroGraph, other: MacroGraph):
    """In every file, and in what the manifest says but for the time it took."""
    for s in range(len(one.manifest.cuts)):
        assert differences(contents(one, s), contents(other, s)) == [], s
    spent = ("stages", "seconds")
    assert {k: v for k, v in one.manifest if k not in spent} == {
        k: v for k, v in other.manifest if k not in spent
    }
    assert one.manifest.stages.keys() == other.manifest.stages.keys()
    assert {file.relative_to(one.path).as_posix() for file in one.path.rglob("*") if file.is_file()} == {
        *one.manifest.files,
        "graph.json",
    }
    one.verify()


# --- the record ---


def test_a_stage_is_run_once_and_recorded_when_it_is_done(tmp_path):
    ran = []
    for _ in range(2):
        stages = Stages(tmp_path, Observer(), {"what": "build"})
        for name in ("00: nodes", "01: nodes"):
            stages.run(name, 1, lambda advance, name=name: ran.append(name))
    assert ran == ["00: nodes", "01: nodes"]
    assert stages.spent.keys() == {"nodes"}


def test_a_stage_that_was_interrupted_is_not_done(tmp_path):
    def cut(advance):
        raise Cut

    stages = Stages(tmp_path, Observer(), {})
    for stages_now in (stages, stages, Stages(tmp_path, Observer(), {})):
        with pytest.raises(Cut):
            stages_now.run("pairs", 1, cut)
    assert stages.spent == {}


@pytest.fixture
def measured(monkeypatch) -> Callable[[], None]:
    """Waits for a measurement of memory that begins after the call."""
    done = threading.Event()

    def noted() -> int:
        size = anonymous_memory()
        done.set()
        return size

    def wait() -> None:
        for _ in range(2):  # the first may have begun before
            done.clear()
            assert done.wait(60)

    monkeypatch.setattr(workplace, "anonymous_memory", noted)
    return wait


def test_time_adds_up_over_snapshots_and_memory_is_the_most(tmp_path, measured):
    def hold(size):
        held = np.ones(size, np.uint8)
        time.sleep(0.1)
        measured()
        del held

    stages = Stages(tmp_path, Observer(), {})
    for name, size in (("00: nodes", 0), ("01: nodes", 200 << 20)):
        stages.run(name, 1, lambda advance, size=size: hold(size))
    assert stages.spent["nodes"].seconds >= 0.2
    assert stages.spent["nodes"].peak_gib > 200 / 1024


def test_peak_memory_sees_what_was_given_back(measured):
    before = anonymous_memory()
    with peak_memory(every=0.01) as peak:
        held = np.ones(100 << 20, np.uint8)
        measured()
        del held
    assert peak[0] >= before + (90 << 20)


# --- a build that is interrupted ---


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A small graph, and the stages of its build."""
    seen = Recorder()
    return LOG.build(tmp_path_factory.mktemp("whole") / "graph", observer=seen), seen.begun


@pytest.mark.parametrize("midway", [True, *[False] * SOAK])
def test_a_build_that_is_interrupted_in_any_stage_resumes_with_that_stage(uninterrupted, tmp_path, midway):
    graph, stages = uninterrupted
    every = range(len(stages))
    for at in every if SOAK or not midway else (*every[:4], *every[-4:]):  # every kind of stage
        out = tmp_path / f"{at}"
        try:
            LOG.build(out, observer=Recorder(at, midway))
        except Cut:
            assert not out.exists()
            rest = Recorder()
            again = LOG.shuffled(at).build(out, observer=rest)
            assert rest.begun == stages[at:]
        else:
            assert midway  # a stage that reports no progress cannot be interrupted midway
            again = MacroGraph.open(out)
        check_identical(again, graph)
        assert sorted(path.name for path in tmp_path.glob(f"{at}*") if "history" not in path.name) == [
            f"{at}"
        ]
        assert not building(out).exists()


def test_a_build_that_is_interrupted_many_times_succeeds(uninterrupted, tmp_path):
    graph, stages = uninterrupted
    for _ in stages[1:]:
        with pytest.raises(Cut):
            LOG.build(tmp_path / "graph", observer=Recorder(1))  # one stage each time
    seen = Recorder()
    check_identical(LOG.build(tmp_path / "graph", observer=seen), graph)
    assert seen.begun == stages[-1:]


def cut_calls(patch: pytest.MonkeyPatch, after: int) -> None:
    """Cut off before the next call that moves or removes a file, once so many were made; and before all that
    follow, as a kill would.
    """
    calls = count()

    def counted(call):
        def instead(*args, **kwargs):
            if next(calls) >= after:
                raise Cut
            return call(*args, **kwargs)

        return instead

    for name, module in (("replace", os), ("rmtree", shutil), ("unlink", Path)):
        patch.setattr(module, name, counted(getattr(module, name)))


@pytest.mark.parametrize("over", [True, *[False] * SOAK], ids=lambda over: "over another" if over else "new")
def test_a_build_that_is_interrupted_while_it_takes_its_place_ends_well(
    uninterrupted, tmp_path, monkeypatch, over
):
    """Before every call on files after the last stage, or every fifth in the short form: what was there stays
    or is restored, and the same build then ends well.
    """
    graph, stages = uninterrupted
    before = history(EVENTS[:100], (5,)).build(tmp_path / "before")
    for at in range(0, 40, 1 if SOAK else 5):
        out = tmp_path / f"{at}"
        if over:
            shutil.copytree(before.path, out)
        with pytest.raises(Cut):
            LOG.build(out, observer=Recorder(len(stages) - 1))
        with monkeypatch.context() as patch:
            cut_calls(patch, at)
            try:
                LOG.build(out)
            except Cut:
                pass
            else:
                break
        if over:  # one of the two opens, without any build
            assert MacroGraph.open(out).manifest.events in (100, len(EVENTS))
        if out.exists() and MacroGraph.open(out).manifest.events == len(EVENTS):  # whole before another build
            check_identical(MacroGraph.open(out), graph)
        done = out.exists() and MacroGraph.open(out).manifest.events == len(EVENTS)
        rest = Recorder()
        again = LOG.build(out, observer=rest)
        assert rest.begun in ([stages] if done else [stages[-1:], []])  # nothing that was done is done again
        check_identical(again, graph)
        left = [
            path.name
            for path in tmp_path.iterdir()
            if path.name.strip(".").startswith(f"{at}.") and "history" not in path.name
        ]
        assert left == []
    else:
        pytest.fail("the build never ended by itself")
    assert at > 9


SMALL: dict[str, Any] = {"rank": 8, "recents": 4}
"""As `History.build` sets them."""


def begun_and_cut(out: Path) -> Source:
    """Interrupt a build in the middle, and return its source."""
    source = LOG.source(out.with_name("log.parquet"))
    with pytest.raises(Cut):
        build_graph(source, GraphSettings(**SMALL), out, Recorder(8))
    return source


def test_a_log_that_changed_meanwhile_is_refused(tmp_path):
    begun_and_cut(tmp_path / "graph")
    longer = history([*EVENTS, (0, 0, 5, 0)], (5,)).source(tmp_path / "longer.parquet")
    with pytest.raises(GraphError) as error:
        build_graph(longer, GraphSettings(**SMALL), tmp_path / "graph")
    assert (
        "the log changed since this build was begun (400 events then, 401 now); "
        "restore the log, or remove graph.building" in str(error.value)
    )
    assert not (tmp_path / "graph").exists()


def _later(rows):
    return rows.assign(time=rows.time + 1000 * (rows.index == 7))


def _other_item(rows):
    return rows.assign(item=np.where(rows.index == 7, (rows.item + 1) % 40, rows.item))


def _other_task(rows):
    return rows.assign(task=np.where(rows.index == 7, (rows.task + 1) % 3, rows.task))


def _items_exchanged(rows):
    """Between two events: every column holds what it held."""
    a = 3
    b = next(
        row
        for row in range(4, len(rows))
        if rows.item[row] != rows.item[a] and rows.user[row] != rows.user[a]
    )
    items = rows.item.copy()
    items[[a, b]] = items[[b, a]].to_numpy()
    return rows.assign(item=items)


def _times_exchanged(rows):
    times = rows.time.copy()
    b = next(
        row
        for row in range(4, len(rows))
        if rows.time[row] != rows.time[3] and rows.user[row] != rows.user[3]
    )
    times[[3, b]] = times[[b, 3]].to_numpy()
    return rows.assign(time=times)


def _balanced(rows):
    """A change of user and item that weighted sums do not see."""
    row = next(row for row in range(len(rows)) if rows.user[row] < 40 and rows.item[row] >= 31)
    return rows.assign(user=rows.user + 17 * (rows.index == row), item=rows.item - 31 * (rows.index == row))


@pytest.mark.parametrize(
    "change", [_later, _other_item, _other_task, _items_exchanged, _times_exchanged, _balanced]
)
def test_a_log_of_as_many_events_that_changed_is_refused(tmp_path, change):
    before = begun_and_cut(tmp_path / "graph")
    changed = replace(LOG, rows=change(LOG.rows.reset_index(drop=True)))
    source = changed.source(tmp_path / "changed.parquet")
    source = replace(source, users_at=before.users_at, items_at=before.items_at)
    with pytest.raises(GraphError, match="the log changed since this build was begun"):
        build_graph(source, GraphSettings(**SMALL), tmp_path / "graph")


def test_the_same_log_in_another_order_and_file_resumes(tmp_path):
    begun_and_cut(tmp_path / "graph")
    again = LOG.shuffled(3).source(tmp_path / "other.parquet")
    seen = Recorder()
    build_graph(again, GraphSettings(**SMALL), tmp_path / "graph", seen)
    assert "pairs" not in seen.begun


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"rank": 9}, "rank"), ({"seed": 1}, "seed"), ({"beta": 0.5, "recents": 3}, "beta, recents")],
)
def test_settings_that_changed_meanwhile_are_refused_by_name(tmp_path, settings, named):
    source = begun_and_cut(tmp_path / "graph")
    with pytest.raises(GraphError) as error:
        build_graph(source, GraphSettings(**SMALL | settings), tmp_path / "graph")
    assert f"an unfinished build had other settings ({named}); restore them, or remove graph.building" in str(
        error.value
    )


def test_ranks_and_buckets_that_changed_meanwhile_are_refused_by_name(tmp_path):
    source = begun_and_cut(tmp_path / "graph")
    for changed, name in (
        (replace(source, ranks=(1.0, 2.0, 4.0)), "ranks"),
        (replace(source, bucket=11), "bucket"),
    ):
        with pytest.raises(GraphError, match=rf"had other settings \({name}\)"):
            build_graph(changed, GraphSettings(**SMALL), tmp_path / "graph")


def test_another_graph_to_keep_is_refused(tmp_path):
    source = begun_and_cut(tmp_path / "graph")
    other = LOG.build(tmp_path / "other")
    with pytest.raises(
        GraphError, match=r"an unfinished build had other settings \(the graph that it starts from\)"
    ):
        build_graph(source, GraphSettings(**SMALL), tmp_path / "graph", keep=other)


def test_more_memory_resumes(uninterrupted, tmp_path):
    """How much memory there is changes nothing in a graph."""
    graph, stages = uninterrupted
    source = begun_and_cut(tmp_path / "graph")
    seen = Recorder()
    again = build_graph(source, GraphSettings(**SMALL), tmp_path / "graph", seen, memory=9.0)
    assert seen.begun == stages[8:]
    assert again.manifest.settings == graph.manifest.settings.model_copy(update={"memory": 9.0})
    same = again.manifest.with_changes(settings=graph.manifest.settings)
    check_identical(MacroGraph(again.path, same), graph)


# --- kills and full disks, in a process of its own ---


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted build of the graph, its stages, and its seconds."""
    seen, start = Recorder(), time.perf_counter()
    out = tmp_path_factory.mktemp("killed") / "whole"
    graph = cut_off.log().build(out, observer=seen, **cut_off.SETTINGS)
    return graph, seen.begun, time.perf_counter() - start


def test_a_build_killed_at_random_moments_resumes_and_ends_identical(whole, tmp_path):
    """Some builds are killed several times."""
    graph, stages, seconds = whole
    moments, kills, build = random.Random(0), 0, 0
    while kills < KILLS:
        out, reached = tmp_path / f"{build}", 0
        build += 1
        for _ in range(moments.choice([1, 2, 3])):
            begun = killed("kill", out, moments.uniform(0, seconds))
            if out.exists():  # it was whole when the kill came
                MacroGraph.open(out).verify()
                break
            kills += 1
            if begun:
                at = stages.index(begun[0])
                assert at in (
                    reached,
                    reached + 1,
                )  # the stage that was killed, or the one after it if that was just done
                assert begun == stages[at : at + len(begun)]
                reached = at + len(begun) - 1
        if not out.exists():
            rest = Recorder()
            cut_off.log().build(out, observer=rest, **cut_off.SETTINGS)
            assert rest.begun == stages[len(stages) - len(rest.begun) :]
            assert len(stages) - len(rest.begun) in (reached, reached + 1)
        check_identical(MacroGraph.open(out), graph)
        assert not building(out).exists()
        shutil.rmtree(out)


@slow
def test_a_disk_that_fills_in_any_stage_keeps_the_graph_before_and_what_is_done(whole, tmp_path):
    """The child itself finds the graph before whole after each failure, and builds the new one in the end."""
    graph, stages, _ = whole
    process = child("full", tmp_path / "graph")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    lines = said.splitlines()
    errors = [line for line in lines if line.startswith("error")]
    assert len(errors) == len(stages)
    begun = [line.removeprefix("stage ") for line in lines if line.startswith("stage")]
    assert begun == [
        name for name in stages for _ in range(2)
    ]  # each fails once and then succeeds; no stage that was done is run again
    check_identical(MacroGraph.open(tmp_path / "graph"), graph)
    for error in errors:
        assert "cannot be written: File too large; " in error
        assert "free space" in error
    assert (
        sum("what is done is kept, and the same command resumes from there" in error for error in errors)
        >= len(stages) - 1
    )


def test_a_second_build_into_a_folder_is_refused_while_the_first_runs_and_harms_nothing(whole, tmp_path):
    graph, _, _ = whole
    with child("kill", tmp_path / "graph") as first:
        assert first.stdout
        try:
            assert any("00: sketch" in line for line in first.stdout)
            first.send_signal(signal.SIGSTOP)  # amid its work, for as long as the second takes
            with pytest.raises(OutputError) as error:
                LOG.build(tmp_path / "graph")
            holder = f"another process (number {first.pid}) is writing the macro graph there; wait, or choose"
            assert holder in str(error.value)
            LOG.build(tmp_path / "other").verify()
            first.send_signal(signal.SIGCONT)
            for _ in first.stdout:
                pass
            assert first.wait(60) == 0
        finally:
            first.kill()
    check_identical(MacroGraph.open(tmp_path / "graph"), graph)


@slow
def test_a_folder_is_free_again_when_the_process_that_held_it_was_killed(tmp_path):
    with child("kill", tmp_path / "graph") as first:
        assert first.stdout
        assert any("00: nodes" in line for line in first.stdout)
        first.kill()
    with pytest.raises(GraphError, match="the log changed"):  # no longer that another process holds it
        LOG.build(tmp_path / "graph", **cut_off.SETTINGS)


def test_a_lock_is_taken_away_by_who_opens_the_graph_once_nobody_holds_it(whole, tmp_path):
    """A process may be killed when its graph is in place and the lock is not yet gone."""
    out = tmp_path / "graph"
    shutil.copytree(whole[0].path, out)
    lock = lock_file(building(out))
    with exclusive(building(out), "the macro graph"):
        MacroGraph.open(out)
        assert lock.exists()
    lock.write_text("1")
    MacroGraph.open(out)
    assert not lock.exists()


def test_an_observer_hears_that_a_stage_ended_or_failed(tmp_path: Path):
    heard: list[str] = []

    class Hears(Observer):
        def stage(self, name: str, total: int, unit: str) -> Callable[[int], None]:
            heard.append(name)
            return super().stage(name, total, unit)

        def end(self) -> None:
            heard.append("end")

    stages = Stages(tmp_path, Hears(), {})
    stages.run("pairs", 1, lambda advance: None)
    with pytest.raises(ZeroDivisionError):
        stages.run("edges", 1, lambda advance: advance(1 // 0))
    assert heard == ["pairs", "end", "edges", "end"]
