"""The figures of a comparison: what `mgoe compare` measures, as the lines that tables are written from.

    python benchmarks/compared.py CONFIG [--set KEY=VALUE ...] [--models NAME,...] [--seeds 0,1]
        [--logs NAME,...] [--figures mean,...] [--as PREFIX] [--work FOLDER]

CONFIG and the options before `--figures` are those of `mgoe compare`. The comparison is computed in a
temporary folder, so that every figure is of the code that prints it. With `--work` it is computed in that
folder, stays there, and the same command resumes it; give a new folder when the code has changed.

One line per figure, `{name, value, unit, against, ratio}`, for the test rows, as means over seeds:

- `LOG.MODEL.FIGURE`: `mean` of AUC and GAUC over tasks; `auc` and `gauc`, means over tasks; `TASK.auc` and
  `TASK.gauc`; `ndcg@10` and others of lists; with the name of a slice before it, such as
  `unseen-items.auc`, of the rows of that slice. `--figures` names what is printed, by default
  `mean,ndcg@10,hr@10`.
- `LOG.MODEL.FIGURE.lead`: by how much the reference is ahead of the model; `.lead.low` and `.lead.high`, its
  95 % interval over users and seeds.
- `LOG.MODEL.parameters` in thousands, `LOG.MODEL.cpu_seconds` of a training, and `LOG.MODEL.serving_ms`,
  milliseconds of one core per 500 candidates.
- `LOG.MODEL.lists_cpu_seconds`: processor seconds of the lists of all users.

`--as` begins every name with `PREFIX.`, for files whose commands compare the same models on the same logs.
"""

import argparse
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import line, use_cores
from mgoe._util.files import read_json
from mgoe.config import load_comparison
from mgoe.evaluation import Standings
from mgoe.evaluation.rows import ALL, MEAN
from mgoe.experiments import ComparisonResult, compare

FIGURES = ("mean", "ndcg@10", "hr@10")
COSTS = {"parameters": ("thousands", 1e3), "cpu_seconds": ("s", 1.0), "serving_ms": ("ms", 1.0)}
Figure = tuple[str, float, str]
"""Name, value and unit."""


def figure_of(task: str, metric: str, part: str = ALL) -> str:
    """Return the name of a metric in a slice of the rows."""
    name = "mean" if (task, metric) == MEAN else metric if task == ALL else f"{task}.{metric}"
    return name if part == ALL else f"{part}.{name}"


def figures_of(standings: Standings, wanted: Sequence[str]) -> Iterator[Figure]:
    """Yield the figures of a table."""
    found: dict[str, list[float]] = {}
    for row in standings.rows:
        figure = figure_of(row["task"], row["metric"], row["slice"])
        if row["split"] == "test" and figure in wanted:
            found.setdefault(f"{row['model']}.{figure}", []).append(row["value"])
    for name, values in found.items():
        yield name, fmean(values), "share"
    for lead in standings.leads:
        figure = figure_of(lead.task, lead.metric)
        if figure in wanted:
            name = f"{lead.baseline}.{figure}.lead"
            yield from ((name, lead.value, "share"), (f"{name}.low", lead.low, "share"))
            yield f"{name}.high", lead.high, "share"
    for model, cost in standings.costs.items():
        yield from (
            (f"{model}.{what}", getattr(cost, what) / scale, unit) for what, (unit, scale) in COSTS.items()
        )


def figures(result: ComparisonResult, wanted: Sequence[str]) -> Iterator[Figure]:
    """Yield the figures of a comparison, each once: a model's cells come before its lists, and these before
    what is said of samples of them."""
    printed = set[str]()
    for standings in result.standings:
        for what, value, unit in figures_of(standings, wanted):
            name = f"{standings.log}.{what}"
            if math.isfinite(value) and name not in printed:
                printed.add(name)
                yield name, value, unit
    spent: dict[str, list[float]] = {}
    for file in sorted(result.path.glob("logs/*/topn/*/*/fit.json")):
        log, _, model = file.relative_to(result.path / "logs").parts[:3]
        if "lists_cpu_seconds" in (fit := read_json(file)):
            spent.setdefault(f"{log}.{model}.lists_cpu_seconds", []).append(fit["lists_cpu_seconds"])
    yield from ((name, fmean(seconds), "s") for name, seconds in spent.items())


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what a command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[])
    for name in ("--models", "--logs"):
        parser.add_argument(name, type=lambda text: text.split(","))
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")])
    parser.add_argument("--figures", type=lambda text: text.split(","), default=FIGURES)
    parser.add_argument("--as", dest="prefix", default="")
    parser.add_argument("--work", type=Path)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, and print."""
    given = parse(arguments)
    settings = load_comparison(given.config, given.set)
    with nullcontext(given.work) if given.work else tempfile.TemporaryDirectory() as folder:
        result = compare(settings, folder, models=given.models, seeds=given.seeds, logs=given.logs)
        if result.failed:
            sys.exit(f"{given.config}: {'; '.join(result.failed.values())}")
        for name, value, unit in figures(result, given.figures):
            line(f"{given.prefix}.{name}".removeprefix("."), value, unit)


if __name__ == "__main__":
    use_cores()
    main()
