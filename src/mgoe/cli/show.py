"""What every command prints with: results on standard output, stages on standard error, colour only on a terminal."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

PLAIN_WIDTH = 240
"""Where no terminal gives a width, so that no line of a table is folded."""

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
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier command wrote there.")]


def examples(*lines: str) -> str:
    """The end of a command's help."""
    return "\n\n".join(["[bold]Examples[/]", *(f"  {line}" for line in lines)])


def say(line: str) -> None:
    """A line about a stage, on standard error."""
    print(line, file=sys.stderr, flush=True)


def show(what: Table | str) -> None:
    """A result for people, on standard output."""
    # Without markup: ids and names may hold brackets.
    Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False, markup=False).print(what)


def show_json(value: Any) -> None:
    """A result for programs: JSON alone on standard output; what is no number is null."""
    print(json.dumps(_plain(value), indent=1, ensure_ascii=False, allow_nan=False))


def facts(values: Mapping[str, Any], title: str | None = None) -> Table:
    """Names and values, a line each; those of mappings below their name."""
    table = Table(title=title, box=None, show_header=False, title_justify="left", pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _flat(values):
        table.add_row(name, value)
    return table


def _flat(values: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{before}{name}.")
        elif isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
            rows += _flat({str(number): inner for number, inner in enumerate(value)}, f"{before}{name}.")
        else:
            rows.append((before + name, _text(value)))
    return rows


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:,.4g}"
    return ", ".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, bool | int | str) or value is None else str(value)
