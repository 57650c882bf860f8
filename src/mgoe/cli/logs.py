"""Logs: look at one, draw one with known truth, or fetch a public data set and parse it into one."""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mgoe._util.files import remove_folder
from mgoe._util.progress import ProgressBar
from mgoe.cli.service import ExperimentFiles, RunBy
from mgoe.cli.shared import Json, Overwrite, examples, logger, show, show_facts, show_json
from mgoe.errors import ConfigError, OutputError

WorldFolder = Annotated[
    Path | None, typer.Option(help="With --serve: folder of the simulated log.", show_default=False)
]
Log = Annotated[
    str, typer.Argument(metavar="LOG", help="Parquet or CSV file, folder or glob.", show_default=False)
]
data = typer.Typer(help="Public data sets: list them, fetch one, parse it into a log.", no_args_is_help=True)
Name = Annotated[
    str, typer.Argument(metavar="NAME", help="A name that `mgoe data list` shows.", show_default=False)
]


def init(
    log: Log,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File to write; standard output by default.", show_default=False),
    ] = None,
    users: Annotated[
        Path | None,
        typer.Option(help="Table with a row per user, whose features are proposed.", show_default=False),
    ] = None,
    items: Annotated[Path | None, typer.Option(help="The same of items.", show_default=False)] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Look at a log, guess its columns and tasks, and write a configuration with comments."""
    import yaml

    from mgoe._util.files import write_text
    from mgoe.data import guess

    sides = {node: file for node, file in (("user", users), ("item", items)) if file is not None}
    text = guess(log, sides=sides)
    if out is not None:
        if out.exists() and not overwrite:
            raise OutputError(out, "exists already; choose another --out, or --overwrite to replace it")
        write_text(out, text)
        logger.info(f"read {out}, fix wrong guesses, then: mgoe run {out} --out runs/{out.stem}")
    if as_json:
        show_json(yaml.safe_load(text))
    elif out is None:
        print(text, end="")


def describe(
    what: Annotated[
        str,
        typer.Argument(
            metavar="LOG|CONFIG|BUNDLE", help="A log, a configuration that names one, or a bundle."
        ),
    ],
    as_json: Json = False,
) -> None:
    """Show counts, span, funnel, drift and nulls of a log with settings that suit it, or a bundle's facts."""
    path = Path(what)
    bundles = [folder for folder in (path, path / "bundle") if (folder / "bundle.json").exists()]
    if bundles:
        from mgoe.bundle import Bundle

        found = Bundle.open(bundles[0]).describe()
    else:
        import yaml

        from mgoe.config import make_settings
        from mgoe.data import guess, profile, read_settings

        configured = path.suffix in (".yaml", ".yml")
        found = profile(
            read_settings(path) if configured else make_settings(yaml.safe_load(guess(what)), what)
        )
    show_facts(found, as_json)


def simulate(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the logs and their truth.", show_default=False)
    ],
    users: Annotated[
        int | None, typer.Option(help="Number of users; 6,000 by default.", show_default=False)
    ] = None,
    items: Annotated[
        int | None, typer.Option(help="Number of items; 3,000 by default.", show_default=False)
    ] = None,
    exposures: Annotated[
        int | None,
        typer.Option(
            help="Number of shown items, the rows of the exposure log; 600,000 by default.",
            show_default=False,
        ),
    ] = None,
    events: Annotated[
        int | None,
        typer.Option(help="Expected rows of the event log, instead of exposures.", show_default=False),
    ] = None,
    form: Annotated[Literal["events", "exposures", "both"], typer.Option(help="Logs to write.")] = "both",
    seed: Annotated[
        int | None, typer.Option(help="The same seed draws the same log. 0 by default.", show_default=False)
    ] = None,
    content: Annotated[
        float | None,
        typer.Option(
            help="Write vectors of users and items that tell tastes with this correlation; 0 for noise.",
            show_default=False,
        ),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override another setting of the world, or with --serve of its visits: popularity=1.1.",
        ),
    ] = None,
    serve: Annotated[
        Path | None,
        typer.Option(
            metavar="BUNDLE",
            help="Serve this bundle to the users of --world, who act on what it recommends.",
            show_default=False,
        ),
    ] = None,
    world: WorldFolder = None,
    days: Annotated[
        int | None,
        typer.Option(
            min=1, help="With --serve: days in all that --out is to hold; 1 by default.", show_default=False
        ),
    ] = None,
    experiment: ExperimentFiles = None,
    http: Annotated[bool, typer.Option("--http", help="With --serve: ask over HTTP.")] = False,
    engine: RunBy = "onnx",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Draw logs with communities, a funnel, popularity and drift; show the best reachable AUC per task.

    With --serve, users of a simulated world visit a service over days, see what it recommends and act on it.
    """
    from mgoe.config import check_settings, overridden
    from mgoe.simulation import WorldSettings
    from mgoe.simulation import simulate as draw

    if events is not None and exposures is not None:
        raise ConfigError("--events", "also decides the number of exposures; leave out --exposures")
    options = {"users": users, "items": items, "exposures": exposures, "seed": seed, "content": content}
    if serve is not None:
        _check_nothing_is_drawn(options | {"seed": None, "events": events})
        found = visit(
            out, serve, world, days or 1, sets or (), seed, experiment or (), http, engine, overwrite
        )
        show_facts(found, as_json)
        return
    if world is not None or days is not None or experiment or http:
        rule = "are for a service; name its bundle with --serve, or set the days of a log with --set days=30"
        raise ConfigError("--world, --days, --experiment, --http", rule)
    raw = {name: value for name, value in options.items() if value is not None}
    settings = check_settings(WorldSettings, overridden(raw, sets or ()), "simulate")
    with ProgressBar("exposures") as bar:
        summary = draw(settings, out, events=events, form=form, overwrite=overwrite, on_progress=bar.update)
    if not as_json:
        logger.info(f"{summary.exposures:,} exposures, {summary.events:,} events in {summary.seconds:.1f} s")
    show_facts(vars(summary), as_json)


def _check_nothing_is_drawn(options: dict[str, Any]) -> None:
    if unfit := [name for name, value in options.items() if value is not None]:
        raise ConfigError(f"--{unfit[0]}", "is of a log that is drawn; leave it out, or leave out --serve")


@data.command("list", epilog=examples("mgoe data list", "mgoe data list --json"))
def list_(as_json: Json = False) -> None:
    """List form, tasks, size and licence of every data set."""
    from rich.table import Table

    from mgoe.config import names
    from mgoe.datasets import DATA_SETS, find

    columns = ("name", "form", "tasks", "size", "license")
    rows = [
        {column: getattr(find(name), column) for column in columns}
        for name in names("mgoe.data_sets", DATA_SETS)
    ]
    if as_json:
        show_json(rows)
        return
    table = Table(box=None, pad_edge=False, title_justify="left")
    for name in columns:
        table.add_column(name, overflow="fold", no_wrap=name == "name")
    for row in rows:
        table.add_row(*(row | {"tasks": ", ".join(row["tasks"])}).values())
    show(table)


@data.command(
    "describe", epilog=examples("mgoe data describe kuairand-pure", "mgoe data describe ali-ccp --json")
)
def describe_set(name: Name, as_json: Json = False) -> None:
    """Show home page, licence, addresses, checksums, files, the source of their layout, and protocols."""
    from pydantic import TypeAdapter

    from mgoe.datasets import find
    from mgoe.datasets.dataset import DataSetFacts

    show_facts(TypeAdapter(DataSetFacts).dump_python(find(name), mode="json"), as_json)


@data.command(
    epilog=examples(
        "mgoe data fetch movielens-1m --out raw/ml-1m               [dim]archives are kept in downloads/[/]",
        "mgoe data fetch aliexpress-nl --from downloads --out raw/ae-nl   [dim]unpack your own download[/]",
    )
)
def fetch(
    name: Name,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the files.", show_default=False)],
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FOLDER",
            help="Folder with archives that you fetched yourself, or one of them.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Download a data set, check its checksum, and unpack the files that `prepare` reads."""
    from mgoe.datasets import fetch as get
    from mgoe.datasets import find

    with ProgressBar("", unit="B") as bar:

        def on_progress(name: str, done: int, total: int | None) -> None:
            bar.update(done, total, title=name)

        found = get(find(name), out, source, on_progress=on_progress)
    show_facts(vars(found), as_json)
    if not as_json:
        logger.info(f"next: mgoe data prepare {name} --from {out} --out FOLDER")


@data.command(
    epilog=examples(
        "mgoe data prepare movielens-1m --from raw/ml-1m --out logs/ml-1m",
        "mgoe run logs/ml-1m/time.yaml --out runs/ml-1m        [dim]leak-free, by time[/]",
        "mgoe run logs/ml-1m/published.yaml --out runs/ml-1m-p   [dim]as its papers split it[/]",
    )
)
def prepare(
    name: Name,
    source: Annotated[
        Path,
        typer.Option(
            "--from",
            metavar="FOLDER",
            help="Folder that holds the unpacked files, anywhere below.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder of the log and its configurations.", show_default=False),
    ],
    memory: Annotated[
        float, typer.Option(help="GiB at most; what exceeds it is spilled to disk.", min=0.1)
    ] = 4.0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Parse a data set's files into a log, side tables, and one configuration per protocol."""
    from mgoe.datasets import find
    from mgoe.datasets import prepare as parse

    found = parse(find(name), source, out, memory=memory, overwrite=overwrite)
    show_facts(vars(found), as_json)
    if not as_json:
        logger.info(f"next: mgoe run {found.configs[0]} --out FOLDER")


def visit(
    out: Path,
    bundle: Path,
    world: Path | None,
    days: int,
    sets: Sequence[str],
    seed: int | None,
    experiment: Sequence[Path],
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
    from mgoe.config import check_settings, overridden
    from mgoe.serving.http.client import client
    from mgoe.serving.http.settings import ServeSettings
    from mgoe.simulation import Truth, Visits, VisitSettings
    from mgoe.simulation.loop import OUTCOMES, Service, first_day, play

    if world is None:
        raise ConfigError("--world", "must name the folder of a simulated log, whose users visit; give it")
    raw: dict[str, Any] = overridden({} if seed is None else {"seed": seed}, sets)
    visits = Visits(Truth.open(world), check_settings(VisitSettings, raw, "visits"))
    opened = Bundle.open(bundle)
    first = first_day(out)
    if first is None and out.exists() and any(out.iterdir()):
        raise OutputError(out, "holds files but no days of a world; choose a new folder")
    if overwrite:
        remove_folder(out)
    if first is None or overwrite:
        first = visits.day_after(opened.manifest.lineage.log[1])
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
            "limits": {"seconds": 3600},  # on a busy machine the same happens, later
        },
        "serve",
    )
    started = time.perf_counter()

    async def run() -> None:
        async with Service(partial(client, settings, http=http), visits) as service:
            await play(visits, service, out, range(first, first + days), bar.update, features)

    with ProgressBar("days") as bar:
        asyncio.run(run())
    played = ds.dataset(out / OUTCOMES)
    outcomes = played.to_table().to_pandas()
    sums = outcomes[[*visits.truth.settings.names, "stay", "value"]].sum()
    return {
        "path": str(out),
        "first": str(visits.date_of(first)),
        "days": len(played.files),
        "pages": int(outcomes["request"].nunique()),
        "shown": len(outcomes),
        "users": int(outcomes["user_id"].nunique()),
        "sums": {name: float(value) for name, value in sums.items()},
        "seconds": time.perf_counter() - started,
    }
