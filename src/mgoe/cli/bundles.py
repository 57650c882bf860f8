"""Commands on a bundle: measure it, score with it, export it."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import mgoe
from mgoe import batch, experiments
from mgoe._util.progress import ProgressBar
from mgoe.cli.shared import (
    BundlePath,
    Engine,
    Json,
    Master,
    Overwrite,
    Redis,
    RedisPassword,
    State,
    cluster_of,
    logger,
    open_bundle,
    show,
    show_blocks,
    show_json,
    show_leads,
    show_written,
    table,
)
from mgoe.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa


Jobs = Annotated[
    int, typer.Option(min=1, help="Processes that score pairs side by side, of one thread each.")
]


def evaluate(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="BUNDLE|RUN", help="A bundle, or the --out of a run, finished or not.", show_default=False
        ),
    ],
    pairs: Annotated[
        str | None,
        typer.Argument(
            metavar="[PAIRS]",
            help="Pairs to measure a bundle on, with one 0/1 (or value) column per task.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="`valid`, or `test`, the default.", show_default=False)
    ] = None,
    part: Annotated[
        str, typer.Option("--slice", help="`all`, or a slice of the examples such as `new-pairs`.")
    ] = "all",
    jobs: Jobs = 1,
    rolling: Annotated[
        int | None,
        typer.Option(
            min=3,
            help="Measure what a day of age costs: train a model of a finished RUN up to each of its last "
            "windows, so many, and measure each training on all later ones.",
            show_default=False,
        ),
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0, help="With --rolling, loss of the mean at which weights are too old.")
    ] = 0.001,
    model: Annotated[
        str | None,
        typer.Option(
            help="With --rolling, one of the run's models; the first by default.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what was measured, or measure a bundle on new labelled pairs, or what a day of age costs."""
    from mgoe.config import did_you_mean
    from mgoe.evaluation import rich_table

    if rolling is not None:
        if pairs is not None or split is not None or part != "all":
            raise ConfigError(
                "--rolling", "measures the windows of a run as they are; leave out pairs, --split and --slice"
            )
        _show_ageing(experiments.measure_ageing(path, rolling, threshold, model), as_json)
        return
    if pairs is not None:
        if split is not None:
            raise ConfigError(
                "--split", "is a split of the log, and the pairs are a file of their own; leave it out"
            )
        with ProgressBar("measuring", unit="pairs") as bar:
            rows = batch.measure_pairs(mgoe.load(path), pairs, jobs, bar.update)
        split = "new"
    else:
        rows, split = experiments.measured(path), split or "test"
    for option, value, name in (("--split", split, "split"), ("--slice", part, "slice")):
        valid = sorted({row[name] for row in rows})
        if value not in valid:
            raise ConfigError(option, f"{value!r} was not measured{did_you_mean(value, valid)}")
    leads = experiments.leads(path) if (split, part) == ("test", "all") else []
    if as_json:
        show_json(
            {
                "metrics": [row for row in rows if (row["split"], row["slice"]) == (split, part)],
                "leads": leads,
            }
        )
        return
    show(rich_table(rows, split=split, slice=part))
    show_leads(leads)


def _show_ageing(ageing: "experiments.Ageing", as_json: bool) -> None:
    from mgoe.evaluation.rows import MEAN, TITLES

    if as_json:
        show_json(ageing)
        return
    for title, per_day in (("loss per day of age", True), ("loss by age", False)):
        found = table(("task", "metric", "days", title, "95 % interval"), left=2)
        for loss in ageing.losses:
            if (loss.windows is None) == per_day and (per_day or (loss.task, loss.metric) == MEAN):
                interval = "" if math.isnan(loss.low) else f"{loss.low:+.5f} to {loss.high:+.5f}"
                found.add_row(
                    loss.task,
                    TITLES.get(loss.metric, loss.metric),
                    f"{loss.days:.3g}",
                    f"{loss.value:+.5f}",
                    interval,
                )
        show(found)
        show("")
    lost = f"{ageing.threshold:g} on the mean"
    show(
        f"When {lost} is lost is not measurable within {ageing.trainings} windows."
        if ageing.update_after is None
        else f"Weights lose {lost} in {ageing.update_after:.3g} days: update as often."
    )
    learned = f"{ageing.trainings} trainings on {ageing.rows:,} rows each"
    show(f"{ageing.model}, {learned}, seeds: {ageing.seeds}, in {ageing.seconds:,.0f} s")


def predict(
    bundle: BundlePath,
    pairs: Annotated[
        str,
        typer.Argument(
            metavar="PAIRS", help="Parquet or CSV file, folder or glob with the log's user and item columns."
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", help="Scores as .parquet or .csv; standard output, as CSV, by default."),
    ] = None,
    jobs: Jobs = 1,
    engine: Engine = "local",
    master: Master = None,
    overwrite: Overwrite = False,
    state: State = None,
    redis: Redis = None,
    redis_password_file: RedisPassword = None,
    as_json: Json = False,
) -> None:
    """Score pairs: one row per pair, one probability (or value) per task."""
    opened = open_bundle(bundle, state, redis, redis_password_file)
    if spark := cluster_of(opened, engine, master, out, overwrite, jobs):
        rows = batch.score_on_spark(opened, pairs, str(out), spark, overwrite)
        show_written("pairs scored", opened, rows, str(out), as_json)
    else:
        with ProgressBar("scoring", unit="pairs") as bar:
            blocks = batch.score_pairs(opened, pairs, jobs, bar.update)
            show_blocks("pairs scored", opened, blocks, _scores, out, as_json)


def _scores(opened: "mgoe.Bundle", block: "pa.Table") -> list[dict[str, Any]]:
    data = opened.settings.data
    return [
        {"user": row[data.user], "item": row[data.item], "tasks": {task: row[task] for task in opened.tasks}}
        for row in block.to_pylist()
    ]


def export(
    path: BundlePath,
    onnx: Annotated[
        Path,
        typer.Option(
            "--onnx",
            help="File to write; its weights are stored beside it, in `<name>.data`.",
            show_default=False,
        ),
    ],
    on: Annotated[
        str | None,
        typer.Option(
            "--on",
            help="Labelled pairs on which the written model is compared with the bundle.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a bundle's model as an ONNX graph: named batches in, one probability (or value) per task out."""
    from mgoe.serving.scoring.onnx_export import export_whole
    from mgoe.serving.scoring.onnx_sessions import Session

    bundle = mgoe.load(path)
    export_whole(bundle.model, onnx)
    compared = []
    if on is not None:
        before, after = (batch.measure_pairs(one, on) for one in (bundle, bundle.run_by(Session(onnx))))
        compared = [
            {name: row[name] for name in ("task", "metric")}
            | {"bundle": row["value"], "exported": other["value"]}
            for row, other in zip(before, after, strict=True)
            if row["slice"] == "all"
        ]
    if as_json:
        show_json({"path": str(onnx), "compared": compared})
        return
    logger.info(f"model written: {onnx}")
    if compared:
        found = table(("task", "metric", "bundle", "exported", "difference"), left=2)
        for row in compared:
            before, after = float(row["bundle"]), float(row["exported"])
            if math.isfinite(before) and math.isfinite(after):  # an AUC of one class does not exist
                numbers = (f"{value:.5f}" for value in (before, after, after - before))
                found.add_row(str(row["task"]), str(row["metric"]), *numbers)
        show(found)
