"""What commands share: options, examples, and how they print.

Results go to standard output, progress to standard error, and colour only to a terminal.
"""

import logging
import math
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

import mgoe
from mgoe import serving
from mgoe._util.files import as_json
from mgoe.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

    from mgoe.config import SparkSettings
    from mgoe.evaluation import Estimate

logger = logging.getLogger("mgoe.cli")
"""Receives what commands tell beside their results; `mgoe` prints it on standard error."""
PLAIN_WIDTH = 240
"""Width where there is no terminal, so that no line of a table is folded."""
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]
Config = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="YAML file; `mgoe init LOG` writes one.", show_default=False)
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a setting: --set training.epochs=2. Repeatable."
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out", "-o", help="Folder of the results. An unfinished run with the same settings resumes."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier command wrote there.")]
Engine = Annotated[
    Literal["local", "spark"],
    typer.Option(help="`spark` reads, scores and writes Parquet on a cluster; --out is a folder or URL."),
]
Master = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="With --engine spark: the cluster, such as spark://HOST:7077 or sc://HOST:15002; by default "
        "`spark.master` of the bundle's settings.",
        show_default=False,
    ),
]
BundlePath = Annotated[
    Path,
    typer.Argument(
        metavar="BUNDLE", help="Folder that `mgoe run` or `mgoe train` wrote.", show_default=False
    ),
]
State = Annotated[
    Path | None,
    typer.Option(help="Folder of live events: the --state of the service.", show_default=False),
]
Adopt = Annotated[
    bool,
    typer.Option(
        "--adopt",
        help="Use what is of another deployment: `serve` moves the store, `update` and `registry add` the "
        "bundle.",
    ),
]
Redis = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Redis with live events and exposures: redis://HOST:6379/0?prefix=NAME. With it, --state is the "
        "folder of its replica.",
        show_default=False,
    ),
]
RedisPassword = Annotated[
    Path | None,
    typer.Option(help="File with the password of Redis; MGOE_REDIS_PASSWORD otherwise.", show_default=False),
]


def live_events(state: Path | None, redis: str | None, password: Path | None) -> str | None:
    """Return where the live events of a service are, if anywhere."""
    from mgoe.serving.events.stores import with_query

    if redis is not None:
        return with_query(redis, state=state, password_file=password)
    return None if state is None else str(state)


def open_bundle(path: Path, state: Path | None, redis: str | None, password: Path | None) -> "mgoe.Bundle":
    """Open a bundle, with live events if there are some."""
    bundle, events = mgoe.load(path), live_events(state, redis, password)
    return bundle if events is None else serving.LiveBundle(bundle, serving.open_log(events, make=False))


def cluster_of(
    bundle: "mgoe.Bundle", engine: str, master: str | None, out: str | None, overwrite: bool, jobs: int
) -> "SparkSettings | None":
    """Return the cluster of `--engine spark`; None without it.

    Raises:
        ConfigError: An option is missing, or is for the other engine.
    """
    if engine == "local":
        if master is not None or overwrite:
            option = "--overwrite" if master is None else "--master"
            raise ConfigError(option, "is for --engine spark, found local; leave it out, or add the engine")
        return None
    if out is None or jobs > 1:
        found = "no --out" if out is None else f"--jobs {jobs}"
        raise ConfigError("--engine spark", f"takes --out and no --jobs, found {found}; correct it")
    return bundle.settings.spark.model_copy(update={} if master is None else {"master": master})


def show_blocks(
    what: str,
    bundle: "mgoe.Bundle",
    blocks: "Iterator[pa.Table]",
    entries: "Callable[[mgoe.Bundle, pa.Table], list[dict[str, Any]]]",
    out: str | None,
    as_json: bool,
) -> None:
    """Write tables that a bundle makes to a file, or print them on standard output: as CSV, or as JSON."""
    import pyarrow.csv as csv

    from mgoe.batch import write_blocks

    if out is not None:
        show_written(what, bundle, write_blocks(blocks, out), out, as_json)
        return
    if as_json:
        show_json([entry for block in blocks for entry in entries(bundle, block)])
        return
    for number, block in enumerate(blocks):
        csv.write_csv(block, typer.get_binary_stream("stdout"), csv.WriteOptions(include_header=number == 0))


def examples(*lines: str) -> str:
    """Return the examples at the end of a command's help."""
    return "\n\n".join(["[bold]Examples[/]", *(f"  {line}" for line in lines)])


def command() -> str:
    """Return the command line as typed, for the report."""
    return shlex.join(["mgoe", *sys.argv[1:]])


def show(what: Table | str) -> None:
    """Print a result for people on standard output."""
    # Without markup: ids and names may hold brackets. Not cropped: a narrow terminal folds long lines.
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False, markup=False)
    console.print(what, crop=False)


def show_json(value: Any) -> None:
    """Print a result for programs: JSON alone on standard output, with null for numbers that do not exist."""
    print(as_json(value))


def show_outcome(line: str, values: Mapping[str, Any], as_json: bool) -> None:
    """Print what was done: its values for programs, or a line beside the results for people."""
    if as_json:
        show_json(values)
    else:
        logger.info(line)


def show_written(what: str, bundle: "mgoe.Bundle", rows: int, out: str, as_json: bool) -> None:
    """Print where rows of a bundle were written."""
    show_outcome(f"{rows:,} {what}: {out}", {"path": out, "rows": rows, "tasks": bundle.tasks}, as_json)


def table(columns: Sequence[str], left: int = 1) -> Table:
    """Return an empty table whose first columns are names and whose others are numbers."""
    found = Table(box=None, header_style="bold", pad_edge=False)
    for number, column in enumerate(columns):
        found.add_column(column, justify="left" if number < left else "right")
    return found


def show_leads(leads: Sequence["Estimate"]) -> None:
    """Print how far the first model leads each other, one per line."""
    for lead in leads:
        interval = f"95 % interval {lead.low:+.{lead.digits}f} to {lead.high:+.{lead.digits}f}"
        if math.isnan(lead.low):
            interval = "no interval: too few users contribute to it"
        mean = f"{lead.value:+.{lead.digits}f} on the mean, {interval}"
        show(
            f"{lead.model} - {lead.baseline}: {'the mean does not exist' if math.isnan(lead.value) else mean}"
        )


def show_notices(notices: Sequence[str]) -> None:
    """Print what is odd about a log or its results, one sentence per line, with a line after them."""
    for notice in notices:
        show(f"note: {notice}")
    if notices:
        show("")


def facts(values: Mapping[str, Any]) -> Table:
    """Return names and values, one per line; those of mappings below their name."""
    found = Table(box=None, show_header=False, pad_edge=False)
    found.add_column(style="bold", no_wrap=True)
    found.add_column(overflow="fold")
    for name, value in _flat(values):
        found.add_row(name, value)
    return found


def show_facts(values: Mapping[str, Any], as_json: bool) -> None:
    """Print names and values, for programs or for people."""
    if as_json:
        show_json(values)
    else:
        show(facts(values))


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        elif isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
            yield from _flat({str(number): one for number, one in enumerate(value)}, f"{before}{name}.")
        else:
            yield before + name, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:,.4g}"
    return ", ".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)
