"""`refresh`: live events into a new bundle."""

from pathlib import Path
from typing import Annotated

import typer

from mgoe.cli.options import BundlePath, Json, Overwrite
from mgoe.cli.show import facts, say, show, show_json


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
            "--recluster",
            help="Learn macro nodes again. The model was trained on the former ones, so measure it.",
        ),
    ] = False,
    trim: Annotated[
        bool,
        typer.Option(
            "--trim",
            help="Remove from the log what BUNDLE already held. No service may return to an earlier bundle.",
        ),
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write a bundle whose graph holds the events that a service has taken. The weights stay."""
    from mgoe import experiments

    options = {"recluster": recluster, "trim": trim, "overwrite": overwrite}
    graph = experiments.refresh(bundle, events, out, **options, say=say).graph.describe()
    if as_json:
        show_json({"path": str(out), "graph": graph})
    else:
        show(facts(graph))
        say(f"wrote {out}")
