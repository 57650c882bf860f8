"""The page of a run and the page of a macro graph."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mgoe._util.files import read_json
from mgoe.config import RunSettings, dump_settings
from mgoe.data import Encoders, Prepared, Vocabulary
from mgoe.evaluation import Estimate, Standings, report
from mgoe.features.macro_nodes import describe_macro_nodes
from mgoe.graph import MacroGraph
from mgoe.graph.matrices import lift
from mgoe.graph.pair_rows import SIDES, Side
from mgoe.pipeline.folder import RELIABILITY
from mgoe.pipeline.inputs import Inputs
from mgoe.pipeline.plan import Cell, Plan

GRAPH_FACTS = (
    "engine",
    "events",
    "first",
    "last",
    "users",
    "items",
    "pairs",
    "snapshots",
    "bytes",
    "seconds",
)
"""Facts of the page of a graph."""


def write_graph_page(graph: MacroGraph, path: Path) -> None:
    """Write a page of pictures.

    Raises:
        OutputError: It cannot be written.
    """
    described = graph.describe()
    report.write_report(
        path,
        report.ReportData(
            title=f"Macro graph {graph.path.name}",
            standings=Standings("", "", "", [], []),
            facts={name: described[name] for name in GRAPH_FACTS} | {"drift": graph.drift},
            macro=macro_view(graph),
        ),
    )


def macro_view(graph: MacroGraph, encoders: Encoders | None = None) -> report.MacroView:
    """Return the view of the latest snapshot at its dense resolution.

    Args:
        graph: The graph.
        encoders: Ids, names and features of users and items. Without them members are the ids that the graph
            holds, or indices if it holds none.
    """
    latest = graph.latest
    dense = latest.resolutions[latest.dense]
    users, items = (
        describe_macro_nodes(
            latest,
            side,
            _ids(graph, side) if encoders is None else getattr(encoders, f"{side}s"),
            getattr(encoders, f"{side}_side", None),
        )
        for side in SIDES
    )
    cold_users = int((np.asarray(dense.user_macro) == latest.macro_users).sum())
    cold_items = int((np.asarray(dense.item_macro) == latest.macro_items).sum())
    return report.MacroView(lift(dense.macro_edges), users, items, cold_users, cold_items)


def _ids(graph: MacroGraph, side: Side) -> Vocabulary | None:
    file = graph.path / f"{side}s.parquet"
    return Vocabulary.load(file) if file.exists() else None


def curves_of(plan: Plan) -> dict[str, dict[int, dict[str, Any]]]:
    """Return what `curves.json` of each cell of a finished run holds, by model and seed."""
    return {
        name: {
            cell.seed: read_json(cell.folder / "curves.json")
            for cell in plan.cells
            if cell.variant.name == name
        }
        for name in plan.variants
    }


def reliability_of(plan: Plan) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Return the reliability of each model of a finished run on test, with its first seed, by task."""
    return {
        cell.variant.name: read_json(cell.folder / RELIABILITY)
        for cell in plan.cells
        if cell.seed == plan.settings.seeds[0]
    }


def write_run_report(
    plan: Plan,
    inputs: Inputs,
    standings: Standings,
    estimates: Sequence[Estimate],
    best: Cell,
    command: str,
    seconds: float,
) -> None:
    """Write `report.html`.

    Args:
        plan: The run.
        inputs: Its log and graph.
        standings: Its table.
        estimates: Metrics of every model with their intervals.
        best: The cell in the bundle.
        command: The command that makes the report again.
        seconds: Time that this process took.
    """
    [settings] = [log.settings(0) for log in plan.logs.values()]
    summary, manifest = inputs.prepared.summary, inputs.graph.manifest
    models = (inputs.resolve_ids(variant.settings()) for variant in plan.variants.values())
    inputs_of = [f"{model.name}: {', '.join(model.inputs or ())}" for model in models]
    report.write_report(
        plan.out / "report.html",
        report.ReportData(
            title=f"{plan.comparison.lead} on {Path(settings.data.log[0]).name}",
            standings=standings,
            facts={
                "rows of the log": summary["rows"],
                "users": summary["users"],
                "items": summary["items"],
                "pairs with an event": manifest.pairs[-1],
                "snapshots of the graph": len(manifest.cuts),
                "groups of users / items": ", ".join(f"{ku} / {ki}" for ku, ki in manifest.resolutions),
                "seeds": len(settings.seeds),
                "time for the graph": duration(manifest.seconds),
                "time in all": duration(seconds),
            },
            estimates=estimates,
            curves=curves_of(plan),
            reliability=reliability_of(plan),
            macro=macro_view(inputs.graph, inputs.prepared),
            notes=[
                history_age(settings, inputs.prepared),
                negatives(settings, inputs.prepared),
                f"The bundle holds {best.title}, its best seed on validation.",
                *([REFIT] if best.refitted else []),
                "“Calibrated” columns are of test probabilities after calibration on validation; the bundle "
                "is calibrated on test, the newest labels. “Carried over” is the log loss that a map fitted "
                "to the test labels would save: near zero, the map of validation still fits.",
                f"Inputs: {'; '.join(inputs_of)}.",
            ],
            settings=dump_settings(settings),
            command=command,
        ),
    )


REFIT = (
    "Weights have three states. Chosen ones have learned the training rows: validation picks their epoch, "
    "and “calibrated” columns take the map that they gave there. Every figure on test is of tested weights, "
    "which have learned the validation rows too. The bundle holds served ones, which have learned the test "
    "rows too."
)
"""What the report says of a run whose weights learn the newest rows."""


def duration(seconds: float) -> str:
    """Return a time in seconds as people say it.

    Example:
        >>> duration(8.13), duration(475.1), duration(9000)
        ('8.1 s', '8 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def history_age(settings: RunSettings, prepared: Prepared) -> str:
    """Describe how old the history of examples is, which is the same for every model."""
    if (until := settings.data.history) != "cut":
        return f"Every model reads the same history: all that had happened before the {until} of an example."
    splits = prepared.summary["splits"]
    ages = ", ".join(f"{split} {facts['history_age']:.1f}" for split, facts in splits.items())
    several = settings.split.test_windows
    tested = f" Test is {several} windows, each with a snapshot of its own." if several > 1 else ""
    return (
        "Every model reads the same history: the latest snapshot strictly before the window of an example. "
        f"Mean age of that history in buckets of {settings.data.bucket}: {ages}.{tested}"
    )


def negatives(settings: RunSettings, prepared: Prepared) -> str:
    """Describe where negatives come from."""
    if settings.form == "exposures":
        return "Every row of the log was shown to somebody; those without the behaviour are the negatives."
    drawn, training = settings.negatives, settings.negatives.of_training
    others = f"; for validation and test {drawn.seed}" if training.seed != drawn.seed else ""
    share = "as often as they occur there" if drawn.distribution == "popularity" else "each once"
    source = f"the items of the same bucket, {share}, and dropped only if the user did that item there"
    if settings.data.history == "moment":
        source = "what other users did next in the same bucket, and dropped if the user did that item there"
    return (
        f"The log holds only what happened. Per positive, {drawn.ratio} negatives were drawn (seed "
        f"{training.seed}{others}) from {source}. "
        f"{prepared.summary['negatives_per_positive']:.2f} negatives per positive remain in training. "
        "Validation and test hold the same kind."
    )
