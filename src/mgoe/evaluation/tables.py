"""Tables of models: their metrics on a split, and their standings in a comparison.

All are plain cells, written alike to the terminal and as Markdown, LaTeX and HTML.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import rich.table
from rich.text import Text

from mgoe.config import BOUNDS
from mgoe.evaluation.intervals import Estimate
from mgoe.evaluation.pareto import COSTS, Point, pareto
from mgoe.evaluation.rows import (
    ALL,
    UNIFORM,
    Row,
    best,
    distance,
    head,
    headline,
    main_columns,
    show,
    summarize,
)
from mgoe.evaluation.standings import (
    Cost,
    Standings,
    is_significant,
    leaders,
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
_ESCAPES = str.maketrans(
    {c: rf"\{c}" for c in "&%$#_{}"}
    | {"±": r"$\pm$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
)


@dataclass(frozen=True)
class Cell:
    """A cell of a table, `strong` if it stands out, and a small note beside it."""

    text: str
    strong: bool = False
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table of plain cells.

    Attributes:
        columns: Their names; the first column names the lines.
        lines: The name and the other cells of each line.
        groups: Titles over several columns, with the number of columns each spans.
        strong: Name of the line that stands out.
    """

    columns: Sequence[str]
    lines: Sequence[tuple[str, Sequence[Cell]]]
    groups: Sequence[tuple[str, int]] = ()
    strong: str = ""


def metrics_table(rows: Iterable[Row], split: str = "test", slice: str = ALL) -> Table:
    """Return the main metrics of each model, one line per model; the best of each column is strong."""
    summaries = summarize(rows, split, slice)
    leaders = {column: best(summaries, column) for column in main_columns(summaries)}
    lines = [
        (model, [Cell(show(found.get(column)), model in leaders[column]) for column in leaders])
        for model, found in summaries.items()
    ]
    return Table(["model", *map(head, leaders)], lines)


def markdown_table(rows: Iterable[Row]) -> str:
    """Return the main metrics on the test split as Markdown, one line per model, the best of each column in
    bold.

    Example:
        >>> print(markdown_table(rows).splitlines()[0])
        | model | click AUC | click GAUC | buy AUC | buy GAUC | mean |
    """
    return as_markdown(metrics_table(rows))


def rich_table(
    rows: Iterable[Row], split: str = "test", slice: str = ALL, name: str | None = None
) -> rich.table.Table:
    """Return the same table for the terminal, for any split and slice.

    Example:
        >>> rich_table(rows, split="valid").row_count
        2
    """
    found = metrics_table(rows, split, slice)
    table = rich.table.Table(title=name, box=None, header_style="bold", title_justify="left", pad_edge=False)
    table.add_column("model", no_wrap=True)
    for position, column in enumerate(found.columns[1:]):
        widest = max((len(cells[position].text) for _, cells in found.lines), default=0)
        table.add_column(column, justify="right", min_width=widest)  # a heading may wrap, a number may not
    for model, cells in found.lines:
        table.add_row(model, *(Text(cell.text, "bold green") if cell.strong else cell.text for cell in cells))
    return table


def as_markdown(table: Table) -> str:
    """Return a table as Markdown, strong cells in bold."""
    lines = [
        table.columns,
        ["---", *["---:"] * (len(table.columns) - 1)],
        *(
            [name, *(f"**{cell.text}**" if cell.strong else cell.text for cell in cells)]
            for name, cells in table.lines
        ),
    ]
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)


def as_latex(table: Table, caption: str, notes: Sequence[str]) -> str:
    """Return a table as LaTeX for `booktabs`, strong cells in bold, with notes below it."""
    lines = [
        list(map(_escaped, table.columns)),
        *(
            [
                _escaped(name),
                *(
                    rf"\textbf{{{_escaped(cell.text)}}}" if cell.strong else _escaped(cell.text)
                    for cell in cells
                ),
            ]
            for name, cells in table.lines
        ),
    ]
    head, *body = [" & ".join(line) + r" \\" for line in lines]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_escaped(caption)}}}",
            r"\footnotesize",
            rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
            *("\\toprule", head, "\\midrule", *body, "\\bottomrule"),
            r"\end{tabular}",
            *(rf"\par {_escaped(note)}" for note in notes),
            r"\end{table}",
            "",
        ]
    )


def _escaped(text: str) -> str:
    return text.translate(_ESCAPES)


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
        values = [
            Cell(show(summaries.get(model, {}).get(column)), model in strong[column]) for column in strong
        ]
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
                Cell(show(summaries[model][column])),
                *(
                    Cell(_cost(standings, model, cost), (model, cost) in strong)
                    for cost in ("parameters", "cpu_seconds", "serving_ms")
                ),
            ],
        )
        for model in sorted(known, key=lambda model: distance(column[1], known[model].quality))
    ]
    heads = (COST_HEADS[cost] for cost in ("parameters", "cpu_seconds", "serving_ms"))
    return Table(["quality against cost", head(column), *heads], lines)


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
            [Cell(show(found.get(column))) for column in columns]
            + [Cell(f"{reach[model]:.1%}" if model in reach else "-")] * bool(reach),
        )
        for model, found in summaries.items()
    ]
    heads = ["on uniformly shown rows", *map(head, columns), *(["reachable gain"] if reach else [])]
    return Table(heads, lines)


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
            lines.append((baseline, [*(_lead(leads.get(c)) for c in columns), *map(Cell, texts)]))
    return (
        Table(
            [f"{standings.reference} minus", *map(head, columns), f"p of {head(chief)}, adjusted", "seeds"],
            lines,
        )
        if lines
        else None
    )


def _lead(lead: Estimate | None) -> Cell:
    if lead is None or math.isnan(lead.value):
        return Cell("-")
    interval = "" if math.isnan(lead.low) else f" [{lead.low:+.{lead.digits}f}, {lead.high:+.{lead.digits}f}]"
    return Cell(f"{lead.value:+.{lead.digits}f}{interval}", is_significant(lead))


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
        title = ": ".join(filter(None, (one.question, one.log)))
        parts += [
            *(f"## {text}\n" for text in [title] if text),
            *(f"> {notice}\n" for notice in one.notices),
            *(f"{text}\n" for text in [verdict(one)] if text),
            *(as_markdown(table) for table in tables_of(one)),
            *(f"- {line}\n" for line in one.remarks),
        ]
    return "\n".join(parts)


def latex(standings: Sequence[Standings]) -> str:
    """Return all tables as LaTeX, for `booktabs`.

    Example:
        >>> from mgoe.evaluation import Standings
        >>> one = Standings("All models", "mine", "mgoe", ["mgoe", "shared-bottom"], rows)
        >>> latex([one]).splitlines()[0]
        '\\\\begin{table}'
    """
    parts = []
    for one in standings:
        title = ": ".join(text for text in (one.question, one.log) if text)
        parts.append(as_latex(quality(one), title, [note for note in (verdict(one), *one.remarks) if note]))
        if (compared := differences(one)) is not None:
            title += f". {one.reference} minus each baseline, 95 % intervals"
            parts.append(as_latex(compared, title, []))
        if (costs := tradeoff(one)) is not None:
            parts.append(as_latex(costs, f"{one.question}: {one.log}. Quality against cost", []))
        if (random := shown_uniformly(one)) is not None:
            parts.append(as_latex(random, f"{one.question}: {one.log}. Uniformly shown rows", []))
    return "\n".join(parts)
