"""HTML pages: `report.html` of a run, and pictures of a macro graph."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgoe._util.files import read_json
from mgoe.config import ModelSettings, RunSettings, dump_settings
from mgoe.data import Prepared, Vocabulary
from mgoe.evaluation import Estimate, Row, report
from mgoe.experiments.cell import RELIABILITY, Inputs
from mgoe.experiments.plan import Cell, Plan
from mgoe.graph import MacroGraph

FACTS = (
    "engine",
    "events",
    "from",
    "to",
    "users",
    "items",
    "pairs",
    "snapshots",
    "bytes",
    "seconds",
)


def write_graph_page(graph: MacroGraph, path: Path) -> None:
    """Write a page of pictures.

    Raises:
        OutputError: It cannot be written.
    """
    described = graph.describe()
    facts = {name: described[name] for name in FACTS} | {"drift": graph.drift}
    files = [graph.path / f"{node}s.parquet" for node in ("user", "item")]
    users, items = [Vocabulary.load(file) if file.exists() else None for file in files]
    title = f"Macro graph {graph.path.name}"
    macro = macro_view(graph, users, items)
    report.write_report(path, report.ReportData(title=title, rows=[], facts=facts, macro=macro))


def macro_view(graph: MacroGraph, users: Vocabulary | None, items: Vocabulary | None) -> report.MacroView:
    """Return the view of the latest, densest resolution. Without vocabularies members are indices."""

    def ids(vocabulary: Vocabulary | None, nodes: NDArray[np.int64]) -> list[Any]:
        return nodes.tolist() if vocabulary is None else vocabulary.ids(nodes).to_pylist()

    latest = graph.latest
    dense = latest.resolutions[latest.dense]
    return report.MacroView.of(
        dense.macro_edges,
        dense.user_macro,
        dense.item_macro,
        latest.arrays["user_sum"],
        latest.arrays["item_sum"],
        partial(ids, users),
        partial(ids, items),
    )


def write_run_report(
    plan: Plan,
    inputs: Inputs,
    rows: Sequence[Row],
    estimates: Sequence[Estimate],
    best: Cell,
    command: str,
    seconds: float,
) -> None:
    """Write `report.html`.

    Args:
        plan: The run.
        inputs: Its log and graph.
        rows: Rows of `metrics.json`.
        estimates: Metrics and leads with their intervals.
        best: The cell in the bundle.
        command: The command that makes the report again.
        seconds: Time that this process took.
    """
    [settings] = [log.settings(0) for log in plan.logs.values()]
    summary, meta = inputs.prepared.summary, inputs.graph.meta
    models = [inputs.decided(contestant.settings()) for contestant in plan.contestants.values()]
    curves: dict[str, dict[int, dict]] = {name: {} for name in plan.contestants}
    reliability = {}
    for cell in plan.cells:
        curves[cell.contestant.name][cell.seed] = read_json(cell.folder / "curves.json")
        if cell.seed == settings.seeds[0]:
            reliability[cell.contestant.name] = read_json(cell.folder / RELIABILITY)
    data = report.ReportData(
        title=f"MGOE on {Path(settings.data.log[0]).name}",
        rows=rows,
        lead=plan.comparison.lead,
        facts={
            "rows": summary["rows"],
            "users": summary["users"],
            "items": summary["items"],
            "pairs": meta["pairs"][-1],
            "snapshots": len(meta["cuts"]),
            "macro nodes": ", ".join(f"{ku}/{ki}" for ku, ki in meta["resolutions"]),
            "seeds": len(settings.seeds),
            "graph seconds": round(meta["seconds"], 1),
            "seconds": round(seconds, 1),
        },
        estimates=estimates,
        curves=curves,
        reliability=reliability,
        macro=macro_view(inputs.graph, inputs.prepared.users, inputs.prepared.items),
        history_age=history_age(settings, inputs.prepared),
        negatives=negatives(settings, inputs.prepared),
        notes=[f"The bundle holds {best.title}, the best on validation.", inputs_note(models)],
        settings=dump_settings(settings),
        command=command,
    )
    report.write_report(plan.out / "report.html", data)


def history_age(settings: RunSettings, prepared: Prepared) -> str:
    """Describe how old the history of examples is, which is the same for every model."""
    ages = ", ".join(
        f"{split} {facts['history_age']:.1f}" for split, facts in prepared.summary["splits"].items()
    )
    rule = "Every model reads the same history: the latest snapshot strictly before the window of an example."
    return f"{rule} Mean age of that history in buckets of {settings.data.bucket}: {ages}."


def negatives(settings: RunSettings, prepared: Prepared) -> str:
    """Describe where negatives come from."""
    if settings.form == "exposures":
        return "Every row of the log was shown to somebody; those without the behaviour are the negatives."
    drawn, training = settings.negatives, settings.negatives.of_training
    seeds = f"seed {training.seed}"
    if training.seed != drawn.seed:
        seeds += f"; for validation and test {drawn.seed}"
    share = "as often as they occur there" if drawn.distribution == "popularity" else "each once"
    remain = prepared.summary["negatives_per_positive"]
    return (
        f"The log holds only what happened. Per positive, {drawn.ratio} negatives were drawn ({seeds}) "
        f"from the items of the same bucket, {share}, and dropped only if the user did that item there. "
        f"{remain:.2f} negatives per positive remain in training. Validation and test hold the same kind."
    )


def inputs_note(models: Iterable[ModelSettings]) -> str:
    """List what each model reads."""
    return "Inputs: " + "; ".join(f"{model.name}: {', '.join(model.inputs or ())}" for model in models) + "."
