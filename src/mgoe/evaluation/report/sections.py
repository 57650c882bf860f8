"""Turn report data into the sentences, tables and charts of the templates."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mgoe.config import BOUNDS
from mgoe.evaluation.intervals import Estimate
from mgoe.evaluation.report import tables
from mgoe.evaluation.report.charts import (
    COLOURS,
    Mark,
    difference_plot,
    gate_bars,
    heat_map,
    interval_plot,
    line_chart,
    reliability_chart,
)
from mgoe.evaluation.report.data import ReportData
from mgoe.evaluation.report.svg import Svg, finite
from mgoe.evaluation.rows import ALL, LOWER, MEAN, MEAN_TITLE, SHOWN, Column, by_seed, summarise, title

RELIABLE_MODELS = 4
"""Models in a reliability diagram; more lines would be hard to distinguish."""


def sections(data: ReportData) -> dict[str, Any]:
    """Return everything that the template names; a part without data is empty."""
    differences = [e for e in data.estimates if e.baseline is not None and e.model == data.leader]
    return {
        "data": data,
        "finding": finding(data, differences),
        "facts": [(name.replace("_", " "), _fact(value)) for name, value in data.facts.items()],
        "results": tables.result_table(data),
        "headline": _plots(data, differences, {MEAN: (MEAN_TITLE, "The same")}),
        "differences": tables.difference_table(differences),
        "tasks": [_task(data, task, differences) for task in data.tasks],
        "curves": _curves(data),
        "reliability": _reliability(data),
        "macro": _macro(data),
        "gates": _gates(data),
        "slices": tables.slice_table(data),
        "catalogue": tables.catalogue_table(data),
        "seeds": len({row["seed"] for row in data.rows}),
    }


def finding(data: ReportData, differences: Sequence[Estimate]) -> str:
    """Return the result in one or two sentences."""
    means = {m: found[MEAN].mean for m, found in summarise(data.rows).items() if MEAN in found}
    means = {m: mean for m, mean in means.items() if math.isfinite(mean) and m not in BOUNDS}
    if data.leader not in means:
        return ""
    rank = sum(value > means[data.leader] for value in means.values()) + 1
    place = (
        "" if len(means) == 1 else f", {'the best' if rank == 1 else f'number {rank}'} of {len(means)} models"
    )
    tasks = "one task" if len(data.tasks) == 1 else f"{len(data.tasks)} tasks"
    text = (
        f"{data.leader} reaches {means[data.leader]:.4f} on test, the mean of AUC and GAUC over "
        f"{tasks}{place}."
    )
    baselines = [e for e in differences if (e.task, e.metric) == MEAN and math.isfinite(e.low)]
    if baselines:
        close = min(baselines, key=lambda e: e.value)
        sure = "above zero" if close.low > 0 else "below zero" if close.high < 0 else "around zero"
        text += (
            f" Against {close.baseline}, the strongest baseline, the difference is {close.value:+.4f}, with "
            f"a 95 % interval {sure}: {close.low:+.4f} to {close.high:+.4f}."
        )
    return text


def _task(data: ReportData, task: str, differences: Sequence[Estimate]) -> dict[str, Any]:
    counts = {
        row["metric"]: row["value"]
        for row in reversed(data.rows)
        if (row["task"], row["split"], row["slice"]) == (task, "test", ALL)
    }
    named = (
        ("examples", "test examples"),
        ("positives", "positive"),
        ("gauc_users", "users with both classes"),
        ("gauc_users_skipped", "users of one class left out of GAUC"),
    )
    names = {(task, metric): (title(metric), title(metric)) for metric in SHOWN}
    return {
        "name": task,
        "counts": [
            f"{counts[key]:,.0f} {words}" for key, words in named if math.isfinite(counts.get(key, math.nan))
        ],
        "table": tables.task_table(data, task),
        "plots": _plots(data, differences, names),
    }


def _plots(
    data: ReportData, differences: Sequence[Estimate], names: Mapping[Column, tuple[str, str]]
) -> list[tuple[str, Svg]]:
    """Plot metrics of all models, then the leads in them; `names` gives the title of each."""
    plots = [(of_models, _plot(data, column)) for column, (of_models, _) in names.items()]
    for column, (_, of_leads) in names.items():
        label = f"Differences of {title(column[1])}, {column[0]}"
        plot = lead_plot(differences, column, label, lambda lead: lead.low > 0 or lead.high < 0)
        plots.append((f"{of_leads}, {data.leader} minus each baseline", plot))
    return [(name, plot) for name, plot in plots if plot]


def _plot(data: ReportData, column: Column) -> Svg | None:
    """Plot one metric of all models; None if there is only one model."""
    own = {
        e.model: (e.low, e.high)
        for e in data.estimates
        if e.baseline is None and (e.task, e.metric) == column
    }
    seeds, marks = by_seed(data.rows), []
    for model, found in summarise(data.rows).items():
        if column in found and math.isfinite(found[column].mean):
            low, high = own.get(model, (math.nan, math.nan))
            values = [*seeds[model][column].values()]
            marks.append(Mark(model, found[column].mean, low, high, values, model == data.leader))
    if len(marks) < 2:
        return None
    label = f"{title(column[1])} of each model" + ("" if column[0] == ALL else f", task {column[0]}")
    return interval_plot(marks, label, lower_is_better=bool(LOWER.fullmatch(column[1])))


def lead_plot(
    leads: Sequence[Estimate], column: Column, label: str, is_strong: Callable[[Estimate], bool]
) -> Svg | None:
    """Plot the leads in one metric over all baselines; None if there are none."""
    marks = [
        Mark(e.baseline or "", e.value, e.low, e.high, e.by_seed, strong=is_strong(e))
        for e in leads
        if (e.task, e.metric) == column and math.isfinite(e.value)
    ]
    return difference_plot(marks, label) if marks else None


def _curves(data: ReportData) -> list[dict[str, Any]]:
    """Plot validation and training loss of each model, one thin line per seed."""
    cards = []
    for model, seeds in data.curves.items():
        runs = list(seeds.values())
        watched = [
            [(e["epoch"], math.nan if e["monitor"] is None else e["monitor"]) for e in run["epochs"]]
            for run in runs
        ]
        losses = [[(e["epoch"], sum(finite(e["losses"].values()))) for e in run["epochs"]] for run in runs]
        best = [
            (run["best_epoch"], dict(line).get(run["best_epoch"], math.nan))
            for run, line in zip(runs, watched, strict=True)
        ]
        if runs:
            cards.append(
                {
                    "model": model,
                    "best": ", ".join(map(str, sorted({int(epoch) for epoch, _ in best}))),
                    "monitor": line_chart(watched, f"Validation of {model} by epoch", best),
                    "loss": line_chart(losses, f"Training loss of {model} by epoch"),
                    "name": runs[0].get("monitor", "validation"),
                }
            )
    return cards


def _reliability(data: ReportData) -> dict[str, Any]:
    means = {m: found[MEAN].mean for m, found in summarise(data.rows).items() if MEAN in found}
    order = sorted(data.models, key=lambda model: (model != data.leader, -means.get(model, 0)))
    drawn = [model for model in order if data.reliability.get(model)][:RELIABLE_MODELS]
    colours = {model: number % COLOURS + 1 for number, model in enumerate(drawn)}
    charts = []
    for task in data.tasks:
        points = {
            m: data.reliability[m][task]
            for m in drawn
            if task in data.reliability[m] and data.reliability[m][task]["rows"]
        }
        if points:
            charts.append((task, reliability_chart(points, colours, f"Reliability of {task}")))
    return {
        "charts": charts,
        "legend": list(colours.items()) if charts else [],
        "left_out": sum(bool(v) for v in data.reliability.values()) - len(drawn),
    }


def _macro(data: ReportData) -> dict[str, Any] | None:
    view = data.macro
    if view is None:
        return None
    users, items = tables.macro_order(view)
    return {
        "chart": heat_map(view.lift, view.user_sizes, view.item_sizes, users, items),
        "view": view,
        "shown": (len(users), len(items)),
        "size": view.lift.shape,
        "user_table": tables.member_table(view.user_sizes, view.user_members, view.lift, "item"),
        "item_table": tables.member_table(view.item_sizes, view.item_members, view.lift.T, "user"),
    }


def _gates(data: ReportData) -> list[dict[str, Any]]:
    """Plot gate use at the best epoch of the first seed; experts of different seeds do not correspond."""
    cards = []
    for model, seeds in data.curves.items():
        weights = next((gates for run in seeds.values() if (gates := _best_gates(run)) is not None), None)
        if weights is None:
            continue
        tasks = data.tasks if len(data.tasks) == len(weights) else [str(t + 1) for t in range(len(weights))]
        experts = [str(s + 1) for s in range(weights.shape[1])]
        cards.append(
            {
                "model": model,
                "chart": gate_bars(weights.tolist(), tasks, experts, f"Gate use of {model}"),
                "legend": [(expert, number % COLOURS + 1) for number, expert in enumerate(experts)],
            }
        )
    return cards


def _best_gates(run: Mapping[str, Any]) -> np.ndarray | None:
    epoch = next((e for e in run["epochs"] if e["epoch"] == run["best_epoch"]), {})
    gates = np.array(epoch.get("watch", {}).get("gates", []), np.float64)
    return gates if gates.ndim == 2 and gates.size else None


def _fact(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return (
        f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    )
