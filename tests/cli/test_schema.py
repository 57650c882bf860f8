"""The JSON Schema of a configuration accepts what the reader accepts, and marks what it refuses."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from mgoe.config import json_schema
from tests.cli.conftest import Mgoe

ROOT = Path(__file__).parents[2]
TEXTS = [
    *(file.read_text() for file in ROOT.glob("examples/*.yaml")),
    *(
        block
        for page in ROOT.glob("docs/*.md")
        for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    ),
]


def marks(raw: dict[str, Any]) -> list[str]:
    """What an editor marks."""
    schema = json_schema("comparison" if "logs" in raw else "settings")
    plain = json.loads(json.dumps(raw, default=str))  # an editor reads dates as texts
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(plain)]


def test_configurations_of_examples_and_docs_have_no_marks():
    read = [
        raw for raw in map(yaml.safe_load, TEXTS) if isinstance(raw, dict) and {"data", "logs"} & raw.keys()
    ]
    assert len(read) > 10
    assert [found for raw in read if (found := marks(raw))] == []


@pytest.mark.parametrize("form", ["events", "exposures"])
def test_what_init_writes_has_no_marks(mgoe: Mgoe, world: Path, form: str):
    assert marks(json.loads(mgoe("init", world / form, "--json").stdout)) == []


@pytest.mark.parametrize(
    ("change", "mark"),
    [
        ({"sed": 1}, "'sed' was unexpected"),
        ({"training": {"patience": "many"}}, "'many' is not of type 'integer'"),
        ({"graph": {"beta": 2}}, "2 is greater than the maximum of 1"),
        ({"tasks": [{"label": "buy"}]}, "not valid"),
    ],
)
def test_mistakes_are_marked(change: dict[str, Any], mark: str):
    [found] = marks({"data": {"log": "a.parquet"}, "tasks": ["buy"]} | change)
    assert mark in found


def test_settings_say_what_they_mean():
    graph = json_schema("settings")["$defs"]["GraphSettings"]
    assert graph["description"] == "The macro task merging graph."
    assert graph["properties"]["beta"]["description"] == "Curvature of the merging score (eq. 6)."


def test_it_is_written_for_editors(mgoe: Mgoe):
    assert json.loads(mgoe("schema").stdout) == json_schema("settings")
