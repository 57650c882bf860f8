"""Builds of the macro graph, from ten million events to a billion: seconds, memory, distance from the
floor.

    python benchmarks/graph.py --events 1e7,1e8,1e9          # builds, and how time grows; the first thrice
    python benchmarks/graph.py --exposures 1e7,1e8           # builds of exposure logs, 20 shown per click
    python benchmarks/graph.py --more                        # more settings at 1e7

Every build is `mgoe graph build`, in a process of its own, on a simulated log of 100 user and 100 item
communities: one snapshot of the whole log, one resolution of 100/100; rank 64, two power iterations and no
rounds. Users are a 50th of the events, items
a fifth of the users (a tenth from 1e9 on). Two cores. No file of the log is in the system's cache when a
build begins. Of several sizes, the first is built `--rounds` times, and its median is what the others are
compared with.

One line per figure, `{name, value, unit, against, ratio}`, N the events:

- `graph.seconds.N`: the command, the start of Python and reading and numbering the ids included;
  `graph.cpu_seconds.N`: its processor time;
  `graph.events_per_s.N` likewise; `graph.build_events_per_s.N` without the stage that numbers ids.
  `graph.slope`: of log seconds over log events, by least squares. `graph.growth.N`: seconds against those of
  the first size; ratio how many times as long it takes.
- `graph.seconds.STAGE.N`, `graph.stage_events_per_s.STAGE.N`, `graph.peak_gib.STAGE.N`: as the build notes
them.
- `graph.peak_gib.N`: anonymous memory; `graph.peak_file_gib.N`: file pages in the address space;
`graph.mapped_gib.N`: the artefact.
- `graph.floor_seconds.N`: reading the log's four columns; against the whole command, the ratio says how many
times longer that takes.
- `graph.exposures.*`: the same figures of builds of exposure logs. `graph.exposures.disk_gib.N`: against the
  graph of an event log of as many events, users and items; ratio exposures over events.
- `graph.seconds_added.resolution.N`, `.snapshot.N`, `.vectors.N`: by a second resolution of 300/300, by a
  second snapshot at 90 % of the time, and by a vector of 256 numbers of each item, to the library's build
  from coded events; against that build, ratio added over build. `graph.peak_gib.vectors.N`: anonymous memory
  of the last of these, against that of the build.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import coded
from benchmarks.measure import GIB, ROUNDS, THREADS, child, in_turn, line, size_name, use_cores
from benchmarks.world import PLAIN, Build, World, built, simulated

SIZES = "1e7,1e8,1e9"
MORE = 1e7
NUMBERING = "ids"
"""The stage that numbers users and items."""
FINER = [300, 300]
"""The second resolution."""
WIDTH = 256
"""Numbers of a vector."""
WARM_UP = 20_000
"""Events that bring compiled code to memory before a build from codes."""


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        work: Where logs and outputs go.
        keep: Leave them there.
        rounds: Of comparisons.
        graph: Settings of every graph.
        world: `--set` options of every simulation.
    """

    work: Path
    keep: bool
    rounds: int
    graph: Mapping[str, Any]
    world: Sequence[str]

    def log(self, events: float, form: str = "events") -> AbstractContextManager[World]:
        """A simulated log of about so many events, or exposures."""
        return simulated(self.work, events, self.keep, self.world, form)


def measure(plan: Plan, events: float) -> tuple[int, float]:
    """Build once and print its figures. Returns the events of the log and the seconds of the command."""
    with plan.log(events) as world, cold(world), built(world, plan.graph, plan.keep) as build:
        print_build(world, build)
        floor = floor_seconds(world)
        line(
            f"graph.floor_seconds.{world.name}", floor, "s", build.spent.seconds, build.spent.seconds / floor
        )
        return world.events, build.spent.seconds


def measure_all(plan: Plan, sizes: Sequence[float]) -> None:
    """Build logs of all sizes; of several, the first a few times, and compare the others with its median."""
    rounds = plan.rounds if len(sizes) > 1 else 1
    with plan.log(sizes[0]):  # simulated once
        first = [measure(plan, sizes[0]) for _ in range(rounds)]
    before = first[0][0], median(seconds for _, seconds in first)
    others = [measure(plan, size) for size in sizes[1:]]
    for size, (_, seconds) in zip(sizes[1:], others, strict=True):
        line(f"graph.growth.{size_name(size)}", seconds, "s", before[1], seconds / before[1])
    if others:
        print_slope([before, *others])


@contextmanager
def cold(world: World) -> Iterator[None]:
    """Take a log out of the system's cache."""
    for shard in world.log.glob("*.parquet"):
        with shard.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    yield


def measure_exposures(plan: Plan, exposures: float) -> None:
    """Build the graph of an exposure log and that of an event log of equal size, and print the figures of the
    first and the disk of both."""
    with plan.log(exposures, "exposures") as world, built(world, plan.graph, plan.keep) as build:
        print_build(world, build, "graph.exposures")
    with plan.log(exposures) as events, built(events, plan.graph, plan.keep) as other:
        ours, theirs = build.artifact_bytes, other.artifact_bytes
    line(f"graph.exposures.disk_gib.{world.name}", ours / GIB, "GiB", theirs / GIB, ours / theirs)


def print_build(world: World, build: Build, what: str = "graph") -> None:
    """Seconds, rates and memory of the whole command and of each stage."""
    seconds, stages = build.spent.seconds, build.meta["stages"]
    line(f"{what}.seconds.{world.name}", seconds, "s")
    line(f"{what}.cpu_seconds.{world.name}", build.spent.cpu_seconds, "s")
    line(f"{what}.events_per_s.{world.name}", world.events / seconds, "events/s")
    line(
        f"{what}.build_events_per_s.{world.name}",
        world.events / (seconds - stages[NUMBERING]["seconds"]),
        "events/s",
    )
    line(f"{what}.peak_gib.{world.name}", build.spent.anonymous_gib, "GiB")
    line(f"{what}.peak_file_gib.{world.name}", build.spent.mapped_gib, "GiB")
    line(f"{what}.mapped_gib.{world.name}", build.artifact_bytes / GIB, "GiB")
    for name, spent in stages.items():
        stage = f"{name.replace(' ', '_')}.{world.name}"
        line(f"{what}.seconds.{stage}", spent["seconds"], "s")
        line(f"{what}.stage_events_per_s.{stage}", world.events / max(spent["seconds"], 1e-3), "events/s")
        line(f"{what}.peak_gib.{stage}", spent["peak_gib"], "GiB")


def floor_seconds(world: World) -> float:
    """Seconds to read the columns of the log that a build uses, shard by shard, with as many threads."""
    pa.set_cpu_count(THREADS)
    started = time.perf_counter()
    for shard in sorted(world.log.glob("*.parquet")):
        with pq.ParquetFile(shard) as file:
            for _ in file.iter_batches(1 << 20, columns=["user_id", "item_id", "timestamp", "behavior"]):
                pass
    return time.perf_counter() - started


def print_slope(measured: Sequence[tuple[int, float]]) -> None:
    """How time grows: 1 is linear."""
    events, seconds = np.log(measured).T
    line("graph.slope", float(np.polyfit(events, seconds, 1)[0]), "log s / log events")


def seconds_from_codes(
    histories: tuple[Path, Path], graph: Mapping[str, Any], *more: str, peaks: list[float] | None = None
) -> float:
    """Seconds of the library's build from coded events, in a process of its own.

    Args:
        histories: Of the log, and of the little that warms up.
        graph: Settings of the graph.
        more: Options of `benchmarks/coded.py`.
        peaks: Takes the peak of anonymous memory, in GiB.
    """
    with tempfile.TemporaryDirectory(dir=histories[0].parent) as out:
        spent = child("-m", "benchmarks.coded", *histories, out, "--graph", json.dumps(graph), *more)
    if peaks is not None:
        peaks.append(spent.anonymous_gib)
    return float(json.loads(spent.output)["seconds"])


@contextmanager
def coded_histories(plan: Plan, events: float) -> Iterator[tuple[World, tuple[Path, Path]]]:
    """A log as codes, and the beginning of it."""
    with plan.log(events) as world, tempfile.TemporaryDirectory(dir=plan.work) as folder:
        files = Path(folder) / "history.parquet", Path(folder) / "warm-up.parquet"
        yield world, (coded.write_history(world, files[0]), coded.write_history(world, files[1], WARM_UP))


def measure_more(plan: Plan, events: float) -> None:
    """What a second resolution, a second snapshot and vectors of items add to a build from coded events."""
    peaks: dict[str, list[float]] = {"build": [], "vectors": []}
    finer = {**plan.graph, "resolutions": [*plan.graph["resolutions"], FINER]}
    with coded_histories(plan, events) as (world, histories):
        runs = {
            "build": lambda: seconds_from_codes(histories, plan.graph, peaks=peaks["build"]),
            "resolution": lambda: seconds_from_codes(histories, finer),
            "snapshot": lambda: seconds_from_codes(histories, plan.graph, "--cut", world.late.isoformat()),
            "vectors": lambda: seconds_from_codes(
                histories, plan.graph, "--vectors", str(WIDTH), peaks=peaks["vectors"]
            ),
        }
        seconds = in_turn(runs, plan.rounds)
    plain, placed = median(peaks["build"]), median(peaks["vectors"])
    line(f"graph.peak_gib.vectors.{world.name}", placed, "GiB", plain, placed / plain)
    for name in ("resolution", "snapshot", "vectors"):
        added = seconds[name] - seconds["build"]
        line(
            f"graph.seconds_added.{name}.{world.name}", added, "s", seconds["build"], added / seconds["build"]
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, measure, print."""
    options = _parser().parse_args(arguments)
    sizes = options.events or ("" if options.more or options.exposures else SIZES)
    with tempfile.TemporaryDirectory() as temporary:
        graph = PLAIN | dict(options.sets) | ({} if options.rank is None else {"rank": options.rank})
        plan = Plan(
            (options.work or Path(temporary)).resolve(), options.keep, options.rounds, graph, options.worlds
        )
        plan.work.mkdir(parents=True, exist_ok=True)
        if sizes:
            measure_all(plan, [float(size) for size in sizes.split(",")])
        for size in options.exposures.split(",") if options.exposures else ():
            measure_exposures(plan, float(size))
        if options.more:
            measure_more(plan, options.more)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--events", help=f"sizes to build, comma between; {SIZES} where nothing else is asked for"
    )
    parser.add_argument("--exposures", help="sizes of exposure logs to build, comma between; none by default")
    parser.add_argument(
        "--more",
        nargs="?",
        type=float,
        const=MORE,
        metavar="EVENTS",
        help=f"a second resolution, a second snapshot and vectors at {MORE:g} events, or so many",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=ROUNDS,
        help=f"of every comparison, and of the first of several sizes; medians count; {ROUNDS} by default",
    )
    parser.add_argument("--rank", type=int, help="of the sketch, instead of the default")
    parser.add_argument(
        "--set",
        dest="sets",
        action="append",
        type=_setting,
        default=[],
        metavar="KEY=VALUE",
        help="of every graph",
    )
    parser.add_argument(
        "--world",
        dest="worlds",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of every simulated log",
    )
    parser.add_argument(
        "--work",
        type=Path,
        help="folder for logs and outputs, which are used again; a temporary one by default",
    )
    parser.add_argument("--keep", action="store_true", help="leave logs and outputs in --work")
    return parser


def _setting(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    return key, yaml.safe_load(value)


if __name__ == "__main__":
    use_cores()
    main()
