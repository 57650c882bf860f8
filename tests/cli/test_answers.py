"""What commands print with --json is what their types and docs/cli.md say."""

import json
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError

from mgoe.cli.answers import ANSWERS
from mgoe.cli.answers.graphs import Graph
from tests.cli.conftest import Mgoe, check_answer
from tests.cli.test_commands import COMMANDS

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
NAMES = {int: "integer", float: "number", str: "text", bool: "true or false", Any: "anything"}
WITHOUT = {"init", "schema", "serve", "cycle"}
"""Commands that print no answer of their own: a configuration, a JSON Schema, a log, a line per step."""


def table(kind: type[BaseModel]) -> str:
    """The keys of an answer as the page lists them."""
    lines = [f"| `{path}` | {type_} | {about} |" for path, type_, about in rows(kind)]
    return "\n".join(["| key | value | |", "|---|---|---|", *lines])


def rows(kind: type[BaseModel], before: str = "") -> Iterator[tuple[str, str, str]]:
    for name, field in kind.model_fields.items():
        path, about = before + name, " ".join((field.description or "").split())
        inner = members(field.annotation)
        nested = next((one for one in map(held, inner) if is_answer(one)), None)
        if nested is Graph:
            yield path, "object", "See [graph build](#graph-build)."
        elif nested is None or about:
            yield path, " or ".join(map(text, inner)), about
        if nested not in (None, Graph):
            yield from rows(nested, path + {list: "[].", dict: ".*."}.get(get_origin(inner[0]), "."))


def members(annotation: Any) -> list[Any]:
    union = get_origin(annotation) in (Union, types.UnionType)
    return list(get_args(annotation)) if union else [annotation]


def held(annotation: Any) -> Any:
    """What a list or a dictionary holds."""
    return get_args(annotation)[-1] if get_origin(annotation) in (list, dict) else annotation


def is_answer(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def text(annotation: Any) -> str:
    if annotation is type(None):
        return "null"
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) is tuple:
        return f"list of {text(get_args(annotation)[0])}"
    if get_origin(annotation) is list:
        return f"list of {' or '.join(map(text, members(held(annotation))))}"
    if get_origin(annotation) is dict:
        return f"{' or '.join(map(text, members(held(annotation))))} by name"
    return NAMES.get(annotation, "object")


def test_every_command_has_an_answer_that_is_known():
    assert set(ANSWERS) == {" ".join(words) for words in COMMANDS} - WITHOUT


@pytest.mark.parametrize("command", ANSWERS)
def test_every_key_is_listed(command: str):
    below = PAGE.read_text(encoding="utf-8").split(f"\n### {command}\n", 1)[1].split("\n### ", 1)[0]
    kinds = [held(kind) for kind in members(ANSWERS[command])]
    if command.startswith("graph ") and command != "graph build":
        assert "(#graph-build)" in below
        return
    found = ["".join(lines).rstrip() for lines in re.findall(r"((?:^\|.*\n)+)", below, re.MULTILINE)]
    assert found == [table(kind) for kind in kinds]


def test_an_unknown_key_is_found():
    with pytest.raises(ValidationError):
        check_answer(["exposures", "--json"], json.dumps({"path": "x", "rows": 1, "more": 2}))


def test_the_schema_of_an_answer(mgoe: Mgoe):
    found = json.loads(mgoe("schema", "data", "list").stdout)
    assert found["items"]["$ref"] == "#/$defs/DataSet"
    refused = mgoe("schema", "recomend")
    assert refused.exit_code == 2
    assert "did you mean 'recommend'?" in refused.stderr
