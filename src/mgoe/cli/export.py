"""`export`: a bundle's model in a form that other programs run."""

import math
from pathlib import Path
from typing import Annotated, Literal

import typer

from mgoe.cli.options import BundlePath, Json
from mgoe.cli.show import say, show, show_json, table


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
    precision: Annotated[
        Literal["float32", "int8"], typer.Option(help="Precision of weights in matrix products.")
    ] = "float32",
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
    from mgoe import experiments
    from mgoe.bundle import Bundle
    from mgoe.serving.scoring.onnx_export import export_whole
    from mgoe.serving.scoring.onnx_sessions import Session

    bundle = Bundle.open(path)
    export_whole(bundle.model, onnx, precision)
    compared = []
    if on is not None:
        before, after = (experiments.measure_pairs(one, on) for one in (bundle, bundle.run_by(Session(onnx))))
        compared = [
            {name: row[name] for name in ("task", "metric")}
            | {"bundle": row["value"], "exported": other["value"]}
            for row, other in zip(before, after, strict=True)
            if row["slice"] == "all"
        ]
    if as_json:
        show_json({"path": str(onnx), "precision": precision, "compared": compared})
        return
    say(f"{precision} model written: {onnx}")
    if compared:
        found = table(("task", "metric", "bundle", "exported", "difference"), left=2)
        for row in compared:
            before, after = float(row["bundle"]), float(row["exported"])
            if math.isfinite(before) and math.isfinite(after):  # an AUC of one class does not exist
                values = (f"{value:.5f}" for value in (before, after, after - before))
                found.add_row(str(row["task"]), str(row["metric"]), *values)
        show(found)
