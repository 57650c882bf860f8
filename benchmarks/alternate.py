"""Two source trees in turn within one run: is the new one slower?

    python benchmarks/alternate.py OLD NEW [--only graph train serve intake] [--rounds 10] [--work FOLDER]
    python benchmarks/alternate.py OLD NEW --area lists line spark
    python benchmarks/alternate.py OLD NEW --only daily --log LOG.parquet
    python benchmarks/alternate.py OLD NEW --quick

OLD and NEW are checkouts. Each round runs a benchmark on both, and the next round in the reverse order, so
that what else the machine does meets both alike. Each tree is measured by its own `benchmarks/` where it has
the file, else by those of this checkout, with its own `src` as PYTHONPATH. A first run on each tree does not
count: it makes logs, graphs and bundles, and compiles kernels. `--quick` takes small sizes and one round, to
see whether all runs.

| name | area | what | figures |
|---|---|---|---|
| `graph` | graph | the graph of 1e7 events | seconds of the command |
| `train` | train | steps of `mgoe` and `mgoe-paper` | samples per second, with feeding and without |
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

One line per figure, `{name, value, unit, against, ratio}`: the median of the new tree, against that of the
old one. The ratio is of times, new over old, also where the figure is a rate: above 1 the new tree is slower.
The figure `NAME.cpu_s` is the processor time of the whole command and of what it started. Processor time says
more than the clock where other work shares the machine. At the end comes a table with a 95 % interval of each
ratio, from Student's t over the logarithms of the rounds' ratios; the exit code is 1 if an upper end exceeds
1.05.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import psutil
from scipy.stats import t

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.figures import Area
from benchmarks.measure import ROOT, line

LIMIT = 1.05
"""Upper end of a ratio's interval up to which the new tree is not slower."""
ROUNDS = 10


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
    """

    area: Area
    file: str
    options: Sequence[str]
    quick: Sequence[str]
    figures: str
    reads_log: bool = False


COMPARISONS = {
    "graph": Comparison(
        "graph",
        "graph.py",
        ["--events", "1e7", "--keep"],
        ["--events", "1e5", "--keep"],
        r"graph\.seconds\.\de\d",
    ),
    "train": Comparison(
        "train",
        "train.py",
        ["--no-peers", "--users", "1e5", "--examples", "500000", "--short", "--rounds", "3", "--keep"],
        ["--no-peers", "--users", "1e4", "--examples", "50000", "--short", "--rounds", "1", "--keep"],
        r"train\.(mgoe|default)_samples_per_s|train\.step_samples_per_s\..*",
    ),
    "serve": Comparison(
        "serve",
        "serve.py",
        ["--rank-only", "--users", "100000", "--items", "20000", "--sizes", "100", "--seconds", "5"],
        ["--rank-only", "--users", "10000", "--items", "2000", "--sizes", "100", "--seconds", "1"],
        r"serve\.(default\.)?rank500\.cpu_ms",
    ),
    "recommend": Comparison(
        "lists",
        "recommend.py",
        ["--only", "service", "--users", "100000", "--items", "200000", "--seconds", "8"],
        ["--only", "service", "--users", "10000", "--items", "20000", "--seconds", "2"],
        r"recommend\.cpu_ms",
    ),
    "intake": Comparison(
        "serve",
        "intake.py",
        ["--requests", "500", "--seconds", "10"],
        ["--requests", "50", "--seconds", "5", "--users", "2000"],
        r"intake\..*cpu_us",
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
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help=f"whose medians count; {ROUNDS} by default"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes and two rounds")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "alternate", help="kept and used again")
    given = parser.parse_args()
    names = given.only or [
        name
        for name, one in COMPARISONS.items()
        if (given.log or not one.reads_log) and (not given.area or one.area in given.area)
    ]
    trees = {"old": given.old.resolve(), "new": given.new.resolve()}
    table = ["| figure | unit | old | new | new over old | 95 % interval |", "|---|---|---:|---:|---:|---|"]
    slower = 0
    for name in names:
        work, log = given.work.resolve(), given.log and given.log.resolve()
        taken = in_turn(name, trees, work, log, 2 if given.quick else given.rounds, given.quick)
        for figure, (unit, old, new) in taken.items():
            before, after = np.median(old), np.median(new)
            low, ratio, high = ratio_of(new, old) if "/s" not in unit else ratio_of(old, new)
            line(figure, after, unit, before, ratio)
            slower += high > LIMIT
            table.append(
                f"| {figure} | {unit} | {before:.5g} | {after:.5g} | {ratio:.3f} | {low:.3f} to {high:.3f} |"
            )
    print("\n".join(["", *table, "", f"{slower} of {len(table) - 2} figures may be more than 5 % slower"]))
    raise SystemExit(slower > 0)


def ratio_of(above: Sequence[float], below: Sequence[float]) -> tuple[float, float, float]:
    """Return the geometric mean of the rounds' ratios between the ends of its 95 % interval."""
    logs = np.log(above) - np.log(below)
    reach = t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / len(logs) ** 0.5
    return tuple(np.exp(logs.mean() + reach * side) for side in (-1, 0, 1))


def in_turn(
    name: str, trees: dict[str, Path], work: Path, log: Path | None, rounds: int, quick: bool
) -> dict[str, tuple[str, list[float], list[float]]]:
    """Run one comparison on both trees in turn.

    Args:
        name: Of the comparison.
        trees: The old and the new checkout.
        work: Folder for what the benchmark makes, one per tree.
        log: The log, for comparisons that read one.
        rounds: How often each tree runs.
        quick: Take small sizes.

    Returns:
        Unit, values of the old and of the new tree by round, per figure in the order in which the benchmark
        prints them.
    """
    values: dict[str, dict[str, list[float]]] = {side: defaultdict(list) for side in trees}
    units: dict[str, str] = {}
    for number in range(-1, rounds):
        for side in list(trees)[:: 1 if number % 2 else -1]:
            folder = work / ("quick" if quick else "whole") / name / side
            figures = measured(name, trees[side], folder, log, quick)
            if number < 0:
                continue
            for figure, (unit, value) in figures.items():
                units[figure] = unit
                values[side][figure].append(value)
            shown = ", ".join(f"{figure} {value:.5g}" for figure, (_, value) in figures.items())
            print(f"{name}, round {number + 1}, {side}: {shown}", file=sys.stderr, flush=True)
    both = [figure for figure in units if all(figure in values[side] for side in trees)]
    return {figure: (units[figure], values["old"][figure], values["new"][figure]) for figure in both}


def measured(
    name: str, tree: Path, work: Path, log: Path | None, quick: bool
) -> dict[str, tuple[str, float]]:
    """Run a benchmark on a tree.

    Returns:
        Unit and value of each figure that counts, and the command's processor time.

    Raises:
        RuntimeError: The benchmark failed.
    """
    comparison = COMPARISONS[name]
    home = tree if (tree / "benchmarks" / comparison.file).exists() else ROOT
    work.mkdir(parents=True, exist_ok=True)
    logs = [str(log)] if comparison.reads_log else []
    options = [*(comparison.quick if quick else comparison.options), *logs, "--work", str(work)]
    command = [sys.executable, str(home / "benchmarks" / comparison.file), *options]
    environment = os.environ | {"PYTHONPATH": str(tree / "src")}
    before = children_seconds()
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=False)
    spent = children_seconds() - before
    if done.returncode:
        raise RuntimeError(f"`{' '.join(command)}` ended with {done.returncode}: {done.stderr[-3000:]}")
    figures = {}
    for printed in map(json.loads, filter(lambda row: row.startswith("{"), done.stdout.splitlines())):
        if re.fullmatch(comparison.figures, printed["name"]):
            figures[printed["name"]] = printed["unit"], printed["value"]
    return figures | {f"{name}.cpu_s": ("s", spent)}


def children_seconds() -> float:
    """Return the processor time of all processes that this one has started and waited for."""
    used = psutil.Process().cpu_times()
    return used.children_user + used.children_system


if __name__ == "__main__":
    main()
