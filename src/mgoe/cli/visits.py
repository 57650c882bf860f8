"""`simulate --serve`: a service in this process, and the users of a simulated world who visit it."""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mgoe._util.files import remove_folder
from mgoe._util.progress import ProgressBar
from mgoe.errors import ConfigError, OutputError


def visit(
    out: Path,
    bundle: Path,
    world: Path | None,
    days: int,
    sets: Sequence[str],
    seed: int | None,
    experiment: Path | None,
    http: bool,
    engine: str,
    overwrite: bool,
) -> dict[str, Any]:
    """Let users visit a bundle's service for some days in all, and return what happened.

    Raises:
        ConfigError: There is no world.
        OutputError: The folder holds something else.
        MgoeError: The service is of another world, or cannot serve.
    """
    import pyarrow.dataset as ds

    from mgoe.bundle import Bundle
    from mgoe.config import apply_override, check_settings
    from mgoe.serving.http.client import client
    from mgoe.serving.http.settings import ServeSettings
    from mgoe.simulation import Truth, Visits, VisitSettings
    from mgoe.simulation.loop import Service, first_day, play

    if world is None:
        raise ConfigError("--world", "must name the folder of a simulated log, whose users visit; give it")
    raw: dict[str, Any] = {} if seed is None else {"seed": seed}
    for override in sets:
        apply_override(raw, override)
    visits = Visits(Truth.open(world), check_settings(VisitSettings, raw, "visits"))
    opened = Bundle.open(bundle)
    if overwrite:
        remove_folder(out)
    first = first_day(out)
    if first is None and out.exists() and any(out.iterdir()):
        raise OutputError(out, "holds files but no days of a world; choose a new folder, or `overwrite` it")
    if first is None:
        first = visits.day_after(opened.manifest["lineage"]["log"][1])
    features = [one.name for one in getattr(opened.settings.data.items, "features", ())]
    settings = check_settings(
        ServeSettings,
        {
            "bundle": bundle,
            "state": out / "state",
            "experiment": experiment,
            "access_log": False,
            "port": 0,
            "runtime": {"engine": engine},
        },
        "serve",
    )
    started = time.perf_counter()

    async def run() -> None:
        async with Service(partial(client, settings, http=http), visits) as service:
            await play(visits, service, out, range(first, first + days), bar.update, features)

    with ProgressBar("days") as bar:
        asyncio.run(run())
    found = ds.dataset(out / "outcomes").to_table().to_pandas()
    sums = found[[*visits.truth.settings.names, "stay", "value"]].sum()
    return {
        "path": str(out),
        "first": str(visits.date_of(first)),
        "days": days,
        "pages": int(found["request"].nunique()),
        "shown": len(found),
        "users": int(found["user_id"].nunique()),
        "sums": {name: float(value) for name, value in sums.items()},
        "seconds": time.perf_counter() - started,
    }
