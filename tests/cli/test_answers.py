"""What commands print with --json is what their schemas and docs/cli.md say."""

import json
import re
from pathlib import Path

import jsonschema
import pytest

from mgoe.cli.answers import ANSWERS
from tests.cli.answers import answers
from tests.cli.conftest import Mgoe, check_answer
from tests.cli.test_commands import COMMANDS

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
WITHOUT = {"init", "schema", "serve", "cycle"}
"""Commands that print no answer of their own: a configuration, a JSON Schema, a log, a line per step."""


def test_every_command_has_an_answer_that_is_known():
    assert set(ANSWERS) == {" ".join(words) for words in COMMANDS} - WITHOUT


@pytest.mark.parametrize("command", ANSWERS)
def test_every_key_is_listed(command: str):
    below = PAGE.read_text(encoding="utf-8").split(f"\n### {command}\n", 1)[1].split("\n### ", 1)[0]
    if command.startswith("graph ") and command != "graph build":
        assert "(#graph-build)" in below
        return
    found = ["".join(lines).rstrip() for lines in re.findall(r"((?:^\|.*\n)+)", below, re.MULTILINE)]
    assert found == answers(command).tables()


@pytest.mark.parametrize(
    "printed", [{"path": "x", "rows": 1, "more": 2}, {"path": "x"}, {"path": "x", "rows": None}], ids=str
)
def test_a_wrong_key_or_value_is_found(printed: dict[str, object]):
    with pytest.raises(jsonschema.ValidationError):
        check_answer(["exposures", "--json"], json.dumps(printed))


def test_another_order_of_keys_is_found():
    check_answer(["exposures", "--json"], '{"path": "x", "rows": 1}')
    with pytest.raises(AssertionError):
        check_answer(["exposures", "--json"], '{"rows": 1, "path": "x"}')


def test_the_schema_of_an_answer(mgoe: Mgoe):
    found = json.loads(mgoe("schema", "data", "list").stdout)
    assert found["items"]["$ref"] == "#/$defs/DataSetRow"
    refused = mgoe("schema", "recomend")
    assert refused.exit_code == 2
    assert "did you mean 'recommend'?" in refused.stderr
