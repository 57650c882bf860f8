"""From a finished run to its report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mgoe.config import ModelSettings, RunSettings, dump_settings
from mgoe.data import Prepared
from mgoe.evaluation import Estimate, Influence, Row, estimate, find_leads, report
from mgoe.experiments.cell import INFLUENCE, Cell
from mgoe.graph import MacroGraph


def estimates(settings: RunSettings, out: Path, models: Sequence[ModelSettings]) -> list[Estimate]:
    """Return test metrics of every model with intervals, and the leads of the first one over every other."""
    influences = {
        model.name: {
            seed: Influence.load(Cell(out, model, seed).folder / INFLUENCE) for seed in settings.seeds
        }
        for model in models
    }
    first = models[0].name
    own = [one for name, seeds in influences.items() for one in estimate(name, list(seeds.values()))]
    return own + find_leads(first, influences[first], influences)


def write_report(
    settings: RunSettings,
    out: Path,
    prepared: Prepared,
    graph: MacroGraph,
    models: Sequence[ModelSettings],
    rows: Sequence[Row],
    best: Cell,
    command: str,
    seconds: float,
) -> None:
    """Write `report.html`.

    Args:
        settings, out: Of the run.
        prepared, graph: Its data.
        models: Resolved, in order.
        rows: Of `metrics.json`.
        best: The cell in the bundle.
        command: That makes it again.
        seconds: Taken by this process.
    """
    summary, latest = prepared.summary, graph.latest
    dense = latest.resolutions[latest.dense]
    cells = {model.name: {seed: Cell(out, model, seed).folder for seed in settings.seeds} for model in models}
    data = report.ReportData(
        title=f"MGOE on {Path(settings.data.log[0]).name}",
        rows=rows,
        lead=models[0].name,
        facts={
            "rows": summary["rows"],
            "users": summary["users"],
            "items": summary["items"],
            "pairs": graph.meta["pairs"][-1],
            "snapshots": len(graph.meta["cuts"]),
            "macro nodes": ", ".join(f"{ku}/{ki}" for ku, ki in graph.meta["resolutions"]),
            "seeds": len(settings.seeds),
            "graph seconds": round(graph.meta["seconds"], 1),
            "seconds": round(seconds, 1),
        },
        estimates=estimates(settings, out, models),
        curves={
            name: {seed: _read(folder / "curves.json") for seed, folder in seeds.items()}
            for name, seeds in cells.items()
        },
        reliability={
            name: _read(seeds[settings.seeds[0]] / "reliability.json") for name, seeds in cells.items()
        },
        macro=report.MacroView.of(
            dense.macro_edges,
            dense.user_macro,
            dense.item_macro,
            latest.arrays["user_sum"],
            latest.arrays["item_sum"],
            lambda codes: prepared.users.ids(codes).to_pylist(),
            lambda codes: prepared.items.ids(codes).to_pylist(),
        ),
        history_age=history_age(settings, prepared),
        negatives=negatives(settings, prepared),
        notes=[f"The bundle holds {best.title}, which validation prefers.", inputs_note(models)],
        settings=dump_settings(settings),
        command=command,
    )
    report.write_report(out / "report.html", data)


def history_age(settings: RunSettings, prepared: Prepared) -> str:
    """How old the history of examples is, the same for every model."""
    ages = ", ".join(
        f"{split} {facts['history_age']:.1f}" for split, facts in prepared.summary["splits"].items()
    )
    return (
        f"Every model reads the same history: the latest snapshot strictly before the window of an example. Mean age of that "
        f"history in buckets of {settings.data.bucket}: {ages}."
    )


def negatives(settings: RunSettings, prepared: Prepared) -> str:
    """Where negatives come from."""
    if settings.form == "exposures":
        return "Every row of the log was shown to somebody; those without the behaviour are the negatives."
    drawn, taught = settings.negatives, settings.negatives.of_training
    seeds = (
        f"seed {drawn.seed}"
        if taught.seed == drawn.seed
        else f"seed {taught.seed}; for validation and test {drawn.seed}"
    )
    share = "as often as they occur there" if drawn.distribution == "popularity" else "each once"
    return (
        f"The log holds only what happened. For each positive {drawn.ratio} negatives were drawn ({seeds}) from the items of the "
        f"same bucket, {share}, and dropped only if the user did that item in that bucket: "
        f"{prepared.summary['negatives_per_positive']:.2f} a positive remain in training. Validation and test hold the same kind."
    )


def inputs_note(models: Sequence[ModelSettings]) -> str:
    """What each model reads."""
    return "Inputs: " + "; ".join(f"{model.name}: {', '.join(model.inputs or ())}" for model in models) + "."


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))
