import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.graph import MacroGraph
from tests.effort import up_to
from tests.graph.build import two_threads
from tests.graph.histories import CUTS, contents, differences, event_lists, history


@up_to(4)
@given(early=event_lists(3, 30, last=2), middle=event_lists(0, 20, first=3, last=7), data=st.data())
def test_later_events_change_nothing_of_a_snapshot(early, middle, data):
    """Events, users and items after a cut leave every array of its snapshot as it is: clusters and sketches
    included.
    """
    cut = data.draw(st.sampled_from(range(len(CUTS))), "cut")
    held = [event for event in early + middle if event[2] < (CUTS[cut] + 1) * 10]
    later = data.draw(event_lists(1, 30, first=CUTS[cut] + 1, last=11, users=12, items=12), "later")
    with tempfile.TemporaryDirectory() as folder:
        one = history(held).build(Path(folder) / "one")
        other = history(held + later).build(Path(folder) / "other")
        for s in range(cut + 1):
            assert differences(contents(one, s), contents(other, s)) == []


@pytest.fixture(scope="module")
def builds(tmp_path_factory):
    """The same builds with one thread and, in a process of its own, with two everywhere: engine, BLAS, faiss
    and numba.
    """
    out = tmp_path_factory.mktemp("threads")
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    other = subprocess.Popen(
        [sys.executable, "-m", "tests.graph.build.two_threads", str(out / "two")],
        env=os.environ | dict.fromkeys(names, "2"),
        cwd=Path(__file__).parents[2],
    )
    two_threads.build(out / "one", threads=1)
    assert other.wait(timeout=300) == 0
    return out


@pytest.mark.parametrize("threads", ["one", "two"])
def test_later_events_change_nothing_of_a_larger_snapshot_with_any_threads(builds, threads):
    short, long = (MacroGraph.open(builds / threads / name) for name in ("short", "long"))
    for s in (s for s, cut in enumerate(CUTS) if cut <= two_threads.UNTIL):
        assert differences(contents(short, s), contents(long, s)) == []
    assert differences(contents(short, len(CUTS)), contents(long, len(CUTS))) != []


@pytest.mark.parametrize("name", ["random", "short", "long"])
def test_every_stage_is_identical_with_any_threads_and_order_of_events(builds, name):
    one, two = (MacroGraph.open(builds / threads / name) for threads in ("one", "two"))
    for s in range(len(one.snapshots)):
        assert differences(contents(one, s), contents(two, s)) == []
