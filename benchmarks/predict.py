"""`mgoe predict` by one process, by several and on Spark: the same file of pairs, and a bundle with random
weights.

    python benchmarks/predict.py [--pairs 1e6] [--jobs 1 2] [--spark] [--users 100000] [--items 20000]
        [--model mgoe] [--work FOLDER]

The bundle is one of `served.py`; pairs are random. A run fails if its rows differ from those of the first
one. Every command has two cores: one process uses both by its threads, and processes side by side have one
thread each. With `--spark`, `local[2]` scores at last; its figures have `spark` in place of JOBS.

- `predict.seconds.JOBS.PAIRS`: of the whole command, starting Python and the processes included, against the
  first number of processes.
- `predict.cpu_seconds.JOBS.PAIRS`: processor time of all processes, which other work on the machine changes
  less.
- `predict.memory.JOBS.PAIRS`: peak of anonymous memory, all processes together.
- `predict.memory.main.JOBS.PAIRS`, `predict.memory.process.JOBS.PAIRS`: peaks of the process that reads and
  writes, and of the largest other one, which is Java on Spark.
"""

import argparse
import filecmp
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import (
    ROOT,
    THREADS,
    Spent,
    child,
    line,
    memory_of_each,
    running_seconds,
    size_name,
    use_cores,
)
from benchmarks.served import MODELS, id_of, made_up_bundle
from mgoe.bundle import Bundle


@dataclass
class Watch:
    """What the processes of a command took.

    Attributes:
        cpu_seconds: Of all.
        peaks: GiB of each, by its number; the command itself comes first.
    """

    cpu_seconds: float = 0.0
    peaks: dict[int, float] = field(default_factory=dict)

    def look(self, process: int, anonymous: float) -> None:
        """Look at a command and all processes below it."""
        self.cpu_seconds = max(self.cpu_seconds, running_seconds(process))
        for number, held in memory_of_each(process).items():
            self.peaks[number] = max(held, self.peaks.get(number, 0.0))


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=float, default=1e6)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--spark", action="store_true", help="score on Spark too")
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--model", choices=MODELS, default="mgoe")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "predict")
    given = parser.parse_args()
    use_cores()
    bundle = made(given)
    pairs = made_pairs(given, bundle)
    first: tuple[Path, float] | None = None
    for jobs in given.jobs:
        watch, out = Watch(), given.work / f"scores-{jobs}.parquet"
        words = ("-m", "mgoe", "predict", bundle, pairs, "--out", out, "--jobs", str(jobs))
        spent = child(*words, look=watch.look)
        first = first or (out, spent.seconds)
        if not filecmp.cmp(first[0], out, shallow=False):
            raise RuntimeError(f"{out} differs from {first[0]}")
        show(f"{jobs}.{size_name(given.pairs)}", spent, watch, first[1])
    if given.spark and first is not None:
        watch, out = Watch(), given.work / "scores-spark"
        shutil.rmtree(out, ignore_errors=True)
        words = ("-m", "mgoe", "predict", bundle, pairs, "--out", out, "--engine", "spark")
        spent = child(*words, "--master", f"local[{THREADS}]", look=watch.look)
        if not same_rows(first[0], out):
            raise RuntimeError(f"{out} differs from {first[0]}")
        show(f"spark.{size_name(given.pairs)}", spent, watch, first[1])


def same_rows(file: Path, folder: Path) -> bool:
    """Whether a folder that Spark wrote has the rows of a file, in its order."""
    parts = (pq.read_table(part) for part in sorted(folder.glob("part-*")))
    return pa.concat_tables(parts).equals(pq.read_table(file))


def show(name: str, spent: Spent, watch: Watch, first: float) -> None:
    """Print the figures of a command."""
    main, *others = watch.peaks.values()
    line(f"predict.seconds.{name}", spent.seconds, "s", first, spent.seconds / first)
    line(f"predict.cpu_seconds.{name}", watch.cpu_seconds, "s")
    line(f"predict.memory.{name}", spent.anonymous_gib, "GiB")
    line(f"predict.memory.main.{name}", main, "GiB")
    if others:
        line(f"predict.memory.process.{name}", max(others), "GiB")


def made(given: argparse.Namespace) -> Path:
    """The bundle, made unless it is there."""
    bundle = given.work / f"users{given.users}-items{given.items}" / given.model
    if not (bundle / "bundle.json").exists():
        made_up_bundle(bundle.parent, given.users, given.items, models=[given.model])
    return bundle


def made_pairs(given: argparse.Namespace, bundle: Path) -> Path:
    """A file of random pairs."""
    data, rng, file = (
        Bundle.open(bundle).settings.data,
        np.random.default_rng(0),
        given.work / "pairs.parquet",
    )
    sides = {data.user: given.users, data.item: given.items}
    columns = {name: id_of(rng.integers(0, n, int(given.pairs))) for name, n in sides.items()}
    pq.write_table(pa.table(columns), file)
    return file


if __name__ == "__main__":
    main()
