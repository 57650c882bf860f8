"""Standings: the answer to one question on one log, as plain cells that Markdown, LaTeX and HTML write out alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields
from statistics import fmean

from mgoe.evaluation.intervals import Estimate, fully_paired
from mgoe.evaluation.rows import Row
from mgoe.evaluation.table import (
    BOUNDS,
    LOWER,
    MEAN,
    Column,
    Summary,
    best,
    by_seed,
    head,
    headline,
    main_columns,
    pipes,
    show,
    summarise,
)

SIGNIFICANT = 0.05
REACHABLE = "best-reachable"
_ESCAPES = str.maketrans(
    {c: rf"\{c}" for c in "&%$#_{}"}
    | {"±": r"$\pm$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
)


@dataclass(frozen=True)
class Cost:
    """What a model costs, means over its finished cells; NaN where they do not say.

    Attributes:
        parameters: Numbers that are learned.
        training_seconds: By the clock, which waits for whatever else the machine does.
        cpu_seconds: Of training, in time of the processor, which does not; a GPU's is not in it.
        scored_per_second: Rows.
    """

    parameters: float
    training_seconds: float
    cpu_seconds: float
    scored_per_second: float


@dataclass(frozen=True)
class Standings:
    """One table on one log.

    Attributes:
        question: What the table asks.
        log: Name of the log.
        reference: The model that the others are held against.
        models: In order.
        rows: Of the models, and of the references of a simulated log.
        leads: Of the reference over each other model.
        costs: By model.
        missing: What is said of a model's cells that are not there: failed, or not run yet.
        notes: What else is to be said.
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
    def below(self) -> list[str]:
        """What stands below the tables, a sentence a line; models of which the same is said share one."""
        said = dict.fromkeys(self.missing.values())
        together = (
            f"{', '.join(model for model, other in self.missing.items() if other == what)}: {what}"
            for what in said
        )
        return [*together, *self.notes]


@dataclass(frozen=True)
class Text:
    """A cell of a table, `strong` where it stands out."""

    text: str
    strong: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table of plain cells; the first column names the line."""

    columns: Sequence[str]
    lines: Sequence[tuple[str, Sequence[Text]]]


def quality(standings: Standings) -> Sheet:
    """A model a line: every main metric, the share of the reachable gain where that is known, and costs.

    The best of a column is strong: of the reference and the baselines that share as many seeds with it as any, on the seeds shared.
    """
    summaries = summarise(standings.rows)
    columns, reach = main_columns(summaries), reachable_shares(standings.rows)
    seeds = {
        model: len({row["seed"] for row in standings.rows if row["model"] == model})
        for model in standings.models
    }
    leaders = _leaders(standings, columns)
    lines = []
    for model in [*standings.models, *(bound for bound in BOUNDS if bound in summaries)]:
        found = summaries.get(model, {})
        cells = [Text(show(found.get(c)), model in leaders[c]) for c in columns]
        if reach:
            cells.append(Text(f"{reach[model]:.1%}" if model in reach else "-"))
        lines.append((model, [*cells, *_costs(standings.costs.get(model)), Text(str(seeds.get(model, "-")))]))
    heads = [head(column) for column in columns] + ["reachable gain"] * bool(reach)
    return Sheet(["model", *heads, "parameters", "training s", "CPU s", "scored/s", "seeds"], lines)


def differences(standings: Standings) -> Sheet | None:
    """A baseline a line: the lead over it with its interval in every main metric; strong where it holds after Holm's correction.

    The last column is the number of seeds that both have.
    """
    leads = {(lead.baseline, lead.task, lead.metric): lead for lead in standings.leads}
    columns = [
        c
        for c in main_columns(summarise(standings.rows))
        if any((lead.task, lead.metric) == c for lead in standings.leads)
    ]
    baselines = [
        model for model in standings.models if any(lead.baseline == model for lead in standings.leads)
    ]
    if not baselines:
        return None
    chief, lines = headline(summarise(standings.rows)), []
    for baseline in baselines:
        one = leads.get((baseline, *chief))
        cells = [_lead(leads.get((baseline, *column))) for column in columns]
        adjusted = "-" if one is None or math.isnan(one.adjusted) else f"{one.adjusted:.4f}"
        paired = max(len(lead.by_seed) for lead in standings.leads if lead.baseline == baseline)
        lines.append((baseline, [*cells, Text(adjusted), Text(str(paired))]))
    return Sheet(
        [f"{standings.reference} minus", *map(head, columns), f"p of {head(chief)}, adjusted", "seeds"], lines
    )


def reachable_shares(rows: Sequence[Row]) -> dict[str, float]:
    """Share of the reachable gain, (mean - .5) / (best - .5), a model; nothing where the best is not known."""
    means = {model: found[MEAN].mean for model, found in summarise(rows).items() if MEAN in found}
    best_value = means.pop(REACHABLE, math.nan)
    if math.isnan(best_value) or best_value <= 0.5:
        return {}
    return {
        model: (mean - 0.5) / (best_value - 0.5)
        for model, mean in means.items()
        if model not in BOUNDS and not math.isnan(mean)
    }


def verdict(standings: Standings) -> str:
    """Who is first, and against whom that is more than chance: of baselines that share as many seeds with the reference as any, in words."""
    column = headline(summarise(standings.rows))
    there, judged = (
        [lead for lead in leads if (lead.task, lead.metric) == column and math.isfinite(lead.value)]
        for leads in (standings.leads, fully_paired(standings.leads))
    )
    if not judged:
        return ""
    sign = -1 if LOWER.fullmatch(column[1]) else 1
    place = sum(sign * lead.value < 0 for lead in judged) + 1
    ahead = [lead for lead in judged if min(sign * lead.low, sign * lead.high) > 0]
    behind = sum(max(sign * lead.low, sign * lead.high) < 0 for lead in judged)
    sure = sum(map(holds, ahead))
    parts = [
        f"On the mean, {standings.reference} is"
        if column == MEAN
        else f"In {head(column)}, {standings.reference} is",
        "first" if place == 1 else f"number {place}",
        f"of {len(judged) + 1}. Its interval lies {'below' if sign < 0 else 'above'} zero against "
        f"{len(ahead)} of {len(judged)}",
        f"({sure} after Holm's correction), {'above' if sign < 0 else 'below'} zero against {behind}.",
    ]
    parts += ["With one seed intervals speak of users alone."] * (len(judged[0].by_seed) == 1)
    fewer = len(there) - len(judged)
    parts += [f"Not counted: {fewer} that share{'s' * (fewer == 1)} fewer seeds with it."] * bool(fewer)
    return " ".join(parts)


def holds(lead: Estimate) -> bool:
    """Whether a difference, in either direction, is more than chance: its interval leaves out zero, after Holm's correction too."""
    return (lead.low > 0 or lead.high < 0) and lead.adjusted < SIGNIFICANT


def markdown(standings: Sequence[Standings]) -> str:
    """All tables as Markdown."""
    parts = []
    for one in standings:
        parts.append(f"## {one.question}: {one.log}\n")
        parts += [f"{verdict(one)}\n"] * bool(verdict(one))
        parts += [_markdown(sheet) for sheet in (quality(one), differences(one)) if sheet is not None]
        parts += [f"- {line}\n" for line in one.below]
    return "\n".join(parts)


def latex(standings: Sequence[Standings]) -> str:
    """All tables as LaTeX, for `booktabs`."""
    parts = []
    for one in standings:
        for sheet, about in (
            (quality(one), ""),
            (differences(one), f"{one.reference} minus each baseline, 95 % intervals"),
        ):
            if sheet is not None:
                caption = ". ".join(text for text in (f"{one.question}: {one.log}", about) if text)
                notes = [] if about else [verdict(one), *one.below]
                parts.append(_latex(sheet, caption, [note for note in notes if note]))
    return "\n".join(parts)


def _markdown(sheet: Sheet) -> str:
    lines = [list(sheet.columns), ["---", *["---:"] * (len(sheet.columns) - 1)]]
    lines += [
        [name, *(f"**{cell.text}**" if cell.strong else cell.text for cell in cells)]
        for name, cells in sheet.lines
    ]
    return pipes(lines)


def _latex(sheet: Sheet, caption: str, notes: Sequence[str]) -> str:
    lines = [" & ".join(map(_escaped, sheet.columns))]
    for name, cells in sheet.lines:
        texts = [
            rf"\textbf{{{_escaped(cell.text)}}}" if cell.strong else _escaped(cell.text) for cell in cells
        ]
        lines.append(" & ".join([_escaped(name), *texts]))
    head, *body = [line + r" \\" for line in lines]
    inner = ["\\toprule", head, "\\midrule", *body, "\\bottomrule"]
    table = [rf"\begin{{tabular}}{{l{'r' * (len(sheet.columns) - 1)}}}", *inner, r"\end{tabular}"]
    below = [rf"\par {_escaped(note)}" for note in notes]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_escaped(caption)}}}",
            r"\footnotesize",
            *table,
            *below,
            r"\end{table}",
            "",
        ]
    )


def _escaped(text: str) -> str:
    return text.translate(_ESCAPES)


def _leaders(standings: Standings, columns: Sequence[Column]) -> dict[Column, set[str]]:
    """The best of each column, by the models and seeds that the verdict goes by."""
    values, reference = by_seed(standings.rows), standings.reference
    baselines = dict.fromkeys(
        lead.baseline for lead in fully_paired(standings.leads) if lead.baseline is not None
    )
    found = {}
    for column in columns:
        of = {model: values.get(model, {}).get(column, {}) for model in (reference, *baselines)}
        shared = {
            baseline: seeds
            for baseline in baselines
            if (seeds := sorted(of[reference].keys() & of[baseline].keys()))
        }
        middle = fmean(of[reference][seed] for seed in set().union(*shared.values())) if shared else math.nan
        means = {
            baseline: middle + fmean(of[baseline][seed] - of[reference][seed] for seed in seeds)
            for baseline, seeds in shared.items()
        }
        found[column] = best(
            {
                model: {column: Summary(mean, math.nan, 1)}
                for model, mean in {reference: middle, **means}.items()
            },
            column,
        )
    return found


def _lead(lead: Estimate | None) -> Text:
    if lead is None or math.isnan(lead.value):
        return Text("-")
    interval = "" if math.isnan(lead.low) else f" [{lead.low:+.4f}, {lead.high:+.4f}]"
    return Text(f"{lead.value:+.4f}{interval}", holds(lead))


def _costs(cost: Cost | None) -> list[Text]:
    values = astuple(cost) if cost else (math.nan,) * len(fields(Cost))
    return [Text("-" if math.isnan(value) else f"{value:,.0f}") for value in values]
