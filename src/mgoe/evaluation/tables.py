"""Tables of models: their metrics on a split, and their standings in a comparison.

All are plain cells, written alike to the terminal and as Markdown and HTML.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import rich.table
from rich.text import Text

from mgoe.config import BOUNDS
from mgoe.evaluation.intervals import Estimate
from mgoe.evaluation.rows import (
    ALL,
    UNIFORM,
    Column,
    Row,
    Summaries,
    Summary,
    best,
    distance,
    head,
    headline,
    main_columns,
    summarize,
)
from mgoe.evaluation.standings import (
    COSTS,
    Cost,
    Point,
    Standings,
    is_significant,
    leaders,
    pareto,
    reachable_shares,
    verdict,
)

COST_HEADS = {
    "parameters": "parameters",
    "training_seconds": "training s",
    "cpu_seconds": "CPU s",
    "scored_per_second": "scored/s",
    "serving_ms": "ms per 500",
}
"""Columns of costs, by attributes of `Cost`."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table, `strong` if it stands out, and a small note beside it."""

    text: str
    strong: bool = False
    note: str = ""

    @property
    def words(self) -> str:
        """The text and its note."""
        return f"{self.text} {self.note}" if self.note else self.text


@dataclass(frozen=True)
class Table:
    """A table of plain cells.

    Attributes:
        columns: Their names; the first column names the lines.
        lines: The name and the other cells of each line.
        title: What it shows, where it is not the first table of a page.
    """

    columns: Sequence[str]
    lines: Sequence[tuple[str, Sequence[Cell]]]
    title: str = ""


def number(summary: Summary | None, strong: bool = False, interval: Estimate | None = None) -> Cell:
    """Return a mean, with half of its interval or else its spread over seeds; `-` if it does not exist."""
    if summary is None or math.isnan(summary.mean):
        return Cell("-")
    half = math.nan if interval is None else (interval.high - interval.low) / 2
    spread = summary.std if math.isnan(half) else half
    note = "" if math.isnan(spread) else f"±{spread:.{summary.digits}f}"
    return Cell(f"{summary.mean:.{summary.digits}f}", strong, note)


def metrics_table(
    summaries: Summaries, columns: Sequence[Column], intervals: Iterable[Estimate] = ()
) -> Table:
    """Return metrics of each model, one line per model; the best of each column is strong.

    Args:
        summaries: By model.
        columns: The metrics.
        intervals: Those that are known.
    """
    known = {(one.model, one.task, one.metric): one for one in intervals}
    leaders = {column: best(summaries, column) for column in columns}
    lines = [
        (model, [number(found.get(c), model in leaders[c], known.get((model, *c))) for c in columns])
        for model, found in summaries.items()
    ]
    return Table(["model", *map(head, columns)], lines)


def markdown_table(rows: Iterable[Row]) -> str:
    """Return the main metrics on the test split as Markdown, one line per model, the best of each column in
    bold.

    Example:
        >>> print(markdown_table(rows).splitlines()[0])
        | model | click AUC | click GAUC | buy AUC | buy GAUC | mean |
    """
    summaries = summarize(rows)
    return as_markdown(metrics_table(summaries, main_columns(summaries)))


def rich_table(
    rows: Iterable[Row], split: str = "test", slice: str = ALL, name: str | None = None
) -> rich.table.Table:
    """Return the same table for the terminal, for any split and slice.

    Example:
        >>> rich_table(rows, split="valid").row_count
        2
    """
    summaries = summarize(rows, split, slice)
    found = metrics_table(summaries, main_columns(summaries))
    table = rich.table.Table(title=name, box=None, header_style="bold", title_justify="left", pad_edge=False)
    table.add_column("model", no_wrap=True)
    for position, column in enumerate(found.columns[1:]):
        widest = max((len(cells[position].words) for _, cells in found.lines), default=0)
        table.add_column(column, justify="right", min_width=widest)  # a heading may wrap, a number may not
    for model, cells in found.lines:
        table.add_row(
            model, *(Text(cell.words, "bold green") if cell.strong else cell.words for cell in cells)
        )
    return table


def as_markdown(table: Table) -> str:
    """Return a table as Markdown, strong cells in bold."""
    lines = [
        table.columns,
        ["---", *["---:"] * (len(table.columns) - 1)],
        *(
            [name, *(f"**{cell.words}**" if cell.strong else cell.words for cell in cells)]
            for name, cells in table.lines
        ),
    ]
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)


def quality(standings: Standings) -> Table:
    """Return one line per model: every main metric, the share of the reachable gain if it is known, and
    costs.

    The best of a column is strong, see `leaders`. A cost that is known of no model is left out.
    """
    summaries = summarize(standings.rows)
    reach, of_best = _reached(standings)
    strong = leaders(standings, main_columns(summaries))
    known = standings.costs.values()
    costs = [name for name in COST_HEADS if any(math.isfinite(getattr(cost, name)) for cost in known)]
    lines = []
    for model in [*standings.models, *(bound for bound in BOUNDS if bound in summaries)]:
        seeds = {row["seed"] for row in standings.rows if row["model"] == model}
        texts = [
            *([reach.get(model, "-")] if reach else []),
            *(_cost(standings, model, name) for name in costs),
            str(len(seeds)) if model in standings.models else "-",
        ]
        found = summaries.get(model, {})
        values = [number(found.get(column), model in strong[column]) for column in strong]
        lines.append((model, [*values, *map(Cell, texts)]))
    return Table(
        [
            "model",
            *map(head, strong),
            *([of_best] if reach else []),
            *(COST_HEADS[name] for name in costs),
            "seeds",
        ],
        lines,
    )


def _reached(standings: Standings) -> tuple[dict[str, str], str]:
    """Return how much of the best reachable result each model reaches, and the title of this column."""
    if not standings.reached:
        return {m: f"{share:.1%}" for m, share in reachable_shares(standings.rows).items()}, "reachable gain"
    of = next(iter(standings.reached.values()))
    texts = {
        model: f"{one.value:.1%}" + ("" if math.isnan(one.low) else f" [{one.low:.1%}, {one.high:.1%}]")
        for model, one in standings.reached.items()
        if not math.isnan(one.value)
    }
    return texts, f"share of reachable {head((of.task, of.metric))}"


def tradeoff(standings: Standings) -> Table | None:
    """Return quality against cost, one line per model, the best first.

    A cost is strong if no other model is at least as good for at most this cost. None unless the time of
    serving is known of two models.
    """
    fronts = {cost: pareto(standings, cost) for cost in COSTS}
    if len(fronts["serving_ms"]) < 2:
        return None
    summaries = summarize(standings.rows)
    column = headline(summaries)
    known: dict[str, Point] = {point.model: point for front in fronts.values() for point in front}
    strong = {(point.model, cost) for cost, front in fronts.items() for point in front if point.on_front}
    lines = [
        (
            model,
            [
                number(summaries[model][column]),
                *(
                    Cell(_cost(standings, model, cost), (model, cost) in strong)
                    for cost in ("parameters", "cpu_seconds", "serving_ms")
                ),
            ],
        )
        for model in sorted(known, key=lambda model: distance(column[1], known[model].quality))
    ]
    heads = (COST_HEADS[cost] for cost in ("parameters", "cpu_seconds", "serving_ms"))
    return Table(["quality against cost", head(column), *heads], lines, "Quality against cost")


def _cost(standings: Standings, model: str, name: str) -> str:
    cost = getattr(standings.costs.get(model, Cost()), name)
    if math.isnan(cost):
        return "-"
    return f"{cost:,.2f}" if name == "serving_ms" else f"{cost:,.0f}"


def shown_uniformly(standings: Standings) -> Table | None:
    """Return one line per model: its main metrics on test rows that were shown uniformly at random, and the
    share of the reachable gain there if it is known. None if no model was measured on such rows.
    """
    summaries = summarize(standings.rows, slice=UNIFORM)
    if summaries.keys() <= set(BOUNDS):
        return None
    reach, columns = reachable_shares(standings.rows, UNIFORM), main_columns(summaries)
    lines = [
        (
            model,
            [number(found.get(column)) for column in columns]
            + [Cell(f"{reach[model]:.1%}" if model in reach else "-")] * bool(reach),
        )
        for model, found in summaries.items()
    ]
    heads = ["on uniformly shown rows", *map(head, columns), *(["reachable gain"] if reach else [])]
    return Table(heads, lines, "Uniformly shown rows")


def differences(standings: Standings) -> Table | None:
    """Return one line per baseline: the lead over it with its interval in every main metric.

    A lead is strong if it is significant after Holm's correction. The last column counts the shared seeds.
    None without baselines.
    """
    summaries = summarize(standings.rows)
    chief = headline(summaries)
    columns = [
        column
        for column in main_columns(summaries)
        if any((lead.task, lead.metric) == column for lead in standings.leads)
    ]
    lines = []
    for baseline in standings.models:
        if leads := {(e.task, e.metric): e for e in standings.leads if e.baseline == baseline}:
            adjusted = leads[chief].adjusted if chief in leads else math.nan
            texts = (
                "-" if math.isnan(adjusted) else f"{adjusted:.4f}",
                str(max(len(lead.by_seed) for lead in leads.values())),
            )
            lines.append((baseline, [*(difference(leads.get(c)) for c in columns), *map(Cell, texts)]))
    heads = [f"{standings.reference} minus", *map(head, columns), f"p of {head(chief)}, adjusted", "seeds"]
    title = f"{standings.reference} minus each baseline, 95 % intervals"
    return Table(heads, lines, title) if lines else None


def difference(lead: Estimate | None) -> Cell:
    """Return a lead with its interval, strong if it is significant; `-` if it does not exist."""
    if lead is None or math.isnan(lead.value):
        return Cell("-")
    interval = "" if math.isnan(lead.low) else f"[{lead.low:+.{lead.digits}f}, {lead.high:+.{lead.digits}f}]"
    return Cell(f"{lead.value:+.{lead.digits}f}", is_significant(lead), interval)


def tables_of(standings: Standings) -> list[Table]:
    """Return the tables of a question, without those that have nothing to show."""
    tables = quality(standings), differences(standings), tradeoff(standings), shown_uniformly(standings)
    return [table for table in tables if table is not None]


def markdown(standings: Sequence[Standings]) -> str:
    """Return all tables as Markdown.

    Example:
        >>> from mgoe.evaluation import Standings
        >>> one = Standings("All models", "mine", "mgoe", ["mgoe", "shared-bottom"], rows)
        >>> print(markdown([one]).splitlines()[0])
        ## All models: mine
    """
    parts = []
    for one in standings:
        parts += [
            *(f"## {text}\n" for text in [one.title] if text),
            *(f"{text}\n" for text in [one.served] if text),
            *(f"> {notice}\n" for notice in one.notices),
            *(f"{text}\n" for text in [verdict(one)] if text),
            *(as_markdown(table) for table in tables_of(one)),
            *(f"- {line}\n" for line in one.remarks),
        ]
    return "\n".join(parts)
