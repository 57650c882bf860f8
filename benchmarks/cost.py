"""Quality against cost, from the lines of finished comparisons: the table and the plot of docs/benchmarks.md.

    python benchmarks/cost.py examples/arena-tmall.yaml benchmarks/results/arena-tmall --log tmall \\
        [--table cost] [--models NAME ...] [--image docs/images/cost-tmall.svg]

Reads every `*.jsonl` of the folder, the latest line of each cell, and prints the table `cost` of the arena as
Markdown, the best model first: the mean of AUC and GAUC over tasks on test, and what a model costs. A cost is
bold if no other model is at least as good for at most this cost. Models without a line are left out.
`--image` draws quality against milliseconds per 500 candidates and against processor seconds of training; it
needs matplotlib.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgoe.config import load_comparison
from mgoe.evaluation import Row, Standings
from mgoe.evaluation.pareto import COSTS
from mgoe.evaluation.report.charts import Chart, Side
from mgoe.evaluation.report.cost_chart import cost_chart
from mgoe.evaluation.tables import as_markdown, tradeoff
from mgoe.experiments import records

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEAN = "test.all.ranking"
OFFSETS: dict[Side, tuple[tuple[float, float], dict[str, Any]]] = {
    "right": ((6, 0), {"ha": "left", "va": "center"}),
    "left": ((-6, 0), {"ha": "right", "va": "center"}),
    "above": ((0, 5), {"ha": "center", "va": "bottom"}),
    "below": ((0, -5), {"ha": "center", "va": "top"}),
}
"""Offset of a name from its point, in points of type, and how it is aligned."""


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


def draw(chart: Chart, ax: "Axes") -> None:
    """Draw a chart in some Axes of matplotlib."""
    for name, axis in (("x", chart.x), ("y", chart.y)):
        scale = "log" if axis.log else "linear"
        ax.set(**{f"{name}scale": scale, f"{name}lim": (axis.low, axis.high), f"{name}label": axis.title})
        side = getattr(ax, f"{name}axis")
        side.set_ticks([], minor=True)
        side.set_ticks([*axis.ticks()], [*axis.ticks().values()])
    for line in chart.lines:
        ax.plot(*zip(*line.points, strict=True), "--", color="gray", linewidth=1)
    for dot in reversed(chart.dots):
        color = f"C{dot.color - 1}" if dot.color else "0.35"
        face = color if dot.full else "white"
        marker = "o" if not dot.beyond else "^" if dot.y == chart.y.high else "v"
        ax.plot(dot.x, dot.y, marker, color=color, markerfacecolor=face, markersize=5, clip_on=False)
        if dot.side:
            offset, align = OFFSETS[dot.side]
            ax.annotate(dot.name, (dot.x, dot.y), offset, textcoords="offset points", fontsize=8, **align)


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
        from matplotlib import pyplot  # late: not everybody draws

        figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.5), sharey=True, layout="constrained")
        for cost, ax in zip(COSTS, axes, strict=True):
            if chart := cost_chart(one, cost):
                draw(chart, ax)
        axes[1].set_ylabel("")
        figure.savefig(given.image)


if __name__ == "__main__":
    main()
