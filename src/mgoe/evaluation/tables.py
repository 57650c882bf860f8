"""Tables of models: their metrics on a split, and their standings in a comparison with a verdict.

All are plain cells, written alike to the terminal and as Markdown, LaTeX and HTML.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from statistics import fmean

import rich.table
from rich.text import Text

from mgoe.config import BOUNDS
from mgoe.evaluation.intervals import Estimate, fully_paired
from mgoe.evaluation.rows import (
    ALL,
    LOWER,
    MEAN,
    UNIFORM,
    Column,
    Row,
    Summary,
    best,
    by_seed,
    head,
    headline,
    main_columns,
    show,
    summarize,
)

SIGNIFICANT = 0.05
REACHABLE = "best-reachable"
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
    """
    return as_markdown(metrics_table(rows))


def rich_table(
    rows: Iterable[Row], split: str = "test", slice: str = ALL, name: str | None = None
) -> rich.table.Table:
    """Return the same table for the terminal, for any split and slice."""
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


@dataclass(frozen=True)
class Cost:
    """What a model costs, as means over its finished cells; NaN where they do not record it.

    Attributes:
        parameters: Number of learned parameters.
        training_seconds: Elapsed time, which includes waiting for other work on the machine.
        cpu_seconds: Processor time of training, without that of a GPU.
        scored_per_second: Rows.
    """

    parameters: float = math.nan
    training_seconds: float = math.nan
    cpu_seconds: float = math.nan
    scored_per_second: float = math.nan


@dataclass(frozen=True)
class Standings:
    """One table on one log.

    Attributes:
        question: What the table asks.
        log: Name of the log.
        reference: The model that the others are compared with.
        models: In order.
        rows: Metrics of the models, and of the bounds of a simulated log.
        leads: Of the reference over each other model.
        costs: By model.
        missing: Why cells of a model are absent: failed, or not run yet.
        notes: Further remarks.
    """

    question: str
    log: str
    reference: str
    models: Sequence[str]
    rows: Sequence[Row]
    leads: Sequence[Estimate] = ()
    costs: Mapping[str, Cost] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def remarks(self) -> list[str]:
        """Sentences below the tables; models with the same reason for missing cells share one."""
        return [
            *(
                f"{', '.join(model for model, other in self.missing.items() if other == reason)}: {reason}"
                for reason in dict.fromkeys(self.missing.values())
            ),
            *self.notes,
        ]


def verdict(standings: Standings) -> str:
    """Say where the reference stands among the baselines that share as many seeds with it as any; nothing if
    there are none.
    """
    column = headline(summarize(standings.rows))
    present, judged = (
        [lead for lead in leads if (lead.task, lead.metric) == column and math.isfinite(lead.value)]
        for leads in (standings.leads, fully_paired(standings.leads))
    )
    if not judged:
        return ""
    sign, good, bad = (-1, "below", "above") if LOWER.fullmatch(column[1]) else (1, "above", "below")
    ahead = [lead for lead in judged if min(sign * lead.low, sign * lead.high) > 0]
    behind = [lead for lead in judged if max(sign * lead.low, sign * lead.high) < 0]
    place = sum(sign * lead.value < 0 for lead in judged) + 1
    fewer = len(present) - len(judged)
    return " ".join(
        text
        for text in (
            "On the mean," if column == MEAN else f"In {head(column)},",
            f"{standings.reference} is {'first' if place == 1 else f'number {place}'} of {len(judged) + 1}.",
            f"Its interval is {good} zero against {len(ahead)} of {len(judged)}",
            f"({sum(map(is_significant, ahead))} after Holm's correction), {bad} zero against {len(behind)}.",
            "With one seed intervals are over users alone." if len(judged[0].by_seed) == 1 else "",
            f"Not counted: {fewer} that share{'s' * (fewer == 1)} fewer seeds with it." if fewer else "",
        )
        if text
    )


def is_significant(lead: Estimate) -> bool:
    """Return whether a difference in either direction excludes zero, after Holm's correction too."""
    return (lead.low > 0 or lead.high < 0) and lead.adjusted < SIGNIFICANT


def reachable_shares(rows: Sequence[Row], slice: str = ALL) -> dict[str, float]:
    """Return the share of the reachable gain, (mean - .5) / (best - .5), by model; empty if the best is
    unknown.
    """
    means = {
        model: found[MEAN].mean for model, found in summarize(rows, slice=slice).items() if MEAN in found
    }
    best_value = means.pop(REACHABLE, math.nan)
    return {
        model: (mean - 0.5) / (best_value - 0.5)
        for model, mean in means.items()
        if best_value > 0.5 and model not in BOUNDS and not math.isnan(mean)  # not true for NaN
    }


def leaders(standings: Standings, columns: Sequence[Column]) -> dict[Column, set[str]]:
    """Return the best models of each column among the reference and the fully paired baselines, on shared
    seeds.
    """
    values, reference = by_seed(standings.rows), standings.reference
    baselines = dict.fromkeys(
        lead.baseline for lead in fully_paired(standings.leads) if lead.baseline is not None
    )
    found = {}
    for column in columns:
        of = {model: values.get(model, {}).get(column, {}) for model in (reference, *baselines)}
        shared = {
            name: seeds for name in baselines if (seeds := sorted(of[reference].keys() & of[name].keys()))
        }
        own = fmean(of[reference][seed] for seed in set().union(*shared.values())) if shared else math.nan
        means = {reference: own} | {
            name: own + fmean(of[name][seed] - of[reference][seed] for seed in seeds)
            for name, seeds in shared.items()
        }
        found[column] = best(
            {model: {column: Summary(mean, math.nan, 1)} for model, mean in means.items()}, column
        )
    return found


def quality(standings: Standings) -> Table:
    """Return one line per model: every main metric, the share of the reachable gain if it is known, and
    costs.

    The best of a column is strong, see `leaders`.
    """
    summaries = summarize(standings.rows)
    reach = reachable_shares(standings.rows)
    strong = leaders(standings, main_columns(summaries))
    lines = []
    for model in [*standings.models, *(bound for bound in BOUNDS if bound in summaries)]:
        seeds = {row["seed"] for row in standings.rows if row["model"] == model}
        texts = [
            *([f"{reach[model]:.1%}" if model in reach else "-"] if reach else []),
            *(
                "-" if math.isnan(cost) else f"{cost:,.0f}"
                for cost in astuple(standings.costs.get(model, Cost()))
            ),
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
            *(["reachable gain"] if reach else []),
            *("parameters", "training s", "CPU s", "scored/s", "seeds"),
        ],
        lines,
    )


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
    interval = "" if math.isnan(lead.low) else f" [{lead.low:+.4f}, {lead.high:+.4f}]"
    return Cell(f"{lead.value:+.4f}{interval}", is_significant(lead))


def markdown(standings: Sequence[Standings]) -> str:
    """Return all tables as Markdown."""
    parts = []
    for one in standings:
        title = ": ".join(filter(None, (one.question, one.log)))
        parts += [
            *(f"## {text}\n" for text in [title] if text),
            *(f"{text}\n" for text in [verdict(one)] if text),
            *(
                as_markdown(table)
                for table in (quality(one), differences(one), shown_uniformly(one))
                if table is not None
            ),
            *(f"- {line}\n" for line in one.remarks),
        ]
    return "\n".join(parts)


def latex(standings: Sequence[Standings]) -> str:
    """Return all tables as LaTeX, for `booktabs`."""
    parts = []
    for one in standings:
        title = ": ".join(text for text in (one.question, one.log) if text)
        parts.append(as_latex(quality(one), title, [note for note in (verdict(one), *one.remarks) if note]))
        if (compared := differences(one)) is not None:
            title += f". {one.reference} minus each baseline, 95 % intervals"
            parts.append(as_latex(compared, title, []))
        if (random := shown_uniformly(one)) is not None:
            parts.append(as_latex(random, f"{one.question}: {one.log}. Uniformly shown rows", []))
    return "\n".join(parts)
