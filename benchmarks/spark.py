"""The engine on Spark beside the local one: the same shards, the same command, one after the other, on
two cores of this machine.

    python benchmarks/spark.py --events 5e7

Each is `mgoe graph build` in a process of its own, as in `benchmarks/graph.py`: one snapshot of the whole
log, one resolution of 100/100; Spark's master is `local[2]`. The two graphs have to be identical in every
file.

One line per figure, `{name, value, unit, against, ratio}`, N the events; `against` is the local engine,
the ratio Spark over it:

- `graph.spark.seconds.N`: the command, the start of Python and of Java included.
`graph.spark.seconds.STAGE.N`: as the build notes them.
- `graph.spark.peak_gib.N`: anonymous memory of all processes together.
- `graph.spark.python_gib.N`, `graph.spark.jvm_gib.N`: peaks of the processes of Python, and of that of Java;
nothing to compare with."""

import argparse
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import GIB, line, use_cores
from benchmarks.world import PLAIN, built, simulated

SPARK = {**PLAIN, "engine": "spark"}
EVENTS = 5e7
EVERY = 0.1
"""Seconds between looks at memory."""


def compare(work: Path, events: float, keep: bool) -> None:
    """Build with both engines and print the figures."""
    with simulated(work, events, keep) as world:
        with built(world, PLAIN) as embedded:
            plain = embedded
        with peaks() as peak, built(world, SPARK) as on_spark:
            build = on_spark
    if build.meta["files"] != plain.meta["files"]:
        raise RuntimeError("the graphs of the two engines differ")
    beside("seconds", world.name, build.spent.seconds, plain.spent.seconds, "s")
    for stage, spent in build.meta["stages"].items():
        beside(
            f"seconds.{stage.replace(' ', '_')}",
            world.name,
            spent["seconds"],
            plain.meta["stages"][stage]["seconds"],
            "s",
        )
    beside("peak_gib", world.name, build.spent.anonymous_gib, plain.spent.anonymous_gib, "GiB")
    for kind, most in peak.items():
        line(f"graph.spark.{kind}_gib.{world.name}", most, "GiB")


def beside(figure: str, size: str, spark: float, embedded: float, unit: str) -> None:
    """A line with both engines."""
    line(f"graph.spark.{figure}.{size}", spark, unit, embedded, spark / max(embedded, 1e-3))


@contextmanager
def peaks() -> Iterator[dict[str, float]]:
    """Most anonymous memory, GiB, of the processes of `python` and of the `jvm` that this one starts
    meanwhile, by kind.
    """
    most, stop = {"python": 0.0, "jvm": 0.0}, threading.Event()
    before = {*descendants(os.getpid())}

    def watch() -> None:
        while not stop.wait(EVERY):
            now = {"python": 0.0, "jvm": 0.0}
            for process in {*descendants(os.getpid())} - before:
                with suppress(OSError):  # it ended meanwhile
                    status = dict(
                        row.split(":", 1) for row in Path(f"/proc/{process}/status").read_text().splitlines()
                    )
                    kind = "jvm" if status["Name"].strip() == "java" else "python"
                    now[kind] += int(status.get("RssAnon", "0").split()[0]) * 1024 / GIB
            for kind, held in now.items():
                most[kind] = max(most[kind], held)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield most
    finally:
        stop.set()
        watcher.join()


def descendants(process: int) -> Iterator[int]:
    """Processes below one."""
    with suppress(OSError):  # it ended meanwhile
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                yield child
                yield from descendants(child)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--events", default=f"{EVENTS:g}", help=f"sizes, comma between; {EVENTS:g} by default"
    )
    parser.add_argument(
        "--work",
        type=Path,
        help="folder for logs and outputs, which are used again; a temporary one by default",
    )
    parser.add_argument("--keep", action="store_true", help="leave the logs in --work")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        work = (options.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        for size in options.events.split(","):
            compare(work, float(size), options.keep)


if __name__ == "__main__":
    use_cores()
    main()
