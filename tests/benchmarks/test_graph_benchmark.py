"""The benchmark runs on a log of twenty thousand events and prints what it says."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

from benchmarks import coded, graph, measure, world
from tests.effort import slow

SIZE = 20_000
TASKS = world.TASKS


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def log(work: Path, children_here: None) -> world.World:
    with world.simulated(work, SIZE, keep=True) as simulated:
        return simulated


def lines(printed: str) -> dict[str, dict]:
    figures = [json.loads(text) for text in printed.splitlines()]
    assert all(list(figure) == ["name", "value", "unit", "against", "ratio"] for figure in figures)
    return {figure["name"]: figure for figure in figures}


@slow
def test_every_figure_of_a_build_has_its_line(
    log: world.World, work: Path, capsys: pytest.CaptureFixture[str]
):
    graph.main(["--events", f"{SIZE}", "--work", str(work)])
    found = lines(capsys.readouterr().out)
    whole = {
        "seconds",
        "cpu_seconds",
        "events_per_s",
        "build_events_per_s",
        "peak_gib",
        "peak_file_gib",
        "mapped_gib",
        "floor_seconds",
    }
    stages = {name.split(".")[2] for name in found if name.startswith("graph.seconds.")} - {"2e4"}
    assert {"pairs", "sketch", "clusters", "1st_order", "2nd_order"} <= stages
    of_stages = {
        f"{figure}.{stage}" for figure in ("seconds", "stage_events_per_s", "peak_gib") for stage in stages
    }
    assert set(found) == {f"graph.{name}.2e4" for name in whole | of_stages}
    assert all(figure["value"] > 0 for figure in found.values())
    floor = found["graph.floor_seconds.2e4"]
    assert floor["against"] > 0
    assert floor["ratio"] > 0
    assert sorted(path.name for path in work.iterdir()) == [log.folder.name]


@slow
def test_exposures_are_built_beside_an_event_log_of_equal_size(
    log: world.World, work: Path, capsys: pytest.CaptureFixture[str]
):
    graph.main(["--exposures", f"{SIZE}", "--work", str(work)])
    found = lines(capsys.readouterr().out)
    assert {"graph.exposures.seconds.2e4", "graph.exposures.seconds.rates.2e4"} <= set(found)
    disk = found["graph.exposures.disk_gib.2e4"]
    assert 0 < disk["value"] < 2 * disk["against"]
    assert sorted(path.name for path in work.iterdir()) == [log.folder.name]


@slow
def test_what_more_settings_add_has_its_line(work: Path, capsys: pytest.CaptureFixture[str]):
    graph.main(["--more", "1e5", "--rounds", "1", "--work", str(work)])
    found = lines(capsys.readouterr().out)
    added = {f"seconds_added.{what}" for what in ("resolution", "snapshot", "vectors")}
    assert set(found) == {f"graph.{name}.1e5" for name in (*added, "peak_gib.vectors")}
    assert all(figure["against"] > 0 for figure in found.values())


def test_codes_go_by_first_appearance():
    codes = coded.Codes(10)
    assert_array_equal(codes.of(np.array([7, 3, 7])), [0, 1, 0])
    assert_array_equal(codes.of(np.array([5, 3, 0])), [2, 1, 3])


def test_a_history_holds_the_log_in_its_order(log: world.World, tmp_path: Path):
    rows = pq.read_table(coded.write_history(log, tmp_path / "history.parquet")).to_pandas()
    assert len(rows) == log.events
    assert rows["time"].is_monotonic_increasing
    for side in ("user", "item"):
        assert_array_equal(rows[side].drop_duplicates(), np.arange(rows[side].max() + 1))
    assert set(rows["task"]) == set(range(len(TASKS)))


def test_slope_of_time_over_events(capsys: pytest.CaptureFixture[str]):
    graph.print_slope([(10**7, 5.0), (10**8, 50.0), (10**9, 500.0)])
    assert lines(capsys.readouterr().out)["graph.slope"]["value"] == 1


def test_sizes():
    assert [measure.size_name(size) for size in (1e9, 5e7, 20_000, 1.5e6)] == ["1e9", "5e7", "2e4", "1.5e6"]
    assert [world.nodes(size) for size in (1e9, 1e8, 5e7)] == [
        (20_000_000, 2_000_000),
        (2_000_000, 400_000),
        (1_000_000, 200_000),
    ]


def test_peers_run_in_turn_and_medians_count():
    order: list[str] = []
    seconds = iter([1.0, 10, 30, 3, 2, 20])

    def run(name: str) -> float:
        order.append(name)
        return next(seconds)

    assert measure.in_turn({"ours": lambda: run("ours"), "theirs": lambda: run("theirs")}, rounds=3) == {
        "ours": 2,
        "theirs": 20,
    }
    assert order == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]


def test_memory_of_a_child_counts_its_children():
    holds = "import time; a = bytearray(200 << 20); time.sleep(.5)"
    child = f"subprocess.run([sys.executable, '-c', '{holds}'])"
    starts = f"import subprocess, sys; {holds.split(';')[1]}; {child}; print('done')"
    spent = measure.child("-c", starts)
    assert spent.output == "done\n"
    assert 400 / 1024 <= spent.anonymous_gib < 500 * 2**20 / measure.GIB


def test_processes_that_nobody_waits_for_count():
    works = "import time\nwhile time.process_time() < .5: pass\ntime.sleep(.3)"
    starts = (
        "import signal, subprocess, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); "
        f"subprocess.Popen([sys.executable, '-c', {works!r}]).wait()"
    )
    assert measure.child("-c", starts).cpu_seconds > 0.4


def test_a_failed_child_says_why():
    with pytest.raises(RuntimeError, match="code 3: no luck"):
        measure.child("-c", "import sys; sys.stderr.write('no luck'); sys.exit(3)")
