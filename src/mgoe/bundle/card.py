"""The model card of a bundle, as Markdown: what it predicts, from what data, how well, and where it fails.

The sections are those of Mitchell et al., Model Cards for Model Reporting (FAT* 2019). Every figure comes
from the bundle itself, so the card can be written again whenever the bundle changes.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mgoe._util.templates import templates_of
from mgoe.bundle.calibration import Calibration
from mgoe.bundle.manifest import BundleManifest
from mgoe.bundle.sampling import chain
from mgoe.config import RunSettings, TaskSettings
from mgoe.data.times import moment_of
from mgoe.evaluation import ALL, Row
from mgoe.evaluation.rows import head, headline, main_columns, summarize
from mgoe.evaluation.tables import Cell, Table, as_markdown, number
from mgoe.graph import MacroGraph

CARD = "MODEL_CARD.md"
"""Its name in a bundle."""
_TEMPLATES = templates_of("mgoe.bundle", html=False)
_TEMPLATES.filters["count"] = "{:,}".format


def model_card(
    manifest: BundleManifest, settings: RunSettings, graph: MacroGraph, metrics: Sequence[Row]
) -> str:
    """Return the model card of a bundle.

    Args:
        manifest: Its manifest.
        settings: Settings of the run that trained it.
        graph: Its graph.
        metrics: Rows of its `metrics.json`.

    Example:
        >>> print(model_card(bundle.manifest, bundle.settings, bundle.graph, rows).splitlines()[0])
        # Model card: mgoe
    """
    model, log, data = manifest.model, manifest.log, settings.data
    strongest = [task for task in settings.tasks if task.kind == "binary"] or settings.tasks
    text = _TEMPLATES.get_template("card.md.j2").render(
        model=model,
        form=settings.form,
        negatives=settings.negatives,
        objective=" * ".join(chain(strongest[-1].name, settings.tasks)),
        predicted={task.name: _meaning(task, settings) for task in settings.tasks},
        log=log,
        graph=_contents(graph, data.timezone),
        splits=_splits(log, settings),
        side={
            side: [feature.name for feature in table.features]
            for side, table in (("user", data.users), ("item", data.items))
            if table is not None and table.features
        },
        context=[feature.name for feature in data.context],
        seeds=len({row["seed"] for row in metrics}),
        **_measured(manifest, metrics),
        retrained=manifest.trained_until != manifest.fully_trained_until,
        state=manifest.weights,
        window=manifest.calibration.window,
        calibration=_calibration(manifest.calibration),
        cost=manifest.cost,
        versions=manifest.versions,
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def _meaning(task: TaskSettings, settings: RunSettings) -> str:
    """Return what the number of a task means."""
    given = f", given that `{task.given}` is done" if task.given else ""
    if task.kind == "regression":
        return f"the value of `{task.label}` when the item is shown{given}"
    if settings.form == "exposures":
        return f"the probability that it is done when the item is shown{given}"
    bucket = f"a time bucket of {settings.data.bucket}"
    return f"the probability that a user who is active in {bucket} does it on the item in that bucket{given}"


def _contents(graph: MacroGraph, zone: str) -> dict[str, Any]:
    """Return what the graph holds, from when to when, and how often it was changed since the training."""
    manifest = graph.manifest
    return {
        "events": manifest.events,
        "users": graph.latest.n_users,
        "items": graph.latest.n_items,
        "first": moment_of(manifest.first // 1_000_000, "1s", zone),
        "last": moment_of(manifest.last // 1_000_000, "1s", zone),
        "megabytes": sum(file.bytes for file in manifest.files.values()) / 1e6,
        "changes": len(manifest.changes),
    }


def _splits(log: Mapping[str, Any], settings: RunSettings) -> str:
    """Return a table with one line per split: where its windows begin, its examples and positives."""
    first = {"train": 0, "valid": settings.split.valid_window, "test": settings.split.valid_window + 1}
    return _table(
        ["split", "from", "examples", *(f"{task.name} done" for task in settings.tasks)],
        (
            [
                split,
                log["cuts"][first[split]],
                f"{counts['examples']:,}",
                *(f"{task['positives']:,}" for task in counts["tasks"].values()),
            ]
            for split, counts in log["splits"].items()
        ),
    )


def _measured(manifest: BundleManifest, metrics: Sequence[Row]) -> dict[str, str]:
    """Return tables of the test metrics with their intervals, and of parts of the test rows."""
    found = summarize(metrics)
    intervals = {(one["task"], one["metric"]): one for one in manifest.test}
    chief, values = headline(found), next(iter(found.values()), {})

    def interval(column: tuple[str, str]) -> str:
        one = intervals.get(column, {"low": None, "high": None})
        if one["low"] is None or math.isnan(one["low"]):
            return "-"
        digits = values[column].digits
        return f"{one['low']:.{digits}f} to {one['high']:.{digits}f}"

    def part(name: str) -> list[str]:
        measured = next(iter(summarize(metrics, slice=name).values()))
        examples = max(one.mean for (_, metric), one in measured.items() if metric == "examples")
        return [name, number(measured.get(chief)).words, f"{examples:,.0f}"]

    parts = dict.fromkeys(row["slice"] for row in metrics if row["slice"] != ALL)
    return {
        "measured": _table(
            ["metric", "test", "95 % interval"],
            (
                [head(column), number(values[column]).words, interval(column)]
                for column in main_columns(found)
            ),
        ),
        "parts": _table(["slice", head(chief), "examples"], map(part, parts)) if parts else "",
    }


def _calibration(calibration: Calibration) -> str:
    """Return a table with one line per calibrated task; empty without any."""

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    columns = [
        (when, measure)
        for measure in ("predicted_over_observed", "calibration_error")
        for when in ("before", "after")
    ]
    lines = [
        [
            name,
            f"{one.positives:,}",
            *(number(getattr(getattr(one, when), measure)) for when, measure in columns),
        ]
        for name, one in calibration.tasks.items()
    ]
    heads = ["task", "positives fitted", "predicted / observed", "after", "calibration error", "after"]
    return _table(heads, lines) if lines else ""


def _table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table as Markdown."""
    return as_markdown(Table(heads, [(name, [*map(Cell, cells)]) for name, *cells in lines]))
