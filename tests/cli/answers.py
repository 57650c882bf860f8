"""What the JSON Schema of a command says of its answers: the table of its keys, and whether one fits."""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema
from typer.testing import CliRunner

from mgoe.cli import app

Schema = dict[str, Any]

NAMES = {"string": "text", "boolean": "true or false"}
"""Types whose names in tables differ from those in JSON Schema."""
FIRST = {
    "demo": ("path", "bundle", "report"),
    "run": ("path", "bundle", "report"),
    "compare.leads[]": ("question", "log"),
}
"""Keys that are printed first, where the schema has another order."""


class Answers:
    """The answers of a command, as `mgoe schema` describes them.

    Args:
        command: Such as `graph build`.
    """

    def __init__(self, command: str):
        self.command = command
        self.schema: Schema = json.loads(CliRunner().invoke(app, ["schema", *command.split()]).stdout)

    def tables(self) -> list[str]:
        """One table of keys per form of the answer, as docs/cli.md has them."""
        return [
            "\n".join(["| key | value | |", "|---|---|---|", *self._lines(self._held(form))])
            for form in members(self.schema)
        ]

    def check(self, printed: str) -> None:
        """Check names and kinds of all values, and the order of the names."""
        found = json.loads(printed)
        jsonschema.validate(found, self.schema, jsonschema.Draft202012Validator)
        self._check_order(found, self.schema, self.command)

    def _lines(self, kind: Schema, before: str = "") -> Iterator[str]:
        for name, field in kind["properties"].items():
            path, about = before + name, " ".join(field.get("description", "").split())
            inner = members(field)
            nested = next((one for one in map(self._held, inner) if "properties" in one), None)
            graph = nested is not None and nested["title"] == "Graph"
            if graph:
                yield f"| `{path}` | object | See [graph build](#graph-build). |"
            elif nested is None or about:
                yield f"| `{path}` | {' or '.join(map(self._text, inner))} | {about} |"
            if nested is not None and not graph:
                step = {"array": "[].", "object": ".*."}.get(inner[0].get("type", ""), ".")
                yield from self._lines(nested, path + step)

    def _text(self, kind: Schema) -> str:
        if "enum" in kind:
            return " or ".join(f"`{value}`" for value in kind["enum"])
        type_: str = kind.get("type", "object")
        held = inside(kind)
        if held is None:
            return NAMES.get(type_, type_)
        of = " or ".join(map(self._text, members(held))) if held else "anything"
        return f"list of {of}" if type_ == "array" else f"{of} by name"

    def _held(self, kind: Schema) -> Schema:
        """What a list or an object by name holds, or the kind itself."""
        held = inside(kind)
        return self._resolved(kind if held is None else held)

    def _resolved(self, kind: Schema) -> Schema:
        return self.schema["$defs"][kind["$ref"].rpartition("/")[2]] if "$ref" in kind else kind

    def _check_order(self, value: Any, kind: Schema, path: str) -> None:
        forms = [self._resolved(form) for form in members(kind)]
        if isinstance(value, list) and kind:
            [form] = [form for form in forms if form["type"] == "array"]
            for one in value:
                self._check_order(one, inside(form) or {}, f"{path}[]")
        elif isinstance(value, dict) and kind:
            objects = [form for form in forms if form["type"] == "object"]
            [form] = [form for form in objects if value.keys() <= form.get("properties", value).keys()]
            names = list(form.get("properties", value))
            first = FIRST.get(path, ())
            order = [*first, *(name for name in names if name not in first)]
            assert list(value) == [name for name in order if name in value], path
            for name, one in value.items():
                inner = form["properties"][name] if "properties" in form else inside(form)
                self._check_order(one, inner or {}, f"{path}.{name}" if "properties" in form else f"{path}.*")


@cache
def answers(command: str) -> Answers:
    """Return the answers of a command, whose schema is read once."""
    return Answers(command)


def members(kind: Schema) -> list[Schema]:
    """Return the kinds that a value may be of."""
    return kind.get("anyOf", [kind])


def inside(kind: Schema) -> Schema | None:
    """Return the kind of the entries of a list, or of the values of an object by name; None of others."""
    if kind.get("type") == "array":
        return kind["items"] if "items" in kind else kind["prefixItems"][0]
    if kind.get("type") == "object" and "properties" not in kind:
        return {} if kind["additionalProperties"] is True else kind["additionalProperties"]
    return None
