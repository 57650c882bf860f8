"""What commands print with --json is what docs/cli.md says, which every test of a command checks."""

import json

import pytest

from tests.cli.answers import check, sections
from tests.cli.conftest import Mgoe, check_answer
from tests.cli.test_commands import COMMANDS

WITHOUT = {"init", "schema", "serve", "cycle"}
"""Commands that print no answer of their own: a configuration, a JSON Schema, a log, a line per step."""


def test_every_command_has_an_answer_that_is_known():
    assert set(sections()) == {" ".join(words) for words in COMMANDS} - WITHOUT


@pytest.mark.parametrize(
    "printed",
    [
        {"path": "x", "rows": 1, "more": 2},
        {"path": "x"},
        {"path": "x", "rows": None},
        {"path": "x", "rows": True},
        {"path": 1, "rows": 1},
        {"rows": 1, "path": "x"},
    ],
    ids=str,
)
def test_a_wrong_key_value_or_order_is_found(printed: dict[str, object]):
    check_answer(["exposures", "--json"], '{"path": "x", "rows": 1}')
    with pytest.raises(AssertionError):
        check_answer(["exposures", "--json"], json.dumps(printed))


VERSION = {
    "version": "a",
    "aliases": ["current"],
    "added": "today",
    "model": "mgoe",
    "parent": None,
    "trained": "full",
    "log": ["2026-01-01", "2026-01-31"],
    "mgoe": "1",
    "rejected": None,
}


@pytest.mark.parametrize(
    "change", [{"trained": "often"}, {"aliases": "current"}, {"aliases": [1]}, {"log": [1]}]
)
def test_a_wrong_value_inside_a_list_is_found(change: dict[str, object]):
    check("registry list", json.dumps([VERSION]))
    with pytest.raises(AssertionError):
        check("registry list", json.dumps([VERSION, VERSION | change]))


def test_an_unknown_schema_is_refused(mgoe: Mgoe):
    refused = mgoe("schema", "recommend")
    assert refused.exit_code == 2
    assert "'recommend' is not one of 'settings', 'comparison'" in " ".join(refused.stderr.split())
