"""`run`, `train`: from a configuration to a bundle, whole or one model."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from mgoe.cli.score import show_leads
from mgoe.cli.show import Config, Json, Overwrite, Set, say, show, show_json

Out = Annotated[
    Path,
    typer.Option(
        "--out", "-o", help="Folder of the results; an unfinished run of the same settings is gone on with."
    ),
]


def run(
    config: Config,
    out: Out,
    sets: Set = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Training processes side by side.")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Prepare, build, train every model with every seed, compare, bundle and report."""
    from mgoe import experiments
    from mgoe.config import load_settings
    from mgoe.evaluation import rich_table

    settings = load_settings(config, [*(sets or ()), *([f"jobs={jobs}"] if jobs else ())])
    result = experiments.run(settings, out, overwrite=overwrite, say=say, command=command())
    if as_json:
        show_json(
            {
                "path": str(out),
                "bundle": str(out / "bundle"),
                "report": str(out / "report.html"),
                "metrics": result.rows,
            }
        )
        return
    show(rich_table(result.rows, name=f"Test, {len(settings.seeds)} seed{'s' * (len(settings.seeds) > 1)}"))
    show_leads(experiments.leads(out))
    show(f"\nreport {out / 'report.html'}\nbundle {out / 'bundle'}\nnumbers {out / 'metrics.json'}")


def train(
    config: Config,
    out: Out,
    model: Annotated[
        str | None,
        typer.Option(help="One of the configuration's models; the first by default.", show_default=False),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The first of the configuration's by default.", show_default=False)
    ] = None,
    resume: Annotated[
        Literal["auto", "never"],
        typer.Option(
            help="Go on from the last checkpoint of a fit that was cut off, or never: begin it anew."
        ),
    ] = "auto",
    sets: Set = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train one model and write its bundle; `run` with the same --out goes on with the others."""
    from mgoe import experiments
    from mgoe.config import load_settings
    from mgoe.evaluation import rich_table

    settings = load_settings(config, sets or ())
    rows = experiments.train(
        settings, out, model, seed, overwrite=overwrite, resume=resume == "auto", say=say
    )
    if not rows:  # another process shows them
        return
    if as_json:
        show_json({"path": str(out), "bundle": str(out / "bundle"), "metrics": rows})
        return
    show(rich_table(rows, name="Test"))
    show(f"\nbundle {out / 'bundle'}")


def command() -> str:
    """The command line as typed, for the report."""
    return shlex.join(["mgoe", *sys.argv[1:]])
