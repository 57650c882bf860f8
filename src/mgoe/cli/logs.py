"""`init`, `describe`: what a log or a bundle holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mgoe.cli.options import Json, Overwrite
from mgoe.cli.show import facts, say, show, show_json

if TYPE_CHECKING:
    from mgoe.config import RunSettings

Log = Annotated[
    str, typer.Argument(metavar="LOG", help="Parquet or CSV file, folder or glob.", show_default=False)
]


def init(
    log: Log,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File to write; standard output by default.", show_default=False),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Look at a log, guess its columns and tasks, and write a configuration with comments."""
    import yaml

    from mgoe._util.files import write_text
    from mgoe.data import guess
    from mgoe.errors import OutputError

    text = guess(log)
    if out is not None:
        if out.exists() and not overwrite:
            raise OutputError(out, "exists already; choose another --out, or --overwrite to replace it")
        write_text(out, text)
        say(f"read {out}, fix wrong guesses, then: mgoe run {out} --out runs/{out.stem}")
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
    """Show counts, span, density, funnel, drift, duplicates and nulls of a log, or what a bundle holds."""
    found = _describe(what)
    if as_json:
        show_json(found)
    else:
        show(facts(found))


def _describe(what: str) -> dict[str, Any]:
    path = Path(what)
    for bundle in (path, path / "bundle"):
        if (bundle / "bundle.json").exists():
            from mgoe.bundle import Bundle

            return Bundle.open(bundle).describe()
    from mgoe.config import load_settings
    from mgoe.data import profile

    return profile(load_settings(path) if path.suffix in (".yaml", ".yml") else _guessed(what))


def _guessed(log: str) -> RunSettings:
    import yaml

    from mgoe.config import make_settings
    from mgoe.data import guess

    return make_settings(yaml.safe_load(guess(log)), log)
