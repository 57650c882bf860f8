"""`export`: a bundle's model in a form that others run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import typer

from mgoe.cli.score import BundlePath
from mgoe.cli.show import Json, say, show, show_json


def export(
    path: BundlePath,
    onnx: Annotated[
        Path,
        typer.Option(
            "--onnx", help="File to write; its weights come beside it, in `<name>.data`.", show_default=False
        ),
    ],
    precision: Annotated[
        Literal["float32", "int8"], typer.Option(help="Of weights in matrix products.")
    ] = "float32",
    on: Annotated[
        str | None,
        typer.Option(
            "--on",
            help="Labelled pairs on which what was written is compared with the bundle.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a bundle's model as an ONNX graph: batches by name in, a probability (or value) a task out."""
    from rich.table import Table

    from mgoe import experiments
    from mgoe.bundle import Bundle
    from mgoe.serving.scoring.onnx_export import export_whole
    from mgoe.serving.scoring.onnx_sessions import Session

    bundle = Bundle.open(path)
    export_whole(bundle.model, onnx, precision)
    compared = []
    if on is not None:
        before, after = (
            experiments.measure_pairs(bundle, on),
            experiments.measure_pairs(bundle.run_by(Session(onnx)), on),
        )
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
        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in ("task", "metric", "bundle", "exported", "difference"):
            table.add_column(column, justify="left" if column in ("task", "metric") else "right")
        for row in compared:
            found, exported = float(row["bundle"]), float(row["exported"])
            if math.isfinite(found) and math.isfinite(exported):  # an AUC of one class does not exist
                table.add_row(
                    str(row["task"]),
                    str(row["metric"]),
                    *(f"{value:.5f}" for value in (found, exported, exported - found)),
                )
        show(table)
