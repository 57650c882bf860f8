"""Quality against cost, from the lines of finished comparisons: the table and the plot of docs/benchmarks.md.

    python benchmarks/cost.py examples/arena-tmall.yaml benchmarks/results/arena-tmall --log tmall \\
        [--table cost] [--models NAME ...] [--image docs/images/cost-tmall.svg]

Reads every `*.jsonl` of the folder, the latest line of each cell, and prints the table `cost` of the arena as
Markdown, the best model first: the mean of AUC and GAUC over tasks on test, and what a model costs. A cost is
bold if no other model is at least as good for at most this cost. Models without a line are left out.
`--image` draws quality against milliseconds per 500 candidates and against processor seconds of training; it
needs the extra `plot`.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from mgoe._util.plotting import pyplot
from mgoe.config import load_comparison
from mgoe.evaluation import Row, Standings
from mgoe.evaluation.tables import as_markdown, tradeoff
from mgoe.experiments import records
from mgoe.experiments.plots import ResultPlots

MEAN = "test.all.ranking"


def standings_of(lines: Sequence[records.Line], models: Sequence[str], log: str, title: str) -> Standings:
    """Return the table of some models on a log. The first model is the reference."""
    latest = {records.key_of(line): line for line in sorted(lines, key=lambda line: str(line.get("at")))}
    of = {
        model: [
            line
            for key, line in latest.items()
            if key[:2] == (log, model) and line["state"] == "finished" and line.get(MEAN) is not None
        ]
        for model in models
    }
    known = [model for model in models if of[model]]
    rows = [
        Row(
            model=model,
            seed=line["seed"],
            split="test",
            slice="all",
            task="all",
            metric="ranking",
            value=line[MEAN],
        )
        for model in known
        for line in of[model]
    ]
    return Standings(
        title, log, models[0], known, rows, costs={model: records.cost_of(of[model]) for model in known}
    )


def read(folder: Path) -> Iterator[records.Line]:
    """Yield the lines of every file."""
    for file in sorted(folder.glob("*.jsonl")):
        yield from records.read(file)


def main() -> None:
    """Print the table, and draw it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("arena", type=Path, help="the YAML file of the comparison")
    parser.add_argument("results", type=Path, help="folder of its lines")
    parser.add_argument("--log", required=True)
    parser.add_argument("--table", default="cost")
    parser.add_argument(
        "--models", nargs="+", help="these models, the reference first, in place of the table's"
    )
    parser.add_argument("--image", type=Path)
    given = parser.parse_args()
    arena = load_comparison(given.arena)
    if given.table not in arena.all_tables:
        sys.exit(f"--table: {given.arena} has {', '.join(arena.all_tables)}, found {given.table!r}")
    table = arena.all_tables[given.table]
    reference = table.reference or arena.lead
    models = given.models or list(dict.fromkeys([reference, *table.models]))
    one = standings_of([*read(given.results)], models, given.log, table.title)
    if (sheet := tradeoff(one)) is None:
        sys.exit(f"{given.results}: fewer than two of the models have a time of serving on {given.log}")
    print(as_markdown(sheet), end="")
    if given.image:
        figure, axes = pyplot().subplots(1, 2, figsize=(11, 4.5), sharey=True, layout="constrained")
        for by, ax in zip(("serving", "training"), axes, strict=True):
            ResultPlots([one]).cost(by, ax=ax)
        axes[1].set_ylabel("")
        figure.savefig(given.image)


if __name__ == "__main__":
    main()
