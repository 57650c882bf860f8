"""`refresh`: live events into a new bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mgoe.cli.score import BundlePath
from mgoe.cli.show import Json, Overwrite, facts, say, show, show_json


def refresh(
    bundle: BundlePath,
    events: Annotated[
        str,
        typer.Option(
            "--events",
            metavar="STATE",
            help="State folder of the service, or redis://host:port.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new bundle.", show_default=False)],
    recluster: Annotated[
        bool,
        typer.Option(
            "--recluster", help="Learn macro nodes again; the model knows the former ones, so measure it."
        ),
    ] = False,
    trim: Annotated[
        bool,
        typer.Option(
            "--trim",
            help="Drop from the log what BUNDLE held before; no service may go back to an earlier one.",
        ),
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write a bundle whose graph holds the events that a service has taken; weights stay."""
    from mgoe import experiments

    written = experiments.refresh(
        bundle, events, out, recluster=recluster, trim=trim, overwrite=overwrite, say=say
    )
    told = {"path": str(out), "graph": written.graph.describe()}
    if as_json:
        show_json(told)
    else:
        show(facts(told["graph"]))
        say(f"wrote {out}")
