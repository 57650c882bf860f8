"""Graphs built on Spark are those of the local engine, to the byte."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.testing import assert_array_equal

from mgoe.errors import SparkError
from mgoe.graph import MacroGraph, Observer
from mgoe.graph.build.workplace import building
from mgoe.graph.engines.spark import carry
from mgoe.graph.engines.spark.engine import Spark
from mgoe.graph.engines.spark.tasks import opened, parcel
from mgoe.graph.pair_rows import NO_TIMES, PairRows
from tests.effort import SOAK, slow
from tests.graph.histories import History, contents, differences, history, planted
from tests.spark import SPARK, with_java

pytestmark = with_java
LOCAL: dict[str, Any] = {"engine": "spark", "spark": SPARK}
LITTLE = LOCAL | {"memory": 0.5}
"""Of builds in little memory."""
ROOT = Path(__file__).parents[3]
ENGINE = {"engine", "settings", "stages", "seconds"}
"""Of the manifest: where a graph was built, and how long that took."""


def check_identical(one: MacroGraph, other: MacroGraph) -> None:
    """In every file, and in what the manifest says."""
    assert one.manifest.files == other.manifest.files
    for s in range(len(one.manifest.cuts)):
        assert differences(contents(one, s), contents(other, s)) == [], s
    ours, theirs = dict(one.manifest), dict(other.manifest)
    assert {key for key in ours if ours[key] != theirs[key]} <= ENGINE
    one.verify()


def a_log(users: int, items: int, events: int, cuts: tuple[int, ...] = (), seed: int = 1) -> History:
    return history(planted(users, items, 4, events, seed), cuts)


# --- the same graph ---


def test_every_snapshot_of_a_small_log(spark: Any, tmp_path: Path):
    log = a_log(60, 40, 400, (3, 7) if SOAK else (5,))
    found = log.build(tmp_path / "spark", **LITTLE)
    assert (found.manifest.engine, found.manifest.settings.spark.master) == ("spark", "local[2]")
    check_identical(found, log.build(tmp_path / "local"))
    assert not building(tmp_path / "spark").exists()
    assert spark._session.range(3).count() == 3  # a session that ran before the build runs after it


@slow
def test_many_events(spark: Any, tmp_path: Path):
    """At two resolutions, one of them dense; pairs, edges and vectors are far above what travels within a
    task.
    """
    log, settings = (
        a_log(30_000, 8_000, 1_000_000 if SOAK else 300_000),
        {"resolutions": [(6, 8), (30, 40)], "dense": 1},
    )
    check_identical(
        log.build(tmp_path / "spark", **LITTLE, **settings), log.build(tmp_path / "local", **settings)
    )


# --- kills ---

KILLED = """
import sys
from pathlib import Path
from tests.graph.build.cut_off import Teller
from tests.graph.engines.test_spark import LITTLE, a_log
a_log(*map(int, sys.argv[2:])).build(Path(sys.argv[1]), observer=Teller(), **LITTLE)
"""


class Begun(Observer):
    """Notes the stages that begin."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, name, total, unit):
        self.stages.append(name)
        return lambda done: None


@slow
def test_a_build_killed_on_spark_goes_on_with_either_engine(spark: Any, tmp_path: Path):
    size = 2000, 1000, 30_000
    expected = a_log(*size).build(tmp_path / "local")
    command = [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path / "killed"), *map(str, size)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if line.strip() == "stage 00: 1st order":
                break
        java = [
            child for child in children(process.pid) if "java" in Path(f"/proc/{child}/cmdline").read_text()
        ]
        process.send_signal(signal.SIGKILL)
        assert process.wait(20) == -signal.SIGKILL
    for engine in ("spark", "local"):
        out = tmp_path / engine / "graph"
        shutil.copytree(building(tmp_path / "killed"), building(out), ignore=shutil.ignore_patterns("spill"))
        rest = Begun()
        check_identical(a_log(*size).build(out, observer=rest, **{**LITTLE, "engine": engine}), expected)
        assert rest.stages == ["00: 1st order", "00: 2nd order", "checksums"]
    until = time.monotonic() + 20
    while any(Path(f"/proc/{child}").exists() for child in java):
        assert time.monotonic() < until, "the Java of a build that was killed still runs"
        time.sleep(0.1)


def children(process: int) -> list[str]:
    return [
        child
        for task in Path(f"/proc/{process}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


# --- failures ---


def unlucky(block: PairRows) -> dict[str, np.ndarray]:
    raise ValueError("no luck with this block")


def test_what_fails_on_a_worker_is_said_in_one_sentence(spark: Any, tmp_path: Path):
    graph = a_log(60, 40, 400).build(tmp_path / "graph")
    folder = graph.folder(0)
    with Spark(tmp_path, SPARK, 0.5) as engine, pytest.raises(SparkError) as error:
        list(engine.read(folder, tmp_path, "user", unlucky, lambda pairs: None))
    said = str(error.value)
    assert said.startswith(
        "spark: Spark failed: ValueError: no luck with this block; the same command resumes"
    )
    assert "\n" not in said


# --- carrying ---


def test_large_arrays_go_as_files_and_come_back_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    carrier = make_carrier(tmp_path, monkeypatch, "local[2]")
    large, small = np.arange(1 << 14), np.arange(3)
    np.save(tmp_path / "mapped.npy", large * 2)
    rows = PairRows(
        small,
        carry.mapped(tmp_path / "mapped.npy"),
        np.empty(0, np.uint8),
        np.empty(0, np.int64),
        large.astype(np.uint16)[::2],
        *NO_TIMES[2:],
    )
    packed = carrier.pack((rows, large.reshape(128, 128).T, "text", 7))
    assert packed[0].indptr is small
    assert [type(part) for part in (packed[0].other, packed[1])] == [carry.Carried] * 2
    back = carry.unpack(packed)
    assert back[2:] == ("text", 7)
    assert_array_equal(back[0].other, large * 2)
    assert_array_equal(back[1], large.reshape(128, 128).T)
    assert not back[1].flags.writeable
    assert carrier.pack(rows.other) == packed[0].other, "a mapped file is carried once"
    assert os.stat(packed[0].other.name).st_ino == os.stat(tmp_path / "mapped.npy").st_ino, "and not copied"
    carrier.clear()
    assert list(carrier.folder.iterdir()) == []
    assert carrier.pack(rows.other) != packed[0].other


def test_part_of_a_mapped_file_is_not_taken_for_the_file(tmp_path: Path):
    np.save(tmp_path / "whole.npy", np.arange(1 << 15))
    whole = carry.mapped(tmp_path / "whole.npy")
    assert carry.file_of(whole) == tmp_path / "whole.npy"
    for part in (whole[1:], whole[:-1], whole[::2], whole.view(np.int32), whole.reshape(2, -1), whole + 0):
        assert carry.file_of(part) is None


def make_carrier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, master: str) -> carry.Carrier:
    from pyspark import SparkFiles

    (tmp_path / "root").mkdir()
    monkeypatch.setattr(SparkFiles, "getRootDirectory", lambda: str(tmp_path / "root"))
    context: Any = SimpleNamespace(master=master)
    return carry.Carrier(context)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 9),
            st.dictionaries(
                st.text(min_size=1, max_size=5),
                arrays.arrays(
                    st.sampled_from(["i1", "u2", "i4", "i8", "f2", "f4"]),
                    arrays.array_shapes(min_dims=1, max_dims=2, min_side=0),
                ),
                max_size=3,
            ),
        ),
        max_size=4,
    )
)
def test_parcels_hold_any_arrays(parcels):
    import pyarrow as pa

    batches = [parcel(number, held) for number, held in parcels]
    table = pa.Table.from_batches(batches, parcel(0, {}).schema)
    back = list(opened(table))
    assert [number for number, _ in back] == [number for number, _ in parcels]
    for (_, found), (_, held) in zip(back, parcels, strict=True):
        assert list(found) == list(held)
        for name, array in held.items():
            assert found[name].dtype == array.dtype
            assert_array_equal(found[name], array)
