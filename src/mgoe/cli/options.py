"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

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
BundlePath = Annotated[
    Path,
    typer.Argument(
        metavar="BUNDLE", help="Folder that `mgoe run` or `mgoe train` wrote.", show_default=False
    ),
]


def examples(*lines: str) -> str:
    """Return the examples at the end of a command's help."""
    return "\n\n".join(["[bold]Examples[/]", *(f"  {line}" for line in lines)])
