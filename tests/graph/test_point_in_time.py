import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.graph import MacroGraph
from tests.effort import SOAK, up_to
from tests.graph.build import machines
from tests.graph.histories import CUTS, contents, differences, event_lists, history


@up_to(3)
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


LIBRARIES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
OLDEST = {
    "OPENBLAS_CORETYPE": "Prescott",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX512F",
}
"""What makes libraries compute as on the oldest processor that they run on; on one of another family they do
as they would without."""
MACHINES: dict[str, tuple[int, dict[str, str]]] = {
    "one": (1, {}),
    "four": (4, OLDEST),
}
MORE: dict[str, tuple[int, dict[str, str]]] = {
    f"{core}-{threads}": (threads, {"OPENBLAS_CORETYPE": core})
    for core in ("Prescott", "Sandybridge")
    for threads in (1, 2, 4)
} | {"two": (2, {"OPENBLAS_CORETYPE": "Nehalem"}), "compiler": (2, {"NUMBA_CPU_NAME": "generic"})}


@pytest.fixture(scope="module")
def builds(tmp_path_factory):
    """The same builds with one and with four threads everywhere (engine, BLAS and numba) and on several kinds
    of processor, each in a process of its own.
    """
    out = tmp_path_factory.mktemp("machines")
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.graph.build.machines", str(out / name), str(threads)],
            env=os.environ | dict.fromkeys(LIBRARIES, str(threads)) | kind,
            cwd=Path(__file__).parents[2],
        )
        for name, (threads, kind) in (MACHINES | MORE if SOAK else MACHINES).items()
    ]
    assert [process.wait(timeout=600) for process in started] == [0] * len(started)
    return out


@pytest.mark.parametrize("machine", MACHINES)
def test_later_events_change_nothing_of_a_larger_snapshot_with_any_threads(builds, machine):
    short, long = (MacroGraph.open(builds / machine / name) for name in ("short", "long"))
    for s in (s for s, cut in enumerate(CUTS) if cut <= machines.UNTIL):
        assert differences(contents(short, s), contents(long, s)) == []
    assert differences(contents(short, len(CUTS)), contents(long, len(CUTS))) != []


@pytest.mark.parametrize("machine", [*MACHINES, *[*MORE] * SOAK][1:])
def test_every_array_is_identical_with_any_threads_on_any_processor_in_any_order_of_events(builds, machine):
    graphs = sorted(file.parent.name for file in (builds / "one").glob("*/graph.json"))
    assert len(graphs) == 3 + 2 * len(machines.USERS)
    for name in graphs:
        one, other = (MacroGraph.open(builds / place / name) for place in ("one", machine))
        for s in range(len(one.snapshots)):
            assert (name, s, differences(contents(one, s), contents(other, s))) == (name, s, [])
