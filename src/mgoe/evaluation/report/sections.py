"""Turn report data into the sentences, tables and charts of a run's page."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mgoe.config import BOUNDS
from mgoe.evaluation.intervals import Estimate
from mgoe.evaluation.report.charts import (
    COLORS,
    Mark,
    Svg,
    gate_bars,
    interval_plot,
    line_chart,
    reliability_chart,
)
from mgoe.evaluation.report.data import Curve, ReportData
from mgoe.evaluation.report.macro import macro_section
from mgoe.evaluation.rows import (
    ALL,
    LOWER,
    MEAN,
    MEAN_TITLE,
    SHOWN,
    TITLES,
    Column,
    Summary,
    best,
    by_seed,
    headline,
    main_columns,
    summarize,
    title,
)
from mgoe.evaluation.slices import FEW, MANY
from mgoe.evaluation.tables import Cell, Table

RELIABLE_MODELS = 4
"""Models in a reliability diagram; more lines would be hard to distinguish."""

SLICES = {
    ALL: "all test examples",
    "new-pairs": "items new to the user",
    "unseen-users": "users without history",
    "unseen-items": "items without history",
    "activity-none": "users with no event",
    "activity-few": f"users with 1 to {FEW - 1} events",
    "activity-some": f"users with {FEW} to {MANY - 1} events",
    "activity-many": f"users with {MANY} events or more",
    "age-near": "history that ends shortly before",
    "age-far": "history that ends long before",
    "uniform": "shown at random",
}
"""Slices in words."""
MONITORS = {"all.ranking": "mean of AUC and GAUC, validation", "all.logloss": "log loss, validation"}
"""What picks the best epoch, in words."""

Summaries = Mapping[str, Mapping[Column, Summary]]
"""By model, and by task and metric."""


def sections(data: ReportData) -> dict[str, Any]:
    """Return everything that the template names; a part without data is empty."""
    summaries = summarize(data.rows)
    differences = [e for e in data.estimates if e.baseline is not None and e.model == data.leader]
    return {
        "data": data,
        "finding": finding(data, summaries, differences),
        "facts": [(name.replace("_", " "), _fact(value)) for name, value in data.facts.items()],
        "results": _table(data, summaries, main_columns(summaries)) if summaries else None,
        "headline": _plots(data, differences, {MEAN: (MEAN_TITLE, "The same")}),
        "differences": difference_table(differences),
        "tasks": [_task(data, task, summaries, differences) for task in data.tasks],
        "curves": [_curves(model, [*seeds.values()]) for model, seeds in data.curves.items() if seeds],
        "reliability": _reliability(data, summaries),
        "macro": None if data.macro is None else macro_section(data.macro),
        "gates": list(_gates(data)),
        "slices": slice_table(data, headline(summaries)),
        "catalogue": catalog_table(data, summaries),
        "seeds": len({row["seed"] for row in data.rows}),
    }


def finding(data: ReportData, summaries: Summaries, differences: Sequence[Estimate]) -> str:
    """Return the result in one or two sentences."""
    means = {
        m: found[MEAN].mean
        for m, found in summaries.items()
        if MEAN in found and math.isfinite(found[MEAN].mean) and m not in BOUNDS
    }
    if data.leader not in means:
        return ""
    rank = sum(value > means[data.leader] for value in means.values()) + 1
    place = (
        "" if len(means) == 1 else f", {'the best' if rank == 1 else f'number {rank}'} of {len(means)} models"
    )
    tasks = "one task" if len(data.tasks) == 1 else f"{len(data.tasks)} tasks"
    text = (
        f"{data.leader} reaches {means[data.leader]:.{summaries[data.leader][MEAN].digits}f} on test, where "
        "0.5 is guessing and 1 is perfect: "
        f"the mean of AUC and GAUC over {tasks}{place}."
    )
    if baselines := [e for e in differences if (e.task, e.metric) == MEAN and math.isfinite(e.low)]:
        close = min(baselines, key=lambda e: e.value)
        where = "ahead of" if close.value >= 0 else "behind"
        is_sure = close.low > 0 or close.high < 0
        text += (
            f" It is {where} {close.baseline}, the strongest baseline, by {abs(close.value):.{close.digits}f}"
            f"{'' if is_sure else ', which may be chance'}: the 95 % interval of the difference is "
            f"{close.low:+.{close.digits}f} to {close.high:+.{close.digits}f}."
        )
    return text


def _task(
    data: ReportData, task: str, summaries: Summaries, differences: Sequence[Estimate]
) -> dict[str, Any]:
    counts = {
        row["metric"]: row["value"]
        for row in reversed(data.rows)
        if (row["task"], row["split"], row["slice"]) == (task, "test", ALL)
    }
    words = {
        "examples": "test examples",
        "positives": "positive",
        "gauc_users": "users in GAUC",
        "gauc_users_skipped": "users left out of it, who did it always or never",
    }
    return {
        "name": task,
        "counts": [
            f"{counts[key]:,.0f} {text}"
            for key, text in words.items()
            if math.isfinite(counts.get(key, math.nan))
        ],
        "table": _table(
            data,
            summaries,
            [(task, m) for m in TITLES if any((task, m) in found for found in summaries.values())],
            intervals=True,
        ),
        "plots": _plots(data, differences, {(task, m): (title(m), title(m)) for m in SHOWN}),
    }


def _plots(
    data: ReportData, differences: Sequence[Estimate], names: Mapping[Column, tuple[str, str]]
) -> list[tuple[str, Svg]]:
    """Plot metrics of all models, then the leads in them; `names` gives the title of each."""
    of_models = [(name, _plot(data, column)) for column, (name, _) in names.items()]
    of_leads = [
        (
            f"{name}, {data.leader} minus each baseline",
            lead_plot(
                differences,
                column,
                f"Differences of {title(column[1])}, {column[0]}",
                lambda lead: lead.low > 0 or lead.high < 0,
            ),
        )
        for column, (_, name) in names.items()
    ]
    return [(name, plot) for name, plot in of_models + of_leads if plot]


def _plot(data: ReportData, column: Column) -> Svg | None:
    """Plot one metric of all models; None if there is only one model."""
    own = {
        e.model: (e.low, e.high)
        for e in data.estimates
        if e.baseline is None and (e.task, e.metric) == column
    }
    values = by_seed(data.rows)
    marks = [
        Mark(
            model,
            found[column].mean,
            *own.get(model, (math.nan, math.nan)),
            seeds=[*values[model][column].values()],
            strong=model == data.leader,
            digits=found[column].digits,
        )
        for model, found in summarize(data.rows).items()
        if column in found and math.isfinite(found[column].mean)
    ]
    label = f"{title(column[1])} of each model" + ("" if column[0] == ALL else f", task {column[0]}")
    return (
        interval_plot(marks, label, lower_is_better=bool(LOWER.fullmatch(column[1])))
        if len(marks) > 1
        else None
    )


def lead_plot(
    leads: Sequence[Estimate], column: Column, label: str, is_strong: Callable[[Estimate], bool]
) -> Svg | None:
    """Plot the leads in one metric over all baselines; None if there are none."""
    marks = [
        Mark(e.baseline or "", e.value, e.low, e.high, e.by_seed, strong=is_strong(e), digits=e.digits)
        for e in leads
        if (e.task, e.metric) == column and math.isfinite(e.value)
    ]
    return interval_plot(marks, label, differences=True) if marks else None


def _curves(model: str, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Plot validation and training loss of a model, one thin line per seed."""
    curves = [Curve.of(run) for run in runs]
    chosen = [curve.best for curve in curves]
    return {
        "model": model,
        "best": ", ".join(map(str, sorted({int(epoch) for epoch, _ in chosen}))),
        "monitor": line_chart(
            [curve.validation for curve in curves], f"Validation of {model} by epoch", chosen
        ),
        "loss": line_chart([curve.loss for curve in curves], f"Training loss of {model} by epoch"),
        "name": MONITORS.get(curves[0].monitor, curves[0].monitor),
    }


def _reliability(data: ReportData, summaries: Summaries) -> dict[str, Any]:
    means = {m: found[MEAN].mean for m, found in summaries.items() if MEAN in found}
    drawn = sorted(
        (model for model in data.models if data.reliability.get(model)),
        key=lambda model: (model != data.leader, -means.get(model, 0)),
    )[:RELIABLE_MODELS]
    colors = {model: number % COLORS + 1 for number, model in enumerate(drawn)}
    points = {
        task: {m: data.reliability[m][task] for m in drawn if data.reliability[m].get(task, {}).get("rows")}
        for task in data.tasks
    }
    charts = [
        (task, reliability_chart(of_models, colors, f"Reliability of {task}"))
        for task, of_models in points.items()
        if of_models
    ]
    return {
        "charts": charts,
        "legend": list(colors.items()) if charts else [],
        "left_out": sum(bool(v) for v in data.reliability.values()) - len(drawn),
    }


def _gates(data: ReportData) -> Iterator[dict[str, Any]]:
    """Plot gate use at the best epoch of the first seed; experts of different seeds do not correspond."""
    for model, seeds in data.curves.items():
        epochs = (e for run in seeds.values() for e in run["epochs"] if e["epoch"] == run["best_epoch"])
        gates = (np.array(e.get("watch", {}).get("gates", []), np.float64) for e in epochs)
        weights = next((found for found in gates if found.ndim == 2 and found.size), None)
        if weights is not None:
            tasks, experts = ([str(n + 1) for n in range(size)] for size in weights.shape)
            tasks = data.tasks if len(data.tasks) == len(tasks) else tasks
            if len(tasks) > 1 and np.allclose(weights, weights[0], equal_nan=True):
                tasks, weights = ["all tasks"], weights[:1]
            yield {
                "model": model,
                "chart": gate_bars(weights.tolist(), tasks, experts, f"Experts that tasks of {model} read"),
                "legend": [(expert, number % COLORS + 1) for number, expert in enumerate(experts)],
            }


def catalog_table(data: ReportData, summaries: Summaries) -> Table | None:
    """Return HR@k and NDCG@k of each task and their means."""
    there = dict.fromkeys(
        c for columns in summaries.values() for c in columns if c[1].startswith(("hr@", "ndcg@"))
    )
    return (
        _table(
            data,
            {model: found for model, found in summaries.items() if there.keys() & found.keys()},
            sorted(there, key=lambda column: column[0] == ALL),
        )
        if there
        else None
    )


def slice_table(data: ReportData, column: Column) -> Table | None:
    """Return a column of every model on each slice, with the number of examples."""
    lines = []
    for name in dict.fromkeys([ALL, *(row["slice"] for row in data.rows if row["split"] == "test")]):
        summaries = summarize(data.rows, slice=name)
        leaders = best(summaries, column)
        sizes = [
            s.mean
            for columns in summaries.values()
            for (_, metric), s in columns.items()
            if metric == "examples" and s.mean >= 0
        ]
        values = [_number(summaries.get(model, {}).get(column), model in leaders) for model in data.models]
        lines.append((SLICES.get(name, name), [Cell(f"{max(sizes, default=0):,.0f}"), *values]))
    return Table(["part", "examples", *data.models], lines, strong=SLICES[ALL]) if len(lines) > 1 else None


def difference_table(differences: Sequence[Estimate]) -> Table | None:
    """Return differences to each baseline with half their interval, marked if it favours the model."""
    columns = sorted(
        (
            (task, metric)
            for task, metric in dict.fromkeys((d.task, d.metric) for d in differences)
            if metric == "ranking" or (task != ALL and metric in ("auc", "gauc", "rmse", "mae"))
        ),
        key=lambda column: column[0] == ALL,
    )
    found = {(d.baseline, d.task, d.metric): d for d in differences}
    lines = [
        (baseline or "", [_difference(found.get((baseline, *c))) for c in columns])
        for baseline in dict.fromkeys(d.baseline for d in differences)
    ]
    return (
        Table(["baseline", *(title(metric) for _, metric in columns)], lines, _spans(columns))
        if columns
        else None
    )


def _table(
    data: ReportData, summaries: Summaries, columns: Sequence[Column], intervals: bool = False
) -> Table:
    own = {(e.model, e.task, e.metric): e for e in data.estimates if e.baseline is None} if intervals else {}
    leaders = {column: best(summaries, column) for column in columns}
    lines = [
        (model, [_number(found.get(c), model in leaders[c], own.get((model, *c))) for c in columns])
        for model, found in summaries.items()
    ]
    groups = _spans(columns)
    return Table(
        ["model", *(title(metric) for _, metric in columns)],
        lines,
        groups if len(groups) > 1 else (),
        strong=data.leader,
    )


def _number(summary: Summary | None, leads: bool, interval: Estimate | None = None) -> Cell:
    if summary is None or math.isnan(summary.mean):
        return Cell("–")
    half = math.nan if interval is None else (interval.high - interval.low) / 2
    spread = half if math.isfinite(half) else summary.std
    return Cell(
        f"{summary.mean:.{summary.digits}f}",
        leads,
        "" if math.isnan(spread) else f"± {spread:.{summary.digits}f}",
    )


def _difference(found: Estimate | None) -> Cell:
    if found is None or math.isnan(found.value):
        return Cell("–")
    return Cell(
        f"{found.value:+.{found.digits}f}",
        strong=found.high < 0 if LOWER.fullmatch(found.metric) else found.low > 0,
        note=f"± {(found.high - found.low) / 2:.{found.digits}f}" if math.isfinite(found.low) else "",
    )


def _spans(columns: Sequence[Column]) -> list[tuple[str, int]]:
    counts = Counter(task for task, _ in columns)
    return [("all tasks" if task == ALL else task, count) for task, count in counts.items()]


def _fact(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return (
        f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    )
