"""Turn report data or standings into sentences, tables and charts, and these into one HTML file that needs no
network."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mgoe._util.files import write_text
from mgoe._util.templates import templates_of
from mgoe.evaluation.findings import finding, page_findings, page_table
from mgoe.evaluation.report.charts import IntervalPlot, Mark, curve_charts, reliability_chart
from mgoe.evaluation.report.data import MOST, MacroView, ReportData
from mgoe.evaluation.rows import (
    ALL,
    LOWER,
    MEAN,
    SHOWN,
    TITLES,
    Column,
    Summaries,
    best,
    by_seed,
    full_title,
    headline,
    main_columns,
    summarize,
    title,
)
from mgoe.evaluation.slices import FEW, MANY
from mgoe.evaluation.standings import Standings, verdict
from mgoe.evaluation.tables import (
    Cell,
    Table,
    difference,
    differences,
    metrics_table,
    number,
    quality,
    shown_uniformly,
    tables_of,
    tradeoff,
)
from mgoe.features.macro_nodes import MacroNode

RELIABLE_MODELS = 4
"""Models in a reliability diagram; more lines would be hard to distinguish."""

SLICES = {
    ALL: "all test examples",
    "new-pairs": "items new to the user",
    "unseen-users": "users new since the cut",
    "unseen-items": "items new since the cut",
    "activity-none": "users with no event",
    "activity-few": f"users with 1 to {FEW - 1} events",
    "activity-some": f"users with {FEW} to {MANY - 1} events",
    "activity-many": f"users with {MANY} events or more",
    "age-near": "history that ends shortly before",
    "age-far": "history that ends long before",
    "uniform": "shown at random",
}
"""Slices in words."""
_TEMPLATES = templates_of("mgoe.evaluation.report")
_TEMPLATES.tests["finite"] = math.isfinite


def sections(data: ReportData) -> dict[str, Any]:
    """Return everything that the template names; a part without data is empty."""
    summaries = summarize(data.standings.rows)
    return {
        "data": data,
        "finding": finding(data.standings),
        "page": page_findings(data.standings),
        "page_table": page_table(summaries),
        "facts": [(name.replace("_", " "), _fact(value)) for name, value in data.facts.items()],
        "results": quality(data.standings) if summaries else None,
        "headline": interval_plots(data, summaries, [MEAN]),
        "differences": differences(data.standings),
        "tasks": [_task(data, task, summaries) for task in data.tasks],
        "curves": [
            _curves(model, seeds)
            for model, seeds in data.curves.items()
            if any(len(run["epochs"]) > 1 for run in seeds.values())
        ],
        "reliability": _reliability(data, summaries),
        "macro": None if data.macro is None else macro_section(data.macro),
        "gates": list(_gates(data)),
        "slices": slice_table(data.standings, headline(summaries)),
        "catalogue": catalog_table(summaries),
        "seeds": len({row["seed"] for row in data.standings.rows}),
    }


def _task(data: ReportData, task: str, summaries: Summaries) -> dict[str, Any]:
    counts = {
        row["metric"]: row["value"]
        for row in reversed(data.standings.rows)
        if (row["task"], row["split"], row["slice"]) == (task, "test", ALL)
    }
    words = {
        "examples": "test examples",
        "positives": "positive",
        "gauc_users": "users in GAUC",
        "gauc_users_skipped": "users left out of it, who did it always or never",
        "queries": "users in HR and NDCG",
    }
    metrics = [m for m in TITLES if any((task, m) in found for found in summaries.values())]
    table = metrics_table(summaries, [(task, metric) for metric in metrics], data.estimates)
    return {
        "name": task,
        "counts": [
            f"{counts[key]:,.0f} {text}"
            for key, text in words.items()
            if math.isfinite(counts.get(key, math.nan))
        ],
        "table": replace(table, columns=["model", *map(title, metrics)]),
        "plots": interval_plots(data, summaries, [(task, metric) for metric in SHOWN]),
    }


def interval_plots(data: ReportData, summaries: Summaries, columns: list[Column]) -> list[IntervalPlot]:
    """Return metrics of all models, then the leads in them; without those that have nothing to compare."""
    of_models = [_model_plot(data, summaries, column) for column in columns]
    of_leads = [lead_plot(data.standings, column) for column in columns]
    return [plot for plot in of_models + of_leads if plot]


def _model_plot(data: ReportData, summaries: Summaries, column: Column) -> IntervalPlot | None:
    """Return one metric of all models; None if there is only one model."""
    known = {e.model: e for e in data.estimates if (e.task, e.metric) == column}
    values = by_seed(data.standings.rows)
    marks = []
    for model, found in summaries.items():
        if column in found and math.isfinite(found[column].mean):
            own = known.get(model)
            cell = number(found[column], model == data.standings.reference, own)
            ends = (math.nan, math.nan) if own is None else (own.low, own.high)
            marks.append(Mark(model, cell, found[column].mean, *ends, [*values[model][column].values()]))
    lower = bool(LOWER.fullmatch(column[1]))
    return IntervalPlot.of(full_title(column), marks, lower_is_better=lower) if len(marks) > 1 else None


def lead_plot(standings: Standings, column: Column) -> IntervalPlot | None:
    """Return the leads in one metric over all baselines, strong if significant; None if there are none."""
    marks = [
        Mark(e.baseline or "", difference(e), e.value, e.low, e.high, e.by_seed)
        for e in standings.leads
        if (e.task, e.metric) == column and math.isfinite(e.value)
    ]
    name = f"{full_title(column)}, {standings.reference} minus each baseline"
    return IntervalPlot.of(name, marks, differences=True) if marks else None


def _curves(model: str, seeds: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Return validation and training loss of a model, one line per seed."""
    loss, validation = curve_charts(model, {f"seed {seed}": run for seed, run in seeds.items()})
    return {
        "model": model,
        "best": ", ".join(map(str, sorted({run["best_epoch"] for run in seeds.values()}))),
        "charts": [validation, loss],
    }


def _reliability(data: ReportData, summaries: Summaries) -> dict[str, Any]:
    means = {m: found[MEAN].mean for m, found in summaries.items() if MEAN in found}
    drawn = sorted(
        (model for model, of_tasks in data.reliability.items() if of_tasks),
        key=lambda model: (model != data.standings.reference, -means.get(model, 0)),
    )
    bins = {
        task: {model: data.reliability[model].get(task, {}) for model in drawn[:RELIABLE_MODELS]}
        for task in data.tasks
    }
    charts = {
        task: reliability_chart(f"Reliability of {task}", of_models)
        for task, of_models in bins.items()
        if any(one.get("rows") for one in of_models.values())
    }
    return {
        "charts": charts,
        "models": drawn[:RELIABLE_MODELS] if charts else [],
        "left_out": len(drawn[RELIABLE_MODELS:]),
    }


def _gates(data: ReportData) -> Iterator[dict[str, Any]]:
    """Yield gate use at the best epoch of the first seed; experts of different seeds do not correspond."""
    for model, seeds in data.curves.items():
        epochs = (e for run in seeds.values() for e in run["epochs"] if e["epoch"] == run["best_epoch"])
        gates = (np.array(e.get("watch", {}).get("gates", []), np.float64) for e in epochs)
        weights = next((found for found in gates if found.ndim == 2 and found.size), None)
        if weights is not None:
            numbers = [str(number) for number in range(1, len(weights) + 1)]
            tasks = data.tasks if len(data.tasks) == len(weights) else numbers
            if len(tasks) > 1 and np.allclose(weights, weights[0], equal_nan=True):
                tasks, weights = ["all tasks"], weights[:1]
            shares = np.nan_to_num(weights).tolist()
            yield {"model": model, "shares": dict(zip(tasks, shares, strict=True)), "size": weights.shape[1]}


def catalog_table(summaries: Summaries) -> Table | None:
    """Return HR@k and NDCG@k of each task and their means."""
    columns = dict.fromkeys(
        c for found in summaries.values() for c in found if c[1].startswith(("hr@", "ndcg@"))
    )
    measured = {model: found for model, found in summaries.items() if columns.keys() & found.keys()}
    in_order = sorted(columns, key=lambda column: column[0] == ALL)
    return metrics_table(measured, in_order) if columns else None


def slice_table(standings: Standings, column: Column) -> Table | None:
    """Return a column of every model on each slice, with the number of examples."""
    models, lines = [*summarize(standings.rows)], []
    for name in dict.fromkeys([ALL, *(row["slice"] for row in standings.rows if row["split"] == "test")]):
        summaries = summarize(standings.rows, slice=name)
        leaders = best(summaries, column)
        sizes = [
            s.mean
            for columns in summaries.values()
            for (_, metric), s in columns.items()
            if metric == "examples" and s.mean >= 0
        ]
        values = [number(summaries.get(model, {}).get(column), model in leaders) for model in models]
        lines.append((SLICES.get(name, name), [Cell(f"{max(sizes, default=0):,.0f}"), *values]))
    return Table(["part", "examples", *models], lines) if len(lines) > 1 else None


def _fact(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return (
        f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    )


def macro_section(view: MacroView) -> dict[str, Any]:
    """Return what the template shows of a macro graph."""
    return {
        "view": view,
        "size": view.lift.shape,
        "most": MOST,
        "user_table": member_table(view.users, view.items, view.lift, "users"),
        "item_table": member_table(view.items, view.users, view.lift.T, "items"),
    }


def member_table(
    nodes: Sequence[MacroNode], others: Sequence[MacroNode], lift: np.ndarray, kind: str
) -> Table:
    """Return macro nodes by size: members, share, features, typical members, the closest of the other side.

    Args:
        nodes, others: Macro nodes of the two sides.
        lift: Shape (nodes, others).
        kind: What the members are, `users` or `items`.
    """
    whole = sum(one.members for one in nodes) or 1
    has_features = any(node.features for node in nodes)
    columns, lines = ["group"], []
    for node in sorted(nodes, key=lambda one: -one.members)[:MOST]:
        closest = np.argsort(-lift[node.node], kind="stable")[:3]
        goes = "; ".join(
            f"{others[k].name} (×{lift[node.node, k]:.1f})" for k in closest if lift[node.node, k] > 1
        )
        texts = {
            kind: f"{node.members:,}",
            "share": f"{node.members / whole:.1%}",
            "typical": ", ".join(node.typical_names) or "–",
            "what sets them apart": "; ".join(node.features) or "–",
            "go with": goes or "–",
        }
        if not has_features:
            del texts["what sets them apart"]
        columns = ["group", *texts]
        lines.append((str(node.node), list(map(Cell, texts.values()))))
    return Table(columns, lines)


def render(data: ReportData) -> str:
    """Return the report of a run as one HTML page: styles and drawings inside, no script, nothing loaded from
    elsewhere.
    """
    return _TEMPLATES.get_template("report.html.j2").render(sections(data))


def write_report(path: Path, data: ReportData) -> None:
    """Write the page atomically."""
    write_text(path, render(data))


def render_comparison(
    name: str,
    standings: Sequence[Standings],
    facts: Mapping[str, object] | None = None,
    settings: str = "",
    command: str = "",
) -> str:
    """Return a comparison as one HTML page without external resources: each question with its tables and one
    forest plot per metric.

    Args:
        name: Title of the page.
        standings: Every table on every log.
        facts: Short facts by name.
        settings: Settings of the comparison as YAML.
        command: The command that reproduces it.
    """
    return _TEMPLATES.get_template("comparison.html.j2").render(
        title=name,
        boards=[
            {
                "standings": one,
                "verdict": verdict(one),
                "quality": quality(one),
                "differences": differences(one),
                "uniform": shown_uniformly(one),
                "plots": forest_plots(one),
                "tradeoff": tradeoff(one),
            }
            for one in standings
        ],
        facts=(facts or {}).items(),
        settings=settings,
        command=command,
    )


def render_tables(title: str, standings: Sequence[Standings]) -> str:
    """Return the tables of standings as HTML without styles, for a notebook, whose own styles apply."""
    boards = [
        {
            "standings": one,
            "verdict": verdict(one),
            "tables": tables_of(one),
        }
        for one in standings
    ]
    return _TEMPLATES.get_template("tables.html.j2").render(title=title, boards=boards)


def forest_plots(standings: Standings) -> list[IntervalPlot]:
    """Return the leads over every baseline, one plot per metric, the mean first; strong if significant."""
    columns = sorted(main_columns(summarize(standings.rows)), key=lambda column: column != MEAN)
    return [plot for column in columns if (plot := lead_plot(standings, column))]
