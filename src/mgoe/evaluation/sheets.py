"""Sheets: standings as plain cells and sentences, written alike as Markdown, LaTeX and HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

from mgoe.evaluation.intervals import Estimate
from mgoe.evaluation.standings import Cost, Standings, is_significant, judge, leaders, reachable_shares
from mgoe.evaluation.table import BOUNDS, MEAN, head, headline, main_columns, pipes, show, summarise

_ESCAPES = str.maketrans(
    {c: rf"\{c}" for c in "&%$#_{}"}
    | {"±": r"$\pm$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
)


@dataclass(frozen=True)
class Text:
    """A cell of a table, `strong` if it stands out."""

    text: str
    strong: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table of plain cells; the first column names the line."""

    columns: Sequence[str]
    lines: Sequence[tuple[str, Sequence[Text]]]


def quality(standings: Standings) -> Sheet:
    """Return one line per model: every main metric, the share of the reachable gain if it is known, and
    costs.

    The best of a column is strong, see `leaders`.
    """
    summaries = summarise(standings.rows)
    columns, reach = main_columns(summaries), reachable_shares(standings.rows)
    seeds = {
        model: len({row["seed"] for row in standings.rows if row["model"] == model})
        for model in standings.models
    }
    strong = leaders(standings, columns)
    lines = []
    for model in [*standings.models, *(bound for bound in BOUNDS if bound in summaries)]:
        found = summaries.get(model, {})
        cells = [Text(show(found.get(column)), model in strong[column]) for column in columns]
        if reach:
            cells.append(Text(f"{reach[model]:.1%}" if model in reach else "-"))
        lines.append((model, [*cells, *_costs(standings.costs.get(model)), Text(str(seeds.get(model, "-")))]))
    heads = [head(column) for column in columns] + ["reachable gain"] * bool(reach)
    return Sheet(["model", *heads, "parameters", "training s", "CPU s", "scored/s", "seeds"], lines)


def differences(standings: Standings) -> Sheet | None:
    """Return one line per baseline: the lead over it with its interval in every main metric.

    A lead is strong if it is significant after Holm's correction. The last column counts the shared seeds.
    None without baselines."""
    leads = {(lead.baseline, lead.task, lead.metric): lead for lead in standings.leads}
    measured = {(lead.task, lead.metric) for lead in standings.leads}
    summaries = summarise(standings.rows)
    columns = [column for column in main_columns(summaries) if column in measured]
    baselines = [
        model for model in standings.models if any(lead.baseline == model for lead in standings.leads)
    ]
    if not baselines:
        return None
    chief, lines = headline(summaries), []
    for baseline in baselines:
        lead = leads.get((baseline, *chief))
        cells = [_lead(leads.get((baseline, *column))) for column in columns]
        adjusted = "-" if lead is None or math.isnan(lead.adjusted) else f"{lead.adjusted:.4f}"
        paired = max(len(lead.by_seed) for lead in standings.leads if lead.baseline == baseline)
        lines.append((baseline, [*cells, Text(adjusted), Text(str(paired))]))
    heads = [f"{standings.reference} minus", *map(head, columns), f"p of {head(chief)}, adjusted", "seeds"]
    return Sheet(heads, lines)


def verdict(standings: Standings) -> str:
    """Return the decision of `judge` in words; empty if there is none."""
    found = judge(standings)
    if found is None:
        return ""
    subject = "On the mean" if found.column == MEAN else f"In {head(found.column)}"
    good, bad = ("below", "above") if found.lower_is_better else ("above", "below")
    place = "first" if found.place == 1 else f"number {found.place}"
    parts = [
        f"{subject}, {standings.reference} is {place} of {found.compared + 1}.",
        f"Its interval is {good} zero against {found.ahead} of {found.compared}",
        f"({found.significant} after Holm's correction), {bad} zero against {found.behind}.",
    ]
    if found.seeds == 1:
        parts.append("With one seed intervals are over users alone.")
    if found.fewer:
        parts.append(f"Not counted: {found.fewer} that share{'s' * (found.fewer == 1)} fewer seeds with it.")
    return " ".join(parts)


def markdown(standings: Sequence[Standings]) -> str:
    """Return all tables as Markdown."""
    parts = []
    for one in standings:
        parts.append(f"## {one.question}: {one.log}\n")
        parts += [f"{verdict(one)}\n"] * bool(verdict(one))
        parts += [_markdown(sheet) for sheet in (quality(one), differences(one)) if sheet is not None]
        parts += [f"- {line}\n" for line in one.remarks]
    return "\n".join(parts)


def latex(standings: Sequence[Standings]) -> str:
    """Return all tables as LaTeX, for `booktabs`."""
    parts = []
    for one in standings:
        title = ": ".join(text for text in (one.question, one.log) if text)
        notes = [note for note in (verdict(one), *one.remarks) if note]
        parts.append(_latex(quality(one), title, notes))
        compared = differences(one)
        if compared is not None:
            about = f"{one.reference} minus each baseline, 95 % intervals"
            parts.append(_latex(compared, f"{title}. {about}", []))
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
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_escaped(caption)}}}",
            r"\footnotesize",
            rf"\begin{{tabular}}{{l{'r' * (len(sheet.columns) - 1)}}}",
            *("\\toprule", head, "\\midrule", *body, "\\bottomrule"),
            r"\end{tabular}",
            *(rf"\par {_escaped(note)}" for note in notes),
            r"\end{table}",
            "",
        ]
    )


def _escaped(text: str) -> str:
    return text.translate(_ESCAPES)


def _lead(lead: Estimate | None) -> Text:
    if lead is None or math.isnan(lead.value):
        return Text("-")
    interval = "" if math.isnan(lead.low) else f" [{lead.low:+.4f}, {lead.high:+.4f}]"
    return Text(f"{lead.value:+.4f}{interval}", is_significant(lead))


def _costs(cost: Cost | None) -> list[Text]:
    values = astuple(cost) if cost else (math.nan,) * len(fields(Cost))
    return [Text("-" if math.isnan(value) else f"{value:,.0f}") for value in values]
