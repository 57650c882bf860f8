"""An end-to-end run, from a log to a bundle that answers, at several sizes: what every stage takes, and how
it grows.

    python benchmarks/line.py --events 1e6,1e7
    python benchmarks/line.py --events 1e7,1e8 --work FOLDER --keep     # the same command resumes
    python benchmarks/line.py --exposures 1e7,1e8                       # logs of what was shown

Every line is `mgoe run` in a process of its own, on a simulated log of 100 user and 100 item communities,
followed by `mgoe recommend` for one user. Three cuts at .9, .96 and .98 of the positives, or at .76, .96 and
.98 of those of an exposure log, for which nothing is sampled; at most 2e7 training rows; the default
`mgoe`, one epoch, one seed; ten ranking queries; candidates are retrieved. Users are a 50th of the rows,
items a fifth of the users. Two cores. `--set` changes settings of the run, such as `--set memory=2`.

A stage ends when what it writes is there:

- `prepare`: the prepared data; `graph`: the graph with its snapshots; `training`: the weights, with their
  validation; `evaluation`: predictions and metrics of validation and test, and the calibrations;
- `retrieval`: the weights of the blend, and what candidates are found from; `bundle`: the rest of the bundle;
  `report`: the report, and the end of the command; `answer`: the process that answers.

One line per figure, `{name, value, unit, against, ratio}`, N the rows of the log; names of an exposure log
begin with `line.exposures` in place of `line`:

- `line.seconds.STAGE.N`, `line.cpu_seconds.STAGE.N`, `line.rows_per_s.STAGE.N`: rows are those of the log,
  whatever the stage reads;
- `line.peak_gib.STAGE.N`: anonymous memory; against the limit, with their ratio;
- `line.disk_gib.STAGE.N`: the most that the output folder takes in the stage, by looks every two seconds;
- `line.seconds.N` and so on: of the end-to-end run;
- `line.forecast.WHAT.STAGE.N`, `line.forecast.WHAT.N`: what `mgoe plan` promises of `seconds`, `cpu_seconds`,
  `peak_gib` and `disk_gib`; against what was measured; ratio forecast over measured. Bundle and report are
  one stage, `bundle+report`, and the answer is not part of it;
- `line.slope.STAGE`, `line.cpu_slope.STAGE`: growth of log seconds, and log processor seconds, over log
  rows, from the first size to the last; against 1.15, with their ratio.

With `--work` and `--keep` an interrupted line resumes: figures of finished stages are kept, and those of the
stage that was interrupted are of the last process alone.
"""

import argparse
import json
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import GIB, THREADS, child, folder_bytes, line, running_seconds, use_cores
from benchmarks.world import World, settings, simulated
from mgoe.config import overridden
from mgoe.data.vocabulary import Vocabulary

SIZES = "1e6,1e7"
STAGES = {
    "prepare": "data",
    "graph": "graph",
    "training": "cells/mgoe/0/model.safetensors",
    "evaluation": "cells/mgoe/0/metrics.json",
    "retrieval": "*bundle*/retrieval",
    "bundle": "bundle",
    "report": "",
}
"""Stages of `mgoe run`, and what is there in its folder once one has ended; the last one ends with the
command."""
CUTS = {"events": [0.9, 0.96, 0.98], "exposures": [0.76, 0.96, 0.98]}
LARGEST_SLOPE = 1.15
_DISK_EVERY = 2.0  # seconds between looks at the folder


@dataclass
class Stage:
    """What a stage took."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_gib: float = 0.0
    disk_gib: float = 0.0


class Watch:
    """Divides what a process takes among the stages that it goes through.

    Args:
        out: Folder of the run.
        file: Where figures of finished stages are kept.
    """

    def __init__(self, out: Path, file: Path):
        self.out, self.file = out, file
        kept = json.loads(file.read_text()) if file.exists() else {}
        finished = kept.keys() == STAGES.keys() and out.exists()
        self.stages = {name: Stage(**kept[name]) for name in kept if finished or self._ended(name)}
        self._left = [name for name in STAGES if name not in self.stages]
        self._now, self._since = Stage(), (time.perf_counter(), 0.0)
        self._disk_at = 0.0

    def look(self, process: int, memory: float) -> None:
        """Take one look at the process."""
        moment, used = time.perf_counter(), running_seconds(process)
        while len(self._left) > 1 and self._ended(self._left[0]):
            self._end(moment, used)
        if moment - self._disk_at > _DISK_EVERY:
            self._disk_at = moment
            with suppress(OSError):  # a file that is removed meanwhile
                self._now.disk_gib = max(self._now.disk_gib, folder_bytes(self.out) / GIB)
        self._now.peak_gib = max(self._now.peak_gib, memory)
        self._now.seconds, self._now.cpu_seconds = moment - self._since[0], used - self._since[1]

    def _ended(self, name: str) -> bool:
        return any(self.out.glob(STAGES[name])) if STAGES[name] else False

    def _end(self, moment: float, used: float) -> None:
        self._now.seconds, self._now.cpu_seconds = moment - self._since[0], used - self._since[1]
        self.stages[self._left.pop(0)] = self._now
        self.file.write_text(json.dumps({name: asdict(stage) for name, stage in self.stages.items()}))
        self._now, self._since = Stage(disk_gib=self._now.disk_gib), (moment, used)

    @property
    def finished(self) -> bool:
        """Whether the run has ended before, and its figures are kept."""
        return not self._left

    def finish(self) -> dict[str, Stage]:
        """Return what every stage took, after the process has ended."""
        while self._left:
            moment, used = self._since
            self._end(moment + self._now.seconds, used + self._now.cpu_seconds)
        return self.stages


def config(world: World, sets: Sequence[str]) -> dict[str, Any]:
    """The configuration of the run, as YAML holds it."""
    raw = settings(world, {}) | {
        "graph": {},
        "split": {"cuts": CUTS[world.form]},
        "models": ["mgoe"],
        "training": {"epochs": 1, "rows": 20_000_000, "threads": THREADS},
        "evaluation": {"ranking_queries": 10},
        "retrieval": {},
    }
    return overridden(raw, sets)


def measure(
    world: World, work: Path, sets: Sequence[str], keep: bool
) -> tuple[dict[str, Stage], dict[str, Stage]]:
    """Run the line on a log, and return what every stage took, and what `mgoe plan` says that it takes."""
    out = work / f"run-{world.form}-{world.name}"
    file, kept = out.with_suffix(".yaml"), out.with_suffix(".json")
    file.write_text(yaml.safe_dump(config(world, sets), sort_keys=False))
    watch = Watch(out, kept)
    try:
        promised = forecast(file)
        if not watch.finished:
            child("-m", "mgoe", "--quiet", "run", file, "--out", out, look=watch.look)
        stages = watch.finish()
        user = Vocabulary.load(out / "bundle" / "users.parquet").ids([0])[0].as_py()
        spent = child("-m", "mgoe", "recommend", out / "bundle", str(user), "--json")
        if not json.loads(spent.output):
            raise RuntimeError(f"the bundle must answer, found an empty list for user {user}")
        disk = folder_bytes(out) / GIB
        answer = Stage(spent.seconds, spent.cpu_seconds, spent.anonymous_gib, disk)
        return stages | {"answer": answer}, promised
    finally:
        if not keep:
            shutil.rmtree(out, ignore_errors=True)
            for one in (file, kept):
                one.unlink(missing_ok=True)


def forecast(file: Path) -> dict[str, Stage]:
    """What `mgoe plan` says of every stage, even if it refuses the run."""
    found = json.loads(child("-m", "mgoe", "plan", file, "--force", "--json").output)
    return {
        one["stage"].replace(" and ", "+"): Stage(
            *map(one.get, ("seconds", "cpu_seconds", "memory_gib", "disk_gib"))
        )
        for one in found["stages"]
    }


def whole(stages: Mapping[str, Stage]) -> Stage:
    """What all stages took together."""
    parts = stages.values()
    return Stage(
        sum(part.seconds for part in parts),
        sum(part.cpu_seconds for part in parts),
        max(part.peak_gib for part in parts),
        max(part.disk_gib for part in parts),
    )


def prefix(form: str) -> str:
    """What the names of figures of a form of log begin with."""
    return "line" if form == "events" else f"line.{form}"


def show(world: World, stages: Mapping[str, Stage], limit: float) -> None:
    """Print the figures of a size."""
    start = prefix(world.form)
    for name, stage in {**stages, "": whole(stages)}.items():
        of = f"{name}.{world.name}".lstrip(".")
        line(f"{start}.seconds.{of}", stage.seconds, "s")
        line(f"{start}.cpu_seconds.{of}", stage.cpu_seconds, "s")
        line(f"{start}.rows_per_s.{of}", world.events / max(stage.seconds, 1e-3), "rows/s")
        line(f"{start}.peak_gib.{of}", stage.peak_gib, "GiB", limit, stage.peak_gib / limit)
        line(f"{start}.disk_gib.{of}", stage.disk_gib, "GiB")


def show_forecast(world: World, promised: Mapping[str, Stage], stages: Mapping[str, Stage]) -> None:
    """Print what was promised of a size, against what it took."""
    took = {name: stage for name, stage in stages.items() if name in promised}
    took["bundle+report"] = whole({name: stages[name] for name in ("bundle", "report")})
    for name, stage in {**promised, "": whole(promised)}.items():
        measured = asdict(took[name] if name else whole(took))
        for what, value in asdict(stage).items():
            of = f"{prefix(world.form)}.forecast.{what}.{name}.{world.name}".replace("..", ".")
            line(
                of,
                value,
                "GiB" if what.endswith("gib") else "s",
                measured[what],
                value / max(measured[what], 1e-3),
            )


def show_slopes(
    first: tuple[int, Mapping[str, Stage]], last: tuple[int, Mapping[str, Stage]], form: str = "events"
) -> None:
    """Print how every stage grows from one size to another."""
    grown = math.log(last[0] / first[0])
    for name, stage in {**last[1], "all": whole(last[1])}.items():
        before = first[1].get(name) or whole(first[1])
        for what, figure in {"slope": "seconds", "cpu_slope": "cpu_seconds"}.items():
            took, then = (max(getattr(one, figure), 1e-3) for one in (stage, before))
            slope = math.log(took / then) / grown
            of = f"{prefix(form)}.{what}.{name}"
            line(of, slope, "log s / log rows", LARGEST_SLOPE, slope / LARGEST_SLOPE)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, measure, print."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        work = (options.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        events = options.events or ("" if options.exposures else SIZES)
        sizes = {"events": events, "exposures": options.exposures}
        for form, several in sizes.items():
            measured = []
            for size in several.split(",") if several else ():
                with simulated(work, float(size), options.keep, options.worlds, form) as world:
                    stages, promised = measure(world, work, options.sets, options.keep)
                    show(world, stages, float(config(world, options.sets).get("memory", 4)))
                    show_forecast(world, promised, stages)
                    measured.append((world.events, stages))
            if len(measured) > 1:
                show_slopes(measured[0], measured[-1], form)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", help=f"sizes, comma between; {SIZES} by default")
    parser.add_argument("--exposures", help="sizes of exposure logs, comma between; none by default")
    for name, what in {"set": "of every run", "world": "of every simulated log"}.items():
        parser.add_argument(
            f"--{name}", dest=f"{name}s", action="append", default=[], metavar="KEY=VALUE", help=what
        )
    parser.add_argument(
        "--work", type=Path, help="folder for logs and runs, used again; a temporary one by default"
    )
    parser.add_argument("--keep", action="store_true", help="leave logs and runs in --work")
    return parser


if __name__ == "__main__":
    use_cores()
    main()
