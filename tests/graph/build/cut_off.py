"""A build of 30,000 events, or 100,000 in the long form, to be killed, starved of disk or kept waiting; run
as a program, in a process of its own.

`kill OUT`: builds, and says each stage as it begins. `update OUT`: adds to what is there, and says the same.
`full OUT`: builds over another graph, with a disk that is full in every stage once.
"""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

from mgoe.errors import OutputError
from mgoe.graph import MacroGraph, NewEvents, Observer, update_graph
from tests.effort import SOAK
from tests.graph.histories import History, contents, differences, history, planted, source_of

SETTINGS = {"rank": 16, "resolutions": [(6, 8), (12, 20)]}
FULL = 3000
"""Bytes that a file may have on the full disk: less than every array of the log that matters, more than the
record of the stages.
"""
ROOT = Path(__file__).parents[3]
THREADS = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)


class Teller(Observer):
    """Says on standard output what begins."""

    def stage(self, name, total, unit):
        print(f"stage {name}", flush=True)
        return lambda done: None


class Starved(Teller):
    """The disk fills in every stage, the first time that it begins."""

    def __init__(self):
        self.seen = set()

    def stage(self, name, total, unit):
        if name not in self.seen:
            self.seen.add(name)
            limit(FULL)
        return super().stage(name, total, unit)


def limit(size: int) -> None:
    """Of a file; the soft limit alone, so that it can be raised again."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def log() -> History:
    size = 10 if SOAK else 3
    return history(planted(users=300 * size, items=200 * size, groups=6, events=10_000 * size, seed=1))


def update(out: Path, observer: Observer | None = None) -> MacroGraph:
    """Add a tenth to a graph of the log: later and late events, known and new users and items."""
    graph = MacroGraph.open(out)
    users, items = graph.manifest.users[-1] + 50, graph.manifest.items[-1] + 30
    rows = planted(users=users, items=items, groups=6, events=10_000, seed=3, last=15)
    source = source_of(rows, out.with_name(f"{out.name}.new.parquet"), [], [users], [items])
    return update_graph(graph, NewEvents(source.history, users, items, source.read_facts(), {}), observer)


def child(way: str, out: Path) -> subprocess.Popen[str]:
    """This file as a program."""
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.graph.build.cut_off", way, str(out)],
        env=os.environ | THREADS,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def killed(way: str, out: Path, after: float) -> list[str]:
    """Begin or go on with what a child does, and kill it so many seconds after the first stage began. Stages
    begun.
    """
    with child(way, out) as process:
        assert process.stdout
        line = next((line for line in process.stdout if line.startswith("stage")), "")
        time.sleep(after)
        process.kill()
        begun = [line, *(rest for rest in process.stdout if rest.startswith("stage"))]
    return [stage.removeprefix("stage ").strip() for stage in begun if stage]


def starve(out: Path) -> None:
    """A graph of a part, over which a build of all is to go; it ends well at last, and says how often it
    could not write.
    """
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    part = history(planted(users=300, items=200, groups=6, events=3000, seed=2)).build(out, **SETTINGS)
    before = contents(part, 0)
    source, starved = log(), Starved()
    while True:
        try:
            graph = source.build(out, observer=starved, **SETTINGS)
            break
        except OutputError as error:
            limit(resource.RLIM_INFINITY)
            still = MacroGraph.open(out)
            still.verify()
            assert differences(contents(still, 0), before) == []
            print(f"error {error}", flush=True)
    graph.verify()


if __name__ == "__main__":
    way, out = sys.argv[1], Path(sys.argv[2])
    if way == "kill":
        log().build(out, observer=Teller(), **SETTINGS)
    elif way == "update":
        update(out, Teller())
    else:
        starve(out)
