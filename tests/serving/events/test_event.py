"""Rules for an event, and the message for one that breaks them."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mgoe
from mgoe.bundle.ids import read_id
from mgoe.config import CLOCK_SKEW, RunSettings
from mgoe.data import task_masks
from mgoe.errors import EventError, StoreError
from mgoe.serving.events.event import Event, EventReader, with_ids_of

NOW = 1_700_000_000_000_000
NUMBERS = EventReader({"click": 1, "buy": 2}, {"user": pa.int64(), "item": pa.int64()})
TEXTS = EventReader({"click": 1, "buy": 2}, {"user": pa.string(), "item": pa.uint64()})
RAW = {"user": 7, "item": 9, "behavior": "click"}
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(
    user=st.integers(-(2**63), 2**63 - 1) | st.text(), item=st.integers(0, 2**64 - 1), behavior=st.text(),
    time=st.integers(-(2**58), 2**58), key=st.none() | st.text(),
)  # fmt: skip
def test_an_encoded_event_is_decoded_unchanged(user, item, behavior, time, key):
    try:
        event = Event(user, item, behavior, time, key)
        payload = event.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which the reader refuses
        return
    assert Event.decode(payload) == event


@given(raw=st.dictionaries(st.sampled_from(["user", "item", "behavior", "time", "id", "other"]), anything))
def test_any_body_gives_an_event_or_one_error(raw):
    for reader in (NUMBERS, TEXTS):
        found: Event | EventError
        try:
            found = reader.read(raw, NOW)
        except EventError as error:
            found = error
        if isinstance(found, EventError):
            assert found.place in ("user", "item", "behavior", "time", "id", "other")
            assert len(str(found)) < 400
        else:
            assert Event.decode(found.encode()) == found
            assert found.time <= NOW + CLOCK_SKEW


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        (1_600_000_000, 1_600_000_000_000_000),
        (1_600_000_000.5, 1_600_000_000_500_000),
        (1_600_000_000_123, 1_600_000_000_123_000),
        (1_600_000_000_123_456, 1_600_000_000_123_456),
        (1_600_000_000_123_456_789, 1_600_000_000_123_456),
        ("2020-09-13T12:26:40Z", 1_600_000_000_000_000),
        ("2020-09-13T14:26:40.000001+02:00", 1_600_000_000_000_001),
        ("2020-09-13 12:26:40", 1_600_000_000_000_000),
        (None, NOW),
    ],
)
def test_times_of_any_form(value: Any, moment: int):
    assert NUMBERS.read(RAW | {"time": value}, NOW).time == moment


def test_a_time_is_in_the_unit_of_the_log():
    assert EventReader({"click": 1}, NUMBERS.kinds, "s").read(RAW | {"time": 5}, NOW).time == 5_000_000


@pytest.mark.parametrize("value", [7, 7.0, "7"])
def test_an_id_takes_the_type_of_its_vocabulary(value: Any):
    assert NUMBERS.read(RAW | {"user": value}, NOW).user == 7
    assert TEXTS.read(RAW | {"user": value}, NOW).user == "7"
    assert TEXTS.read(RAW | {"item": 2**64 - 1}, NOW).item == 2**64 - 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"user": None}, "user: must be an id"),
        ({"user": True}, "user: must be an id"),
        ({"user": "07"}, "user: ids of users are whole numbers of 64 bits"),
        ({"user": 7.5}, "user: must be an id"),
        ({"item": 2**63}, "item: ids of items"),
        (
            {"behavior": "clik"},
            "behavior: must be one of click, buy",
        ),
        ({"behavior": None}, "found none"),
        ({"time": NOW + CLOCK_SKEW + 1}, "time: must be at most 5 minutes ahead"),
        ({"time": "yesterday"}, "time: must be a number since 1970"),
        ({"time": float("nan")}, "time: must be a number"),
        ({"time": 10**400}, "time: must be a number"),
        ({"time": -(10**400)}, "time: must be a number"),
        ({"id": ""}, "id: must be an id"),
        ({"id": "x" * 600}, "id: must be an id: .* of 1 to 512 characters"),
        ({"weight": 1}, "weight: is no field of an event"),
        ({"use" * 10_000: 1}, r"(use)+us: is no field of an event; valid names: [\w, ]+; it has [\w, ]+$"),
        (
            {"behavior": "clic" * 10_000},
            r"behavior: must be one of click, buy, found '[clic]+\.\.\.; valid names: buy, click$",
        ),
    ],
)
def test_a_broken_rule_is_named(change: dict[str, Any], said: str):
    with pytest.raises(EventError, match=said):
        NUMBERS.read(RAW | change, NOW)


KINDS = st.sampled_from([pa.int8(), pa.uint8(), pa.int32(), pa.int64(), pa.string()])
IDS = (
    st.integers(-300, 300)
    | st.integers(-(2**63), 2**63 - 1)
    | st.integers(-300, 300).map(str)
    | st.sampled_from(["A17", "007", "ä"])
)


@given(st.lists(st.tuples(IDS, IDS), max_size=4), KINDS, KINDS)
def test_events_of_a_log_are_as_if_each_came_to_this_bundle(
    ids: list[tuple[Any, Any]], users: pa.DataType, items: pa.DataType
):
    """An id that no request to this bundle could send gives no event."""

    def sent(user: Any, item: Any) -> Event | None:
        try:
            return Event(read_id(user, users, "user"), read_id(item, items, "item"), "click", 1)
        except EventError:
            return None

    events = [Event(user, item, "click", 1) for user, item in ids]
    assert with_ids_of(events, {"user": users, "item": items}) == [sent(*pair) for pair in ids]


def test_bytes_that_are_not_an_event_are_refused():
    for payload in (b"", b"[1,2]", b"{}", b"\xff"):
        with pytest.raises(StoreError, match="must hold an event"):
            Event.decode(payload)


def test_behaviors_are_those_of_the_tasks(small: RunSettings, exposures: RunSettings, finished: Path):
    assert task_masks(small) == {"click": 1, "buy": 2}
    assert task_masks(exposures) == {"click": 1, "buy": 2, "stay": 4}
    several = RunSettings.model_validate(
        {"data": {"log": "x"}, "tasks": [{"name": "any", "behaviors": ["click", "buy"]}, "buy"]}
    )
    assert task_masks(several) == {"click": 1, "buy": 3}
    reader = EventReader.of(mgoe.load(finished / "bundle"))
    assert reader.behaviors == {"click": 1, "buy": 2}
    assert reader.read({"user": 3, "item": 4, "behavior": "buy", "id": "a"}, NOW) == Event(
        3, 4, "buy", NOW, "a"
    )
