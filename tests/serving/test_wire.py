"""What a body costs that is wrong in every entry."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from mgoe.serving import wire

MANY: list[Any] = [[]] * 5000
NAMED: dict[str, Any] = {str(k): [] for k in range(5000)}


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (wire.RankRequest, {"user": 1, "candidates": MANY}),
        (wire.RankRequest, {"user": 1, "filters": {"exclude": MANY}}),
        (wire.RankRequest, {"user": 1, "filters": {"at_least": NAMED}}),
        (wire.RankRequest, {"user": 1, "context": {"device": MANY}}),
        (wire.RankRequest, {"user": 1, "context": {name: {} for name in NAMED}}),
        (wire.ScoreRequest, {"users": MANY, "items": [1]}),
        (wire.ScoreRequest, {"users": [1], "items": MANY}),
        (wire.EventsRequest, {"events": MANY}),
        (wire.ContextOf, {"context": dict.fromkeys(list(NAMED)[:100], MANY)}),
    ],
)
def test_a_body_that_is_wrong_everywhere_gives_few_errors(model: type[BaseModel], body: dict[str, Any]):
    with pytest.raises(ValidationError) as raised:
        model.model_validate(body)
    assert raised.value.error_count() < 20


@pytest.mark.parametrize("field", ["context", "at_least"])
def test_what_is_counted_first_is_described_as_before(field: str):
    model = wire.RankRequest if field == "context" else wire.Filters
    described = model.model_json_schema()["properties"][field]
    assert (described["type"], described["maxProperties"]) == ("object", wire.NAMES)
    assert described["additionalProperties"]
