"""Two source trees in turn within one run: is the new one slower?

    python benchmarks/alternate.py OLD NEW [--only graph train serve intake] [--rounds 10] [--work FOLDER]
    python benchmarks/alternate.py OLD NEW --area lists line spark
    python benchmarks/alternate.py OLD NEW --only daily --log LOG.parquet
    python benchmarks/alternate.py OLD NEW --quick [--rounds 10]

OLD and NEW are checkouts. Each round runs a benchmark on both, and the next round in the reverse order, so
that what else the machine does meets both alike. Each tree is measured by its own `benchmarks/` where it has
the file, else by those of this checkout, with its own `src` as PYTHONPATH. A first run on each tree does not
count: it makes logs, graphs and bundles, and compiles kernels. `--quick` takes small sizes and one round, to
see whether all runs.

| name | area | what | figures |
|---|---|---|---|
| `graph` | graph | the graph of 1e7 events | processor time |
| `train` | train | steps of `mgoe` and `mgoe-paper` | processor time per example |
| `serve` | serve | `/v1/rank` of 500 candidates, both models | processor time per request |
| `intake` | serve | batches of 1 and 100 events, 1 and 4 clients | processor time per event |
| `recommend` | lists | `/v1/recommend` from 200,000 items | processor time per request |
| `retrieval` | lists | what lists are retrieved from, of 1e6 events | processor time by generator |
| `line` | line | log to bundle and answer, of 3e6 events | processor time by stage |
| `daily` | line | a finished run found, and updates with the last fifth of `--log` | processor time |
| `spark` | spark | the graph of 1e6 events on Spark | processor time |
| `spark-prepare` | spark | 1e6 events prepared on Spark | processor time |
| `predict` | spark | 1e6 pairs scored on Spark, and by one process | processor time |

The three of Spark need Java. Quality is compared by `benchmarks/short.py`. Dated tables alone have: starts,
swaps and exposures of a service, training from shards, other engines, first runs, and fits of top-N
baselines.

Every figure is a processor time, which says more than the clock where other work shares the machine. Threads
sleep while they wait: by default those of OpenMP and OpenBLAS spin, and where other work takes their cores,
they spin for most of the processor time of a command. All run on one core: on two, threads
that wait for each other still made the retrieval stage of equal runs differ by up to 40 %.

One line per figure, `{name, value, unit, against, ratio}`: the median of the new tree, against that of the
old one. The ratio is new over old: above 1 the new tree is slower. The figure `NAME.cpu_s` is the processor
time of the whole command and of what it started; loads of a fixed length have none. At the end comes a table
with a 95 % interval of each ratio, from Student's t over the logarithms of the rounds' ratios, and what only
one of the trees printed. A figure may be slower if its upper end exceeds 1.05. While one may be, and its
interval holds 1, rounds are added, up to twice as many. The exit code is 1 if a figure may be slower.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import psutil
from scipy.stats import t

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.figures import Area
from benchmarks.measure import ROOT, line, use_cores

LIMIT = 1.05
"""Upper end of a ratio's interval up to which the new tree is not slower."""
ROUNDS = 10
ASLEEP = {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0", "OPENBLAS_THREAD_TIMEOUT": "4"}
"""Variables by which threads of GNU's and of LLVM's OpenMP, and of OpenBLAS, sleep while they wait."""


Measured = dict[str, tuple[str, float]]
"""Unit and value of each figure of a run."""


@dataclass(frozen=True)
class Comparison:
    """A benchmark that both trees run.

    Attributes:
        area: Of the tables whose code it runs.
        file: Its script.
        options: Its arguments, besides the folder of its work.
        quick: Those of a small run.
        figures: What counts of the figures that it prints, as a regular expression for whole names.
        reads_log: It takes a log.
        whole: The processor time of the whole command counts: it has a fixed amount of work.
    """

    area: Area
    file: str
    options: Sequence[str]
    quick: Sequence[str]
    figures: str
    reads_log: bool = False
    whole: bool = True


COMPARISONS = {
    "graph": Comparison(
        "graph",
        "graph.py",
        ["--events", "1e7", "--keep"],
        ["--events", "1e6", "--keep"],
        r"graph\.cpu_seconds\.\de\d",
    ),
    "train": Comparison(
        "train",
        "train.py",
        ["--no-peers", "--users", "1e5", "--examples", "500000", "--short", "--rounds", "3", "--keep"],
        ["--no-peers", "--users", "1e4", "--examples", "50000", "--short", "--rounds", "1", "--keep"],
        r"train\.cpu_us\..*",
    ),
    "serve": Comparison(
        "serve",
        "serve.py",
        ["--rank-only", "--users", "100000", "--items", "20000", "--sizes", "100", "--seconds", "5"],
        ["--rank-only", "--users", "10000", "--items", "2000", "--sizes", "100", "--seconds", "1"],
        r"serve\.(default\.)?rank500\.cpu_ms",
        whole=False,
    ),
    "recommend": Comparison(
        "lists",
        "recommend.py",
        ["--only", "service", "--users", "100000", "--items", "200000", "--seconds", "8"],
        ["--only", "service", "--users", "10000", "--items", "20000", "--seconds", "2"],
        r"recommend\.cpu_ms",
        whole=False,
    ),
    "intake": Comparison(
        "serve",
        "intake.py",
        ["--requests", "500", "--seconds", "10"],
        ["--requests", "50", "--seconds", "5", "--users", "2000"],
        r"intake\..*cpu_us",
        whole=False,
    ),
    "retrieval": Comparison(
        "lists",
        "recommend.py",
        ["--only", "build", "--events", "1e6", "--items", "200000"],
        ["--only", "build", "--events", "1e5", "--items", "20000"],
        r"recommend\.build_cpu_seconds\..*",
    ),
    "line": Comparison(
        "line",
        "line.py",
        ["--events", "3e6"],
        ["--events", "1e5"],
        r"line\.cpu_seconds\.((prepare|graph|training|evaluation|retrieval|answer)\.)?\de\d",
    ),
    "daily": Comparison(
        "line", "daily.py", ["examples/tmall.yaml"], ["examples/tmall.yaml"], r"daily\..*", reads_log=True
    ),
    "spark": Comparison(
        "spark",
        "spark.py",
        ["--events", "1e6", "--keep"],
        ["--events", "1e5", "--keep"],
        r"graph\.spark\.cpu_seconds\..*",
    ),
    "spark-prepare": Comparison(
        "spark",
        "spark.py",
        ["--prepare", "--events", "1e6", "--keep"],
        ["--prepare", "--events", "1e5", "--keep"],
        r"prepare\.spark\.cpu_seconds\..*",
    ),
    "predict": Comparison(
        "spark",
        "predict.py",
        ["--pairs", "1e6", "--jobs", "1", "--spark"],
        ["--pairs", "1e5", "--jobs", "1", "--spark", "--users", "10000", "--items", "2000"],
        r"predict\.cpu_seconds\..*",
    ),
}


def main() -> None:
    """Run what is asked for, and print the figures and the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--only", nargs="+", choices=COMPARISONS, help="by default all that need no log")
    parser.add_argument("--area", nargs="+", choices=get_args(Area), help="those of these areas alone")
    parser.add_argument("--log", type=Path, help="Parquet file with the columns of Tmall, for `daily`")
    parser.add_argument("--rounds", type=int, help=f"at least two; {ROUNDS} by default, 2 with --quick")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "alternate", help="kept and used again")
    given = parser.parse_args()
    names = given.only or [
        name
        for name, one in COMPARISONS.items()
        if (given.log or not one.reads_log) and (not given.area or one.area in given.area)
    ]
    trees = {"old": given.old.resolve(), "new": given.new.resolve()}
    table = ["| figure | unit | old | new | new over old | 95 % interval |", "|---|---|---:|---:|---:|---|"]
    slower, rounds = 0, given.rounds or (2 if given.quick else ROUNDS)
    for name in names:
        work, log = given.work.resolve(), given.log and given.log.resolve()
        run = partial(measured, name, work=work, log=log, quick=given.quick)
        for figure, (unit, old, new) in in_turn(name, trees, rounds, run).items():
            if not (old and new):
                print(f"{figure} is not compared: only the {'new' if new else 'old'} tree prints it")
                continue
            before, after = np.median(old), np.median(new)
            low, ratio, high = ratio_of(new, old)
            line(figure, after, unit, before, ratio)
            slower += high > LIMIT
            table.append(
                f"| {figure} | {unit} | {before:.5g} | {after:.5g} | {ratio:.3f} | {low:.3f} to {high:.3f} |"
            )
    print("\n".join(["", *table, "", f"{slower} of {len(table) - 2} figures may be more than 5 % slower"]))
    raise SystemExit(int(slower > 0))  # NumPy's True is no exit code


def ratio_of(above: Sequence[float], below: Sequence[float]) -> tuple[float, float, float]:
    """Return the geometric mean of the rounds' ratios between the ends of its 95 % interval."""
    logs = np.log(above) - np.log(below)
    reach = t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / len(logs) ** 0.5
    return tuple(np.exp(logs.mean() + reach * side) for side in (-1, 0, 1))


def is_open(old: Sequence[float], new: Sequence[float]) -> bool:
    """Return whether a figure may be slower, and may as well be as it was."""
    low, _, high = ratio_of(new, old)
    return low <= 1 and high > LIMIT


def in_turn(
    name: str, trees: Mapping[str, Path], rounds: int, run: Callable[[Path, str], Measured]
) -> dict[str, tuple[str, list[float], list[float]]]:
    """Run one comparison on both trees in turn.

    Args:
        name: Of the comparison.
        trees: The old and the new checkout.
        rounds: How often each tree runs; up to twice as often while a figure `is_open`.
        run: Runs the benchmark on a tree, and returns unit and value of each figure. It receives the tree and
            which of both it is.

    Returns:
        Unit, values of the old and of the new tree by round, per figure in the order in which the benchmark
        prints them. A figure that a tree does not print has no values of it.
    """
    found: dict[str, tuple[str, list[float], list[float]]] = {}
    for number in range(-1, 2 * rounds):
        if number >= rounds and not any(is_open(old, new) for _, old, new in found.values() if old and new):
            break
        for side in list(trees)[:: 1 if number % 2 else -1]:
            figures = run(trees[side], side)
            if number < 0:
                continue
            for figure, (unit, value) in figures.items():
                found.setdefault(figure, (unit, [], []))[1 + (side == "new")].append(value)
            shown = ", ".join(f"{figure} {value:.5g}" for figure, (_, value) in figures.items())
            print(f"{name}, round {number + 1}, {side}: {shown}", file=sys.stderr, flush=True)
    return found


def measured(name: str, tree: Path, side: str, work: Path, log: Path | None, quick: bool) -> Measured:
    """Run a benchmark on a tree.

    Args:
        name: Of the comparison.
        tree: A checkout.
        side: `old` or `new`.
        work: Folder for what the benchmark makes, one per tree.
        log: The log, for comparisons that read one.
        quick: Take small sizes.

    Returns:
        Unit and value of each figure that counts, and the command's processor time.

    Raises:
        RuntimeError: The benchmark failed.
    """
    comparison = COMPARISONS[name]
    home = tree if (tree / "benchmarks" / comparison.file).exists() else ROOT
    work = work / ("quick" if quick else "whole") / name / side
    work.mkdir(parents=True, exist_ok=True)
    logs = [str(log)] if comparison.reads_log else []
    options = [*(comparison.quick if quick else comparison.options), *logs, "--work", str(work)]
    command = [sys.executable, str(home / "benchmarks" / comparison.file), *options]
    environment = os.environ | ASLEEP | {"PYTHONPATH": str(tree / "src")}
    before = children_seconds()
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=False)
    spent = children_seconds() - before
    if done.returncode:
        raise RuntimeError(f"`{' '.join(command)}` ended with {done.returncode}: {done.stderr[-3000:]}")
    figures = {}
    for printed in map(json.loads, filter(lambda row: row.startswith("{"), done.stdout.splitlines())):
        if re.fullmatch(comparison.figures, printed["name"]):
            figures[printed["name"]] = printed["unit"], printed["value"]
    return figures | ({f"{name}.cpu_s": ("s", spent)} if comparison.whole else {})


def children_seconds() -> float:
    """Return the processor time of all processes that this one has started and waited for."""
    used = psutil.Process().cpu_times()
    return used.children_user + used.children_system


if __name__ == "__main__":
    use_cores(1)
    main()
