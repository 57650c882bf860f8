"""`simulate`: logs with known truth."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mgoe._util.progress import ProgressBar
from mgoe.cli.options import Json, Overwrite
from mgoe.cli.show import facts, say, show, show_json


def simulate(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the logs and their truth.", show_default=False)
    ],
    users: Annotated[int | None, typer.Option(help="6,000 by default.", show_default=False)] = None,
    items: Annotated[int | None, typer.Option(help="3,000 by default.", show_default=False)] = None,
    exposures: Annotated[
        int | None,
        typer.Option(help="Shown items: rows of the exposure log. 600,000 by default.", show_default=False),
    ] = None,
    events: Annotated[
        int | None,
        typer.Option(help="Expected rows of the event log, instead of exposures.", show_default=False),
    ] = None,
    form: Annotated[Literal["events", "exposures", "both"], typer.Option(help="Logs to write.")] = "both",
    seed: Annotated[
        int | None, typer.Option(help="The same seed draws the same log. 0 by default.", show_default=False)
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override another setting of the world: --set popularity=1.1."
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Draw logs with communities, a funnel, popularity and drift; show the best reachable AUC per task."""
    from mgoe.config import apply_override, check_settings
    from mgoe.errors import ConfigError
    from mgoe.simulation import WorldSettings
    from mgoe.simulation import simulate as draw

    if events is not None and exposures is not None:
        raise ConfigError("--events", "also decides the number of exposures; leave out --exposures")
    options = {"users": users, "items": items, "exposures": exposures, "seed": seed}
    raw: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    for override in sets or ():
        apply_override(raw, override)
    settings = check_settings(WorldSettings, raw, "simulate")
    with ProgressBar("exposures") as bar:
        summary = draw(settings, out, events=events, form=form, overwrite=overwrite, on_progress=bar.update)
    if as_json:
        show_json(asdict(summary))
        return
    say(f"{summary.exposures:,} exposures, {summary.events:,} events in {summary.seconds:.1f} s")
    show(facts(asdict(summary)))
