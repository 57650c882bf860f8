"""What a configuration may hold: its JSON Schema, for editors, and the models by name."""

from typing import Annotated, Any, Literal

import typer

from mgoe.cli.shared import Json, examples, show, show_json, table

models = typer.Typer(help="Models: list what can be trained.", no_args_is_help=True)


@models.command("list", epilog=examples("mgoe models list", "mgoe models list --json"))
def list_(as_json: Json = False) -> None:
    """List every model by name, with the inputs that it reads.

    A suffix gives a model other inputs, as in `mmoe+mgoe`, which reads what mgoe reads.
    """
    from mgoe.config import names
    from mgoe.models import INPUTS, PRESETS, class_of, resolve

    known = {name: resolve(name) for name in names("mgoe.models", PRESETS)}
    rows: list[dict[str, Any]] = [
        {
            "name": one.name,
            "inputs": one.inputs,
            "ids": one.ids,
            "about": _about(class_of(one.base, one.name)),
        }
        for name, one in known.items()
    ]
    if as_json:
        show_json({"models": rows, "suffixes": INPUTS})
        return
    lines = table(("name", "inputs", "ids", "about"), left=4)
    for row in rows:
        lines.add_row(row["name"], ", ".join(row["inputs"]), row["ids"], row["about"])
    show(lines)
    show("")
    lines = table(("suffix", "inputs"), left=2)
    for suffix, inputs in INPUTS.items():
        lines.add_row(f"+{suffix}", ", ".join(inputs))
    show(lines)


def schema(
    of: Annotated[
        Literal["settings", "comparison"],
        typer.Argument(help="The file of `mgoe run`, or of `mgoe compare`."),
    ] = "settings",
) -> None:
    """Write the JSON Schema of a configuration, for editors."""
    from mgoe.config import json_schema

    show_json(json_schema(of))


def _about(kind: type) -> str:
    paragraph = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
    return paragraph.split(". ")[0].split(": `")[0].rstrip(".")
