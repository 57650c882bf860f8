"""A build of some 100,000 events to be killed, starved of disk or kept waiting; run as a program, in a process of its own.

`kill OUT`: builds, and says each stage as it begins. `full OUT`: builds over another graph, with a disk that is full in every stage once.
"""

import resource
import signal
import sys
from pathlib import Path

from mgoe.errors import OutputError
from mgoe.graph import MacroGraph
from tests.graph.histories import History, contents, differences, history, planted

SETTINGS = {"rank": 16, "resolutions": [(6, 8), (12, 20)]}
FULL = 3000
"""Bytes that a file may have on the full disk: less than every array of the log that matters, more than the record of the stages."""


class Teller:
    """Says on standard output what begins."""

    def stage(self, name, total, unit):
        print(f"stage {name}", flush=True)
        return lambda done: None

    def note(self, line):
        print(f"note {line}", flush=True)


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
    return history(planted(users=3000, items=2000, groups=6, events=100_000, seed=1))


def starve(out: Path) -> None:
    """A graph of a part, over which a build of all is to go; it ends well at last, and says how often it could not write."""
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
    else:
        starve(out)
