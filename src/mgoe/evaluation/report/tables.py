"""The tables of a report."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from mgoe.evaluation.intervals import Estimate
from mgoe.evaluation.report.data import MacroView, ReportData
from mgoe.evaluation.rows import (
    ALL,
    LOWER,
    Column,
    Summary,
    best,
    headline,
    main_columns,
    summarise,
    title,
)
from mgoe.evaluation.tables import Cell, Table

MEMBERS_SHOWN = 60
DETAILS = (
    "auc",
    "gauc",
    "logloss",
    "calibration_error",
    "predicted_over_observed",
    "rmse",
    "mae",
    "spearman",
)


def result_table(data: ReportData) -> Table | None:
    """Return AUC and GAUC of each task and their mean, one line per model."""
    summaries = summarise(data.rows)
    return _table(data, summaries, main_columns(summaries)) if summaries else None


def task_table(data: ReportData, task: str) -> Table:
    """Return all metrics of one task, one line per model, with intervals if there are any."""
    summaries = summarise(data.rows)
    there = {column for columns in summaries.values() for column in columns}
    columns = [(task, metric) for metric in DETAILS if (task, metric) in there]
    return _table(data, summaries, columns, intervals=True)


def catalogue_table(data: ReportData) -> Table | None:
    """Return HR@k and NDCG@k of each task and their means."""
    summaries = summarise(data.rows)
    there = dict.fromkeys(
        c for columns in summaries.values() for c in columns if c[1].startswith(("hr@", "ndcg@"))
    )
    ranked = {model: found for model, found in summaries.items() if there.keys() & found.keys()}
    return _table(data, ranked, sorted(there, key=lambda column: column[0] == ALL)) if there else None


def slice_table(data: ReportData) -> Table | None:
    """Return the mean of AUC and GAUC of every model on each slice, with the number of examples."""
    slices = [
        name
        for name in dict.fromkeys(row["slice"] for row in data.rows if row["split"] == "test")
        if name != ALL
    ]
    if not slices:
        return None
    column = headline(summarise(data.rows))
    lines = []
    for name in [ALL, *slices]:
        summaries = summarise(data.rows, slice=name)
        leaders = best(summaries, column)
        sizes = [
            s.mean
            for columns in summaries.values()
            for (_, metric), s in columns.items()
            if metric == "examples" and s.mean >= 0
        ]
        cells = [_number(summaries.get(model, {}).get(column), model in leaders) for model in data.models]
        lines.append((name, [Cell(f"{max(sizes, default=0):,.0f}"), *cells]))
    return Table(["slice", "examples", *data.models], lines, strong=ALL)


def difference_table(differences: Sequence[Estimate]) -> Table | None:
    """Return differences to each baseline with half their interval, marked if it favours the model."""
    columns = [
        (task, metric)
        for task, metric in dict.fromkeys((d.task, d.metric) for d in differences)
        if metric == "ranking" or (task != ALL and metric in ("auc", "gauc", "rmse", "mae"))
    ]
    columns.sort(key=lambda column: column[0] == ALL)
    found = {(d.baseline, d.task, d.metric): d for d in differences}
    lines = [
        (baseline or "", [_difference(found.get((baseline, *c))) for c in columns])
        for baseline in dict.fromkeys(d.baseline for d in differences)
    ]
    heads = ["baseline", *(title(metric) for _, metric in columns)]
    return Table(heads, lines, _spans(columns)) if columns else None


def member_table(sizes: np.ndarray, members: list[list[str]], lift: np.ndarray, other: str) -> Table:
    """Return macro nodes by size: members, share, the three closest nodes of the other side, example ids."""
    lines = []
    for node in np.argsort(-sizes, kind="stable")[:MEMBERS_SHOWN]:
        liked = np.argsort(-lift[node], kind="stable")[:3]
        goes = ", ".join(f"{k} (×{lift[node, k]:.1f})" for k in liked if lift[node, k] > 1)
        share = sizes[node] / max(sizes.sum(), 1)
        texts = f"{sizes[node]:,}", f"{share:.1%}", goes or "-", ", ".join(members[node]) or "-"
        lines.append((str(node), [Cell(text) for text in texts]))
    return Table(["node", "members", "share", f"goes with {other} nodes", "examples"], lines)


def macro_order(view: MacroView) -> tuple[list[int], list[int]]:
    """Return the largest macro nodes to draw, ordered so that similar users and items are adjacent."""
    users, items = (
        np.sort(np.argsort(-sizes, kind="stable")[:MEMBERS_SHOWN])
        for sizes in (view.user_sizes, view.item_sizes)
    )
    if min(len(users), len(items)) < 2:
        return users.tolist(), items.tolist()
    depth = np.clip(np.log2(np.maximum(view.lift[np.ix_(users, items)], 1e-9)), -3, 3)
    left = np.linalg.svd(depth - depth.mean(), full_matrices=False)[0][:, 0]
    rows = np.argsort(left * np.sign(left[np.abs(left).argmax()]), kind="stable")
    columns = np.argsort(depth[rows].argmax(0), kind="stable")
    return users[rows].tolist(), items[columns].tolist()


def _table(
    data: ReportData,
    summaries: dict[str, dict[Column, Summary]],
    columns: Sequence[Column],
    intervals: bool = False,
) -> Table:
    own = {(e.model, e.task, e.metric): e for e in data.estimates if e.baseline is None} if intervals else {}
    leaders = {column: best(summaries, column) for column in columns}
    lines = [
        (model, [_number(found.get(c), model in leaders[c], own.get((model, *c))) for c in columns])
        for model, found in summaries.items()
    ]
    groups = _spans(columns)
    heads = ["model", *(title(metric) for _, metric in columns)]
    return Table(heads, lines, groups if len(groups) > 1 else (), strong=data.leader)


def _number(summary: Summary | None, leads: bool, interval: Estimate | None = None) -> Cell:
    if summary is None or math.isnan(summary.mean):
        return Cell("–")
    note = "" if math.isnan(summary.std) else f"± {summary.std:.4f}"
    if interval is not None and math.isfinite(interval.low):
        note = f"± {(interval.high - interval.low) / 2:.4f}"
    return Cell(f"{summary.mean:.4f}", leads, note)


def _difference(found: Estimate | None) -> Cell:
    if found is None or math.isnan(found.value):
        return Cell("–")
    note = f"± {(found.high - found.low) / 2:.4f}" if math.isfinite(found.low) else ""
    good = found.high < 0 if LOWER.fullmatch(found.metric) else found.low > 0
    return Cell(f"{found.value:+.4f}", good, note)


def _spans(columns: Sequence[Column]) -> list[tuple[str, int]]:
    counts = Counter(task for task, _ in columns)
    return [("all tasks" if task == ALL else task, count) for task, count in counts.items()]
