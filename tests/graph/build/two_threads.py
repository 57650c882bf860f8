"""Builds of one log to compare with those of one thread; run as a program, since numba takes its threads from
the environment.
"""

import sys
from pathlib import Path

from tests.graph.histories import BUCKET, history, planted

EVENTS = planted(users=600, items=400, events=6000, seed=3)
UNTIL = 5
"""Last bucket before which later events change nothing."""


def build(out: Path, threads: int) -> None:
    """`random`: macro nodes by draw, of events in another order. `short` and `long`: without and with later
    events.
    """
    out.mkdir()
    history(EVENTS).shuffled(seed=threads).build(out / "random", threads=threads, clusters="random")
    early = [event for event in EVENTS if event[2] < (UNTIL + 1) * BUCKET]
    for name, events in (("short", early), ("long", EVENTS)):
        history(events).build(out / name, threads=threads, rank=32, resolutions=[(6, 8), (40, 30)])


if __name__ == "__main__":
    build(Path(sys.argv[1]), threads=2)
