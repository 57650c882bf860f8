"""`data list`, `data describe`, `data fetch`, `data prepare`: public data sets."""

from pathlib import Path
from typing import Annotated

import typer

from mgoe._util.progress import ProgressBar
from mgoe.cli.options import Json, Overwrite, examples
from mgoe.cli.show import facts, say, show, show_json

data = typer.Typer(help="Public data sets: list them, fetch one, parse it into a log.", no_args_is_help=True)
Name = Annotated[
    str, typer.Argument(metavar="NAME", help="A name that `mgoe data list` shows.", show_default=False)
]


@data.command("list", epilog=examples("mgoe data list", "mgoe data list --json"))
def list_(as_json: Json = False) -> None:
    """List form, tasks, size and licence of every data set, and whether it was run on the real files."""
    from rich.table import Table

    from mgoe.datasets import DATA_SETS

    rows = [one.row() for one in DATA_SETS.values()]
    if as_json:
        show_json(rows)
        return
    table = Table(box=None, pad_edge=False, title_justify="left")
    for name in rows[0]:
        table.add_column(name, overflow="fold", no_wrap=name == "name")
    for row in rows:
        cells = {
            **row,
            "tasks": ", ".join(row["tasks"]),
            "run on real files": "yes" if row["run on real files"] else "no",
        }
        table.add_row(*cells.values())
    show(table)


@data.command(epilog=examples("mgoe data describe kuairand-pure", "mgoe data describe ali-ccp --json"))
def describe(name: Name, as_json: Json = False) -> None:
    """Show home page, licence, addresses, checksums, files, the source of their layout, and protocols."""
    from mgoe.datasets import find

    found = find(name).describe()
    if as_json:
        show_json(found)
    else:
        show(facts(found))


@data.command(
    epilog=examples(
        "mgoe data fetch movielens-1m --out raw/ml-1m               [dim]the same command resumes[/]",
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

        found = get(find(name), out, source, on_progress=on_progress, say=say)
    if as_json:
        show_json(vars(found))
        return
    show(facts(vars(found)))
    say(f"next: mgoe data prepare {name} --from {out} --out FOLDER")


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

    found = parse(find(name), source, out, memory=memory, overwrite=overwrite, say=say)
    if as_json:
        show_json(vars(found))
        return
    show(facts(vars(found)))
    say(f"next: mgoe run {found.configs[0]} --out FOLDER")
