"""Standings: one table on one log, its verdict, and both as Markdown and LaTeX."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from statistics import fmean

from mgoe.config import BOUNDS
from mgoe.evaluation.intervals import Estimate, fully_paired
from mgoe.evaluation.rows import (
    LOWER,
    MEAN,
    Column,
    Row,
    Summary,
    best,
    by_seed,
    head,
    headline,
    main_columns,
    show,
    summarise,
)
from mgoe.evaluation.tables import Cell, Table, as_latex, as_markdown

SIGNIFICANT = 0.05
REACHABLE = "best-reachable"


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
        together = [
            f"{', '.join(model for model, other in self.missing.items() if other == reason)}: {reason}"
            for reason in dict.fromkeys(self.missing.values())
        ]
        return [*together, *self.notes]


def verdict(standings: Standings) -> str:
    """Say where the reference stands among the baselines that share as many seeds with it as any; nothing if
    there are none.
    """
    column = headline(summarise(standings.rows))
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
    parts = [
        "On the mean," if column == MEAN else f"In {head(column)},",
        f"{standings.reference} is {'first' if place == 1 else f'number {place}'} of {len(judged) + 1}.",
        f"Its interval is {good} zero against {len(ahead)} of {len(judged)}",
        f"({sum(map(is_significant, ahead))} after Holm's correction), {bad} zero against {len(behind)}.",
    ]
    if len(judged[0].by_seed) == 1:
        parts.append("With one seed intervals are over users alone.")
    if fewer := len(present) - len(judged):
        parts.append(f"Not counted: {fewer} that share{'s' * (fewer == 1)} fewer seeds with it.")
    return " ".join(parts)


def is_significant(lead: Estimate) -> bool:
    """Return whether a difference in either direction excludes zero, after Holm's correction too."""
    return (lead.low > 0 or lead.high < 0) and lead.adjusted < SIGNIFICANT


def reachable_shares(rows: Sequence[Row]) -> dict[str, float]:
    """Return the share of the reachable gain, (mean - .5) / (best - .5), by model; empty if the best is
    unknown.
    """
    means = {model: found[MEAN].mean for model, found in summarise(rows).items() if MEAN in found}
    best_value = means.pop(REACHABLE, math.nan)
    if math.isnan(best_value) or best_value <= 0.5:
        return {}
    return {
        model: (mean - 0.5) / (best_value - 0.5)
        for model, mean in means.items()
        if model not in BOUNDS and not math.isnan(mean)
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
        means = {
            name: own + fmean(of[name][seed] - of[reference][seed] for seed in seeds)
            for name, seeds in shared.items()
        }
        summaries = {
            model: {column: Summary(mean, math.nan, 1)} for model, mean in {reference: own, **means}.items()
        }
        found[column] = best(summaries, column)
    return found


def quality(standings: Standings) -> Table:
    """Return one line per model: every main metric, the share of the reachable gain if it is known, and
    costs.

    The best of a column is strong, see `leaders`.
    """
    summaries = summarise(standings.rows)
    reach = reachable_shares(standings.rows)
    strong = leaders(standings, main_columns(summaries))
    lines = []
    for model in [*standings.models, *(bound for bound in BOUNDS if bound in summaries)]:
        found = summaries.get(model, {})
        cells = [Cell(show(found.get(column)), model in strong[column]) for column in strong]
        if reach:
            cells.append(Cell(f"{reach[model]:.1%}" if model in reach else "-"))
        costs = astuple(standings.costs.get(model, Cost()))
        cells += [Cell("-" if math.isnan(value) else f"{value:,.0f}") for value in costs]
        seeds = {row["seed"] for row in standings.rows if row["model"] == model}
        lines.append((model, [*cells, Cell(str(len(seeds)) if model in standings.models else "-")]))
    heads = [head(column) for column in strong] + ["reachable gain"] * bool(reach)
    return Table(["model", *heads, "parameters", "training s", "CPU s", "scored/s", "seeds"], lines)


def differences(standings: Standings) -> Table | None:
    """Return one line per baseline: the lead over it with its interval in every main metric.

    A lead is strong if it is significant after Holm's correction. The last column counts the shared seeds.
    None without baselines.
    """
    summaries = summarise(standings.rows)
    chief = headline(summaries)
    measured = {(lead.task, lead.metric) for lead in standings.leads}
    columns = [column for column in main_columns(summaries) if column in measured]
    lines = []
    for baseline in standings.models:
        leads = {(lead.task, lead.metric): lead for lead in standings.leads if lead.baseline == baseline}
        if leads:
            adjusted = leads[chief].adjusted if chief in leads else math.nan
            paired = max(len(lead.by_seed) for lead in leads.values())
            cells = [
                *(_lead(leads.get(column)) for column in columns),
                Cell("-" if math.isnan(adjusted) else f"{adjusted:.4f}"),
                Cell(str(paired)),
            ]
            lines.append((baseline, cells))
    heads = [f"{standings.reference} minus", *map(head, columns), f"p of {head(chief)}, adjusted", "seeds"]
    return Table(heads, lines) if lines else None


def _lead(lead: Estimate | None) -> Cell:
    if lead is None or math.isnan(lead.value):
        return Cell("-")
    interval = "" if math.isnan(lead.low) else f" [{lead.low:+.4f}, {lead.high:+.4f}]"
    return Cell(f"{lead.value:+.4f}{interval}", is_significant(lead))


def markdown(standings: Sequence[Standings]) -> str:
    """Return all tables as Markdown."""
    parts = []
    for one in standings:
        parts += [
            f"## {one.question}: {one.log}\n",
            *(f"{text}\n" for text in [verdict(one)] if text),
            *(as_markdown(table) for table in (quality(one), differences(one)) if table is not None),
            *(f"- {line}\n" for line in one.remarks),
        ]
    return "\n".join(parts)


def latex(standings: Sequence[Standings]) -> str:
    """Return all tables as LaTeX, for `booktabs`."""
    parts = []
    for one in standings:
        title = ": ".join(text for text in (one.question, one.log) if text)
        parts.append(as_latex(quality(one), title, [note for note in (verdict(one), *one.remarks) if note]))
        compared = differences(one)
        if compared is not None:
            about = f"{one.reference} minus each baseline, 95 % intervals"
            parts.append(as_latex(compared, f"{title}. {about}", []))
    return "\n".join(parts)
