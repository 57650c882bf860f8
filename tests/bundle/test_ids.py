"""An id passes everywhere or nowhere, and is the same id everywhere."""

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from mgoe.bundle.ids import EXACT, LONGEST_ID, RULE, canonical_id, checked_id
from mgoe.errors import EventError
from mgoe.serving.events.event import EventReader
from mgoe.serving.events.exposure import ExposureReader
from mgoe.serving.http import schemas

KINDS = {"user": pa.string(), "item": pa.string()}
EVENTS = EventReader({"click": 1}, KINDS)
EXPOSURES = ExposureReader(EVENTS, {}, {})
ANY = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.integers(-9, 9),
    st.floats(),
    st.integers(-(2**54), 2**54).map(float),
    st.text(max_size=3),
    st.integers(LONGEST_ID - 1, LONGEST_ID + 1).map(lambda n: "é" * n),
    st.just([]),
    st.just({}),
)


def event(value: Any) -> str:
    read = EVENTS.read({"user": value, "item": value, "behavior": "click", "id": value}, 0)
    assert read.user == read.item == read.id
    return str(read.user)


def exposure(value: Any) -> str:
    read = EXPOSURES.read_exposure({"user": value, "item": value, "request": value}, 0)
    assert read.user == read.item
    assert read.request == f"r{read.user}"
    return read.user


def session(value: Any) -> str:
    return str(EVENTS.read_in_session({"item": value, "behavior": "click"}, 0)[0])


def of(model: type[BaseModel], *fields: str, **others: Any) -> Any:
    """What a request makes of an id in some of its fields."""

    def read(value: Any) -> str:
        body = {field: [value] if field.endswith("s") or field == "exclude" else value for field in fields}
        found = model.model_validate_json(json.dumps(others | body))
        values = [getattr(found, field) for field in fields]
        [one] = {str(value[0] if isinstance(value, list) else value) for value in values}
        return one

    return read


READERS = {
    "event": event,
    "exposure": exposure,
    "session": session,
    "rank": of(schemas.RankRequest, "user", "candidates", "exclude"),
    "recommend": of(schemas.RecommendRequest, "user", "exclude"),
    "score": of(schemas.ScoreRequest, "users", "items"),
    "names": of(schemas.NamesRequest, "users", "items"),
}


@given(value=ANY)
def test_every_reader_says_the_same_of_an_id(value: Any):
    said = {}
    for name, read in READERS.items():
        try:
            said[name] = read(value)
        except (EventError, ValidationError):
            said[name] = None
    assert len({*said.values()}) == 1, said


@given(text=st.text(max_size=LONGEST_ID + 2) | st.integers(0, LONGEST_ID + 2).map(lambda n: "x" * n))
def test_a_query_has_the_same_rule_for_texts(text: str):
    try:
        found: object = of(schemas.ExplainRequest, "user", "item")(text)
    except ValidationError:
        found = None
    assert found == canonical_id(text, pa.string())


@given(number=st.integers(-EXACT, EXACT))
def test_one_number_in_every_notation_is_one_id(number: int):
    assert {checked_id(one, "user") for one in (number, float(number))} == {number}
    assert canonical_id(str(number), pa.int64()) == number


@pytest.mark.parametrize("value", ["x" * 600, "", True, 7.5, 2**64, "\ud800", None])
def test_the_rule_is_named(value: Any):
    with pytest.raises(EventError) as raised:
        checked_id(value, "user")
    assert (raised.value.place, raised.value.message.partition(", found")[0]) == ("user", RULE)
    with pytest.raises(ValidationError, match="must be an id"):
        schemas.NamesRequest.model_validate({"users": [value]})
