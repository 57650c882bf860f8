"""The engine on Spark beside the local one: the same shards, the same command, one after the other, on
two cores of this machine.

    python benchmarks/spark.py --events 5e7

Each is `mgoe graph build` in a process of its own, as in `benchmarks/graph.py`: one snapshot of the whole
log, one resolution of 100/100; Spark's master is `local[2]`. The two graphs have to be identical in every
file. With `--all`, graphs have a snapshot before every window of the default cuts, and those of `--exposures`
rates; their names end in `all.FORM.N`.

One line per figure, `{name, value, unit, against, ratio}`, N the events; `against` is the local engine,
the ratio Spark over it:

- `graph.spark.seconds.N`: the command, the start of Python and of Java included;
  `graph.spark.cpu_seconds.N`: its processor time.
`graph.spark.seconds.STAGE.N`: as the build notes them.
- `graph.spark.peak_gib.N`: anonymous memory of all processes together.
- `graph.spark.python_gib.N`, `graph.spark.jvm_gib.N`: peaks of the processes of Python, and of that of Java;
nothing to compare with.

    python benchmarks/spark.py --prepare --events 1e7 --exposures 1e7

prepares logs instead, by `data.engine`, with the default cuts. Every row has to be the same, and in the same
place. Figures are `prepare.spark.seconds.FORM.N`, and so on.
"""

import argparse
import hashlib
import os
import shutil
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import GIB, Spent, child, line, use_cores
from benchmarks.world import PLAIN, World, built, settings, simulated
from mgoe.data.store import Store

EVENTS = 5e7
PREPARE = (
    "import sys; from mgoe.config import load_settings; from mgoe.data import prepare; "
    "prepare(load_settings(sys.argv[1]), sys.argv[2])"
)
EVERY = 0.1
"""Seconds between looks at memory."""


def compare(work: Path, rows: float, keep: bool, form: str = "events", every: bool = False) -> None:
    """Build with both engines and print the figures.

    Args:
        work, keep: As for `simulated`.
        rows: Of the log.
        form: Of the log.
        every: A snapshot before every window, in place of one of the whole log.
    """
    with simulated(work, rows, keep, form=form) as world:
        size = f"all.{form}.{world.name}" if every else world.name
        graph = PLAIN | {"snapshots": "all" if every else "last"}
        with built(world, graph) as embedded:
            plain = embedded
        with peaks() as peak, built(world, {**graph, "engine": "spark"}) as on_spark:
            build = on_spark
    if build.meta["files"] != plain.meta["files"]:
        raise RuntimeError("the graphs of the two engines differ")
    beside("seconds", size, build.spent.seconds, plain.spent.seconds, "s")
    for stage, spent in build.meta["stages"].items():
        beside(
            f"seconds.{stage.replace(' ', '_')}",
            size,
            spent["seconds"],
            plain.meta["stages"][stage]["seconds"],
            "s",
        )
    beside("cpu_seconds", size, build.spent.cpu_seconds, plain.spent.cpu_seconds, "s")
    beside("peak_gib", size, build.spent.anonymous_gib, plain.spent.anonymous_gib, "GiB")
    for kind, most in peak.items():
        line(f"graph.spark.{kind}_gib.{size}", most, "GiB")


def compare_preparing(work: Path, rows: float, form: str, keep: bool) -> None:
    """Prepare with both engines and print the figures."""
    with simulated(work, rows, keep, form=form) as world:
        plain = prepared(world, "local")
        expected = digests(world.folder / "local")
        with peaks() as peak:
            spent = prepared(world, "spark")
        found = digests(world.folder / "spark")
        for engine in ("local", "spark"):
            shutil.rmtree(world.folder / engine)
    if found != expected:
        raise RuntimeError("the rows of the two engines differ")
    size = f"{form}.{world.name}"
    beside("seconds", size, spent.seconds, plain.seconds, "s", "prepare")
    beside("cpu_seconds", size, spent.cpu_seconds, plain.cpu_seconds, "s", "prepare")
    beside("peak_gib", size, spent.anonymous_gib, plain.anonymous_gib, "GiB", "prepare")
    for kind, most in peak.items():
        line(f"prepare.spark.{kind}_gib.{size}", most, "GiB")


def prepared(world: World, engine: str) -> Spent:
    """What it takes to prepare a log, in a process of its own, in the folder of the log."""
    raw = settings(world, {})
    raw["data"]["engine"] = engine
    config = world.folder / "prepare.yaml"
    config.write_text(yaml.safe_dump(raw))
    return child("-c", PREPARE, config, world.folder / engine)


def digests(folder: Path) -> dict[str, str]:
    """A digest of every column of prepared rows, whatever the files that hold them."""
    found = {}
    for path in sorted(folder.glob("*.parquet")):
        sums: dict[str, Any] = defaultdict(hashlib.sha256)
        for file in Store(path).sizes():
            for batch in pq.ParquetFile(file).iter_batches():
                for name, column in zip(batch.schema.names, batch.columns, strict=True):
                    sums[name].update(column.to_numpy(zero_copy_only=False).tobytes())
        found |= {f"{path.stem}.{name}": held.hexdigest() for name, held in sums.items()}
    return found


def beside(figure: str, size: str, spark: float, embedded: float, unit: str, stage: str = "graph") -> None:
    """A line with both engines."""
    line(f"{stage}.spark.{figure}.{size}", spark, unit, embedded, spark / max(embedded, 1e-3))


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
        "--prepare", action="store_true", help="prepare logs, instead of building graphs of events"
    )
    parser.add_argument(
        "--all", action="store_true", dest="every", help="graphs with a snapshot before every window"
    )
    parser.add_argument("--exposures", default="", help="with --prepare or --all: sizes of exposure logs")
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
        for form in ("events", "exposures"):
            for size in filter(None, getattr(options, form).split(",")):
                if options.prepare:
                    compare_preparing(work, float(size), form, options.keep)
                else:
                    compare(work, float(size), options.keep, form, options.every)


if __name__ == "__main__":
    use_cores()
    main()
