"""A body that is wrong in every entry costs little, ids are written exactly, and pages show valid bodies."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

for _name in ("fastapi", "orjson", "prometheus_client"):
    pytest.importorskip(_name, reason=f"{_name} is not installed: pip install -e '.[serve]'")

from mgoe.serving.http import schemas  # noqa: E402
from mgoe.serving.http.app import _json  # noqa: E402

MANY: list[Any] = [[]] * 5000
NAMED: dict[str, Any] = {str(k): [] for k in range(5000)}


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (schemas.RankRequest, {"user": 1, "candidates": MANY}),
        (schemas.RankRequest, {"user": 1, "exclude": MANY}),
        (schemas.RankRequest, {"user": 1, "at_least": NAMED}),
        (schemas.RankRequest, {"user": 1, "context": {"device": MANY}}),
        (schemas.RankRequest, {"user": 1, "context": {name: {} for name in NAMED}}),
        (schemas.ScoreRequest, {"users": MANY, "items": [1]}),
        (schemas.ScoreRequest, {"users": [1], "items": MANY}),
        (schemas.EventsRequest, {"events": MANY}),
        (schemas.NamesRequest, {"users": MANY, "items": MANY}),
        (
            schemas.ExplainRequest,
            {"user": "1", "context": json.dumps(dict.fromkeys(list(NAMED)[:100], MANY[:9]))},
        ),
    ],
)
def test_a_body_that_is_wrong_everywhere_gives_few_errors(model: type[BaseModel], body: dict[str, Any]):
    with pytest.raises(ValidationError) as raised:
        model.model_validate(body)
    assert raised.value.error_count() < 20


@pytest.mark.parametrize("field", ["context", "at_least"])
def test_counting_names_first_leaves_the_schema_as_it_is(field: str):
    described = schemas.RankRequest.model_json_schema()["properties"][field]
    assert (described["type"], described["maxProperties"]) == ("object", schemas.NAMES)
    assert described["additionalProperties"]


@given(
    ids=st.lists(
        st.integers(-(2**63), 2**64 - 1)
        | st.sampled_from([2**53 - 1, 2**53, 1 - 2**53, -(2**53)])
        | st.text()
    )
)
def test_javascript_reads_every_id_exactly(ids: list[int | str]):
    body = _json(
        {"items": ids, "recents": {"users": [{"id": one} for one in ids]}, "scores": np.zeros(2)}
    ).body
    as_numbers_are_there = json.loads(bytes(body), parse_int=lambda text: int(float(text)))
    assert [str(one) for one in as_numbers_are_there["items"]] == [str(one) for one in ids]
    assert [str(one["id"]) for one in as_numbers_are_there["recents"]["users"]] == [str(one) for one in ids]
    small = [one for one in ids if isinstance(one, str) or abs(one) < 2**53]
    assert json.loads(bytes(_json({"items": small}).body)) == {"items": small}


TAKES = {
    "rank": schemas.RankRequest,
    "recommend": schemas.RecommendRequest,
    "events": schemas.EventsRequest,
    "items": schemas.ItemsRequest,
}


@pytest.mark.parametrize("page", ["serving.md", "live.md", "new-items.md"])
def test_requests_on_a_page_are_valid(page: str):
    asked = re.findall(r"^curl localhost:8000/v1/(\w+) -d '(.*?)'$", shown(page), re.MULTILINE | re.DOTALL)
    assert asked
    for route, body in asked:
        TAKES[route].model_validate_json(body)


def test_the_page_lists_every_field_of_a_ranking_and_of_its_answer():
    [answer] = re.findall(r"^```json\n(.*?)^```", shown("serving.md"), re.MULTILINE | re.DOTALL)
    always = {name for name, field in schemas.RankAnswer.model_fields.items() if field.is_required()}
    assert json.loads(answer).keys() == always
    for name in schemas.RankAnswer.model_fields.keys() - always:
        assert f"`{name}`" in shown("serving.md").split("\n## In an experiment\n", 1)[1].split("\n## ", 1)[0]
    schemas.RankAnswer.model_validate_json(answer)
    below = shown("serving.md").split("\n### Rank\n", 1)[1].split("\n### ", 1)[0]
    assert {*re.findall(r"^\| `(\w+)` \|", below, re.MULTILINE)} == schemas.RankRequest.model_fields.keys()


def shown(page: str) -> str:
    return (Path(__file__).parents[3] / "docs" / page).read_text()
