"""The visitor of a session over HTTP: ranked as a new user with these events, whatever the events are."""

import itertools
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import mgoe
from mgoe.bundle.manifest import iso_time
from mgoe.bundle.request import RankingRequest
from mgoe.bundle.steps import Steps, finished
from mgoe.serving.events.event import Event
from mgoe.serving.http.settings import Limits
from mgoe.serving.scoring import ranking, scorer
from mgoe.serving.scoring.ranking import Answered
from tests.effort import up_to
from tests.serving.served import Served, served, timeless

NEWCOMERS, STRANGE = itertools.count(10**9), 10**8
START = datetime(2026, 5, 1, 12, tzinfo=UTC)
ROUTES = ("/v1/rank", "/v1/recommend", "/v1/score")


@pytest.fixture(scope="module")
def items(bundle: mgoe.Bundle) -> list[int]:
    return bundle.ids("item", np.arange(bundle.size("item")))


@pytest.fixture(scope="module")
def large(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service that takes sessions of 10,000 events. Tests add events of new users alone."""
    with served(finished / "bundle", tmp_path_factory.mktemp("state"), Limits(events=10_000)) as found:
        yield found


def session(items: Sequence[int], seed: int = 0) -> list[dict[str, Any]]:
    """Return events at moments that differ."""
    rng = random.Random(seed)
    return [
        {
            "item": item,
            "behavior": rng.choice(["click", "buy"]),
            "time": (START + timedelta(seconds=k)).isoformat(),
        }
        for k, item in enumerate(items)
    ]


def scores(answer: dict[str, Any], ids: Sequence[int]) -> list[tuple[float, ...]]:
    """Return the scores of some items, by all tasks."""
    rows = [answer["items"].index(one) for one in ids]
    return [tuple(column[row] for column in answer["tasks"].values()) for row in rows]


@up_to(8)
@given(data=st.data())
def test_a_session_is_ranked_as_a_new_user_with_its_events_is(
    large: Served, items: list[int], data: st.DataObject
):
    """To the last bit for items that the events do not concern; those of the session change if it is sent."""
    seen = data.draw(st.lists(st.sampled_from(items[:40]), min_size=1, max_size=9))
    others = [item for item in items if item not in seen]
    events, k = session(seen, data.draw(st.integers(0, 99))), {"k": len(others)}
    found = large.rank(events=events, candidates=others, **k)
    user = next(NEWCOMERS)
    assert large.rank(user=user, candidates=others, **k)["unseen_user"]
    large.add(*({"user": user, **event} for event in events))
    as_user = large.rank(user=user, candidates=others, **k)
    assert scores(found, others) == scores(as_user, others)
    assert len(large.rank(events=events, candidates=items, k=len(items))["items"]) == len(items)
    assert found["user"] is None
    assert found["unseen_user"] is False


@up_to(10)
@given(data=st.data())
def test_the_order_of_a_request_changes_nothing(large: Served, items: list[int], data: st.DataObject):
    """Times decide, of events that are sent in any order and more than once."""
    seen = data.draw(st.lists(st.sampled_from(items), min_size=1, max_size=9))
    same_time = data.draw(st.booleans())
    events = [event | ({"time": START.isoformat()} if same_time else {}) for event in session(seen)]
    shuffled = data.draw(st.permutations(events + events[:2]))
    answers = [timeless(large.rank(events=given, candidates=items, k=50)) for given in (events, shuffled)]
    assert answers[0] == answers[1]


def test_a_session_with_10_000_events_is_ranked_or_refused(large: Served, service: Served, items: list[int]):
    events = session([items[k % 90] for k in range(10_000)])
    refused = service.client.post("/v1/rank", json={"events": events, "candidates": items})
    assert refused.status_code == 422
    assert refused.json()["place"] == "events"
    assert refused.json()["error"] == "may hold 1,000 at most, found 10,000; send the newest"
    user, found = next(NEWCOMERS), large.rank(events=events, candidates=items[90:], k=9)
    large.add(*({"user": user, **event} for event in events))
    as_user = large.rank(user=user, candidates=items[90:], k=9)
    assert scores(found, items[90:]) == scores(as_user, items[90:])


def test_items_that_nobody_knows_are_ignored(service: Served, items: list[int]):
    events, strange = session(items[:3]), session([STRANGE, STRANGE + 1])
    asked = {"candidates": items, "k": 99}
    known = service.rank(events=events, **asked)
    assert timeless(service.rank(events=events + strange, **asked)) == timeless(known)
    nobody = timeless(service.rank(user="nobody", **asked)) | {"user": None}
    for without in (strange, []):
        assert timeless(service.rank(events=without, **asked)) == nobody
    assert known["tasks"] != nobody["tasks"]


def test_sessions_that_overlap_do_not_read_each_other(
    large: Served, items: list[int], monkeypatch: pytest.MonkeyPatch
):
    """Their requests are answered in turns, block by block, while events of another newcomer arrive."""
    monkeypatch.setattr(scorer, "BLOCK_ROWS", 16)
    engine, request = large.reloader.engine, RankingRequest(k=len(items))
    others = items[10:]

    def asked(first: int) -> Steps[Answered]:
        return ranking.rank(engine, None, session(items[first : first + 5], first), others, request)

    alone = [finished(asked(first)).body for first in (0, 5)]
    waiting, answers = {first: asked(first) for first in (0, 5)}, dict[int, Answered]()
    turn = 0
    while waiting:
        for first, steps in list(waiting.items()):
            try:
                next(steps)
            except StopIteration as done:
                answers[first] = done.value
                del waiting[first]
        engine.live.apply([Event(next(NEWCOMERS), items[turn % 10], "click", 5 + turn)])
        turn += 1
    assert turn > 3
    for body, first in zip(alone, (0, 5), strict=True):
        assert answers[first].body["items"] == body["items"]
        for task, column in body["tasks"].items():
            assert_array_equal(answers[first].body["tasks"][task], column)


@pytest.mark.parametrize(
    ("request_", "place", "message"),
    [
        ({}, "user", "the events of a session instead, found none; give one"),
        ({"user": 1, "events": []}, "user", "found both; give one"),
        ({"events": [{"item": 1, "behavior": "by"}]}, "events.0.behavior", "did you mean 'buy'?"),
        ({"events": [{"item": 1, "behavior": "buy", "user": 2}]}, "events.0.user", "item, behavior, time"),
        ({"events": [{"item": 1, "behavior": "buy"}, {}]}, "events.1.item", "must be an id"),
        ({"events": [{"item": 1, "behavior": "buy", "time": "noon"}]}, "events.0.time", "found 'noon'"),
        ({"events": [{"item": 1, "behavior": "buy", "time": "2999-01-01"}]}, "events.0.time", "ahead"),
        ({"events": {"item": 1, "behavior": "buy"}}, "events", "a valid array"),
    ],
)
@pytest.mark.parametrize("candidates", [{}, {"candidates": [1, 2]}])
def test_a_session_that_cannot_be_read_is_refused(
    service: Served, request_: dict[str, Any], candidates: dict[str, Any], place: str, message: str
):
    response = service.client.post("/v1/rank", json=request_ | candidates)
    assert (response.status_code, response.json()["place"]) == (422, place), response.json()
    assert message in response.json()["error"]


def test_an_answer_says_when_its_request_came(service: Served, items: list[int]):
    bodies = (
        {"user": 1, "candidates": items},
        {"events": session(items[:2])},
        {"users": [1], "items": items},
    )
    for route, body in zip(ROUTES, bodies, strict=True):
        before = datetime.now(UTC)
        answer = service.client.post(route, json=body).json()
        assert before <= datetime.fromisoformat(answer["as_of"]) <= datetime.now(UTC), route


def test_a_request_has_one_moment(large: Served, items: list[int], monkeypatch: pytest.MonkeyPatch):
    """Events without a time are of it, and those after it are ahead."""
    engine = large.reloader.engine
    moment = int(START.timestamp()) * 1_000_000
    asked = list[int]()
    monkeypatch.setattr(engine, "now", lambda: asked.append(moment) or moment)
    untimed = [{"item": items[0], "behavior": "click"}, *session(items[1:2])]
    timed = [untimed[0] | {"time": START.isoformat()}, untimed[1]]
    answers = [large.rank(events=events, candidates=items) for events in (untimed, timed)]
    assert answers[0] == answers[1]
    assert answers[0]["as_of"] == iso_time(moment)
    assert len(asked) == 2
    late = session(items[:1])[0] | {"time": (START + timedelta(minutes=6)).isoformat()}
    refused = large.client.post("/v1/rank", json={"events": [late]})
    assert (refused.status_code, refused.json()["place"]) == (422, "events.0.time")
