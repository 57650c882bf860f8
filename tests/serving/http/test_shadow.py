"""A shadow changes no answer, and notes what `mgoe predict` says of both versions."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import mgoe
from mgoe.bundle import MANIFEST
from mgoe.errors import StoreError
from mgoe.serving import LiveBundle, open_log
from mgoe.serving.events.answer_log import IS_OF_SHADOW, Answer, AnswerLog, read_answers
from tests.lifecycle.test_acceptance import changed, enlarge_weights
from tests.serving.http.test_live_service import until
from tests.serving.served import Served, served, timeless

USERS, ITEMS = st.sampled_from([0, 1, 2, 5, 10**9]), st.integers(0, 40)


@pytest.fixture(scope="module")
def other(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another version, with other weights."""
    path = tmp_path_factory.mktemp("other") / "bundle"
    changed(finished / "bundle", path, enlarge_weights)
    return path


@pytest.fixture(scope="module")
def pair(
    finished: Path, other: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Served, Served, Path]]:
    """Two services of one bundle, of which the first has a shadow, and the folder of its state."""
    states = [tmp_path_factory.mktemp("state") for _ in range(2)]
    with (
        served(finished / "bundle", states[0], shadow=other) as with_shadow,
        served(finished / "bundle", states[1]) as without,
    ):
        until(lambda: taken(with_shadow))
        yield with_shadow, without, states[0]


def taken(service: Served) -> bool:
    assert service.shadow is not None
    return service.shadow.engine is not None


def counted(service: Served) -> dict[str, float]:
    """Requests by outcome."""
    lines = [line.split() for line in service.client.get("/metrics").text.splitlines()]
    found = {line[0]: float(line[-1]) for line in lines if line[0].startswith("mgoe_shadow_requests_total")}
    return {name.split('"')[1]: number for name, number in found.items()}


@given(
    st.one_of(
        st.fixed_dictionaries(
            {"user": USERS, "candidates": st.lists(ITEMS, min_size=1, max_size=30), "k": st.integers(1, 20)}
        ).map(lambda body: ("/v1/rank", body)),
        st.fixed_dictionaries({"user": USERS, "k": st.integers(1, 20), "exclude_known": st.booleans()}).map(
            lambda body: ("/v1/recommend", body)
        ),
        st.fixed_dictionaries(
            {"users": st.lists(USERS, min_size=1, max_size=1), "items": st.lists(ITEMS, min_size=1)}
        ).map(lambda body: ("/v1/score", body)),
        st.just(("/v1/recommend", {"events": [{"item": 1, "behavior": "click"}]})),
        st.just(("/v1/rank", {"events": [{"item": 1, "behavior": "click"}], "candidates": [1, 2]})),
        st.just(("/v1/rank", {"user": 1, "objective": "nothing"})),
    )
)
def test_a_shadow_changes_no_answer(pair: tuple[Served, Served, Path], asked: tuple[str, dict[str, Any]]):
    path, body = asked
    one, other = (service.client.post(path, json=body) for service in pair[:2])
    assert (one.status_code, timeless(one.json())) == (other.status_code, timeless(other.json()))
    assert counted(pair[0])["failed"] == 0


def of_shadow(state: Path) -> list[Answer]:
    """What is logged of a shadow."""
    log = read_answers(state)
    assert log is not None
    found = [*log.where(IS_OF_SHADOW)]
    log.close()
    return found


def records_of(service: Served, state: Path, ask: Callable[[], object]) -> list[Answer]:
    """What is logged of the request that a function makes, once no other one waits: one for each user."""
    assert service.experiment is not None
    until(lambda: service.experiment is not None and not service.experiment._asides)
    began, found = time.time_ns() // 1000, list[Answer]()
    ask()

    def noted() -> bool:
        found[:] = [record for record in of_shadow(state) if record.time >= began]
        return bool(found)

    until(noted)
    assert len({record.request for record in found}) == 1
    assert len({record.user for record in found}) == len(found)
    return found


def check_scores(record: Answer, bundles: list[mgoe.Bundle]) -> None:
    """The scores of a record are what `mgoe predict` says."""
    assert [record.served, record.version] == [bundle.name for bundle in bundles]
    items, users = [int(item) for item in record.items], [int(record.user or "")] * len(record.items)
    for bundle, scores in zip(bundles, (record.served_scores, record.scores), strict=True):
        told = bundle.predict(users, items)[[*bundle.tasks]]
        assert_allclose(scores or [], told, rtol=0, atol=1e-5)


def test_the_log_holds_what_predict_says_of_both_versions(
    pair: tuple[Served, Served, Path], bundle: mgoe.Bundle, other: Path
):
    service, _, state = pair
    known = bundle.encoders.items.ids(np.arange(30)).to_pylist()
    users = bundle.encoders.users.ids(np.arange(3)).to_pylist()
    bundles = [bundle, mgoe.load(other)]
    [record] = records_of(service, state, lambda: service.rank(user=users[0], candidates=known, k=15))
    answer = service.rank(user=users[0], candidates=known, k=15)
    assert (record.route, record.use, record.user) == ("rank", "shadow", str(users[0]))
    assert record.items[: record.shown] == [str(item) for item in answer["items"][:10]]
    assert len(record.items) == 20
    columns = np.column_stack([answer["tasks"][t] for t in bundle.tasks])
    assert record.served_scores is not None
    assert record.served_scores[:10] == columns[:10].tolist()
    check_scores(record, bundles)
    asks = [
        lambda: service.recommend(user=10**9, k=3),
        lambda: service.score(users=users, items=known[:3]),
        lambda: service.score(users=[users[1]], items=known),
        lambda: service.rank(user=users[0], candidates=known[:5], k=5),
    ]
    for ask, shown, items in zip(asks, (3, 0, 0, 5), (13, 3, 10, 10), strict=True):
        records = records_of(service, state, ask)
        assert sum(record.shown or 0 for record in records) == shown
        assert sum(len(record.items) for record in records) == items
        for record in records:
            check_scores(record, bundles)


def test_the_shadow_knows_the_events_before_a_request_and_none_after_it(
    finished: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with served(finished / "bundle", tmp_path, shadow=other) as service:
        until(lambda: taken(service))
        assert service.shadow is not None
        shadow = service.shadow.engine
        assert shadow is not None
        free, looks, catch_up = threading.Event(), [], shadow.catch_up
        free.set()

        def look() -> None:
            looks.append(True)
            free.wait(120)
            catch_up()

        def looks_again() -> None:
            """Wait until the shadow's thread begins to look for events."""
            before = len(looks)
            until(lambda: len(looks) > before)

        monkeypatch.setattr(shadow, "catch_up", look)
        service.add({"user": 10**9, "item": 1, "behavior": "click"})
        until(lambda: shadow.live.stats["events"] == 1)
        looks_again()  # after it noted when the event came
        [record] = records_of(service, tmp_path, lambda: service.rank(user=10**9, candidates=[1, 2, 3]))
        log = open_log(tmp_path, make=False)
        check_scores(record, [LiveBundle(mgoe.load(path), log) for path in (finished / "bundle", other)])
        # a request that waits while its user acts
        free.clear()
        looks_again()
        service.rank(user=10**9, candidates=[1, 2, 3])
        service.add({"user": 10**9, "item": 2, "behavior": "buy"})
        before = counted(service).get("dropped", 0)
        free.set()
        until(lambda: counted(service).get("dropped", 0) == before + 1)
        assert len(of_shadow(tmp_path)) == 1


def test_requests_are_dropped_while_many_wait_and_a_defect_is_counted(
    finished: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with served(finished / "bundle", tmp_path, shadow=other) as service:
        until(lambda: taken(service))
        assert service.shadow is not None
        held = threading.Event()

        def fail(*_: object, **__: object) -> None:
            held.wait(120)
            raise MemoryError("no space")

        monkeypatch.setattr("mgoe.serving.http.shadow._scored", fail)
        for _ in range(40):
            assert service.rank(user=1, k=1)["items"]
        assert counted(service)["dropped"] >= 40 - 33
        held.set()
        until(lambda: sum(counted(service).values()) == 40)
        assert counted(service)["failed"] > 0
        assert service.rank(user=1, k=1)["items"]


def test_a_version_is_no_shadow_of_itself(finished: Path, tmp_path: Path):
    copy = shutil.copytree(finished / "bundle", tmp_path / "copy")
    with served(finished / "bundle", tmp_path / "state", shadow=copy) as service:
        until(lambda: taken(service))
        service.rank(user=1, k=1)
        assert not any(counted(service).values())
        manifest = json.loads((copy / MANIFEST).read_text())
        (copy / MANIFEST).write_text(json.dumps(manifest | {"note": "another"}))
        until(
            lambda: (
                service.shadow is not None
                and service.shadow.engine is not None
                and service.shadow.engine.name == mgoe.load(copy).name
            )
        )
        service.rank(user=1, k=1)
        until(lambda: counted(service).get("logged") == 1)


def test_a_log_that_cannot_be_written_fails_no_answer(
    finished: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with served(finished / "bundle", tmp_path, shadow=other) as service:
        until(lambda: taken(service))

        def full(*_: object) -> None:
            raise StoreError("answers", "cannot be written: no space left")

        monkeypatch.setattr(AnswerLog, "append", full)
        assert service.rank(user=1, k=1)["items"]
        until(lambda: counted(service).get("failed") == 1)
        detail = service.client.get("/readyz").json()["detail"]
        assert detail == "answers are not logged: answers: cannot be written: no space left"
