"""Two arms answer in one service: each unit by its own, and every answer is logged before it is sent."""

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import mgoe
from mgoe.bundle import MANIFEST
from mgoe.config import load_experiment
from mgoe.config.assignment import arm_of
from mgoe.errors import BundleError, ConfigError
from mgoe.serving.events.answer_log import Answer, AnswerLog, read_answers
from mgoe.serving.http import experiment as module
from mgoe.serving.scoring import ranking
from tests.lifecycle.test_acceptance import changed, enlarge_weights
from tests.serving.http.test_live_service import until
from tests.serving.served import Served, served, timeless

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def other(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another version, with other weights."""
    path = tmp_path_factory.mktemp("other") / "bundle"
    changed(finished / "bundle", path, enlarge_weights)
    return path


@pytest.fixture
def write(tmp_path: Path, other: Path) -> Write:
    """Write the file of an experiment of the served bundle against the other one."""

    def write_file(frozen: dict[str, Any] | None = None, daily: dict[str, Any] | None = None, **more: Any):
        arms = [
            {"name": "frozen", "share": 0.5} | (frozen or {}),
            {"name": "daily", "share": 0.5, "bundle": str(other)} | (daily or {}),
        ]
        file, new = tmp_path / f"{more.pop('file', 'experiment')}.yaml", tmp_path / "new.yaml"
        new.write_text(yaml.safe_dump({"id": "one", "arms": arms} | more))
        os.replace(new, file)
        return file

    return write_file


@contextmanager
def arms_of(finished: Path, state: Path, file: Path) -> Iterator[Served]:
    with served(finished / "bundle", state, experiment=file) as service:
        yield service


def logged(state: Path, n: int) -> list[Answer]:
    """The answers of a state, once there are so many."""
    found = list[Answer]()

    def are_there() -> bool:
        log = read_answers(state)
        assert log is not None
        found[:] = [*log]
        log.close()
        return len(found) >= n

    until(are_there)
    return found


def test_each_user_is_answered_by_the_own_arm_and_each_answer_is_logged(
    finished: Path, other: Path, bundle: mgoe.Bundle, tmp_path: Path, write: Write
):
    file, state = write(), tmp_path / "state"
    bundles = {"frozen": bundle, "daily": mgoe.load(other)}
    experiment = load_experiment(file)
    users = bundle.encoders.users.ids(np.arange(12)).to_pylist()
    with arms_of(finished, state, file) as service:
        for user in users:
            number = arm_of(experiment, str(user))
            assert number is not None
            arm = experiment.arms[number].name
            for n, ask in enumerate((service.rank, service.recommend)):
                answer = ask(user=user, k=5)
                newest = logged(state, 1)[-1]
                assert (answer["experiment"], answer["arm"]) == ("one", arm)
                assert answer["bundle"] == newest.version == bundles[arm].name
                assert newest.items == [str(item) for item in answer["items"]]
                assert newest[2:11] == (
                    ("rank", "recommend")[n], str(user), str(user), "one", experiment.phase, arm, False,
                    "answer", bundles[arm].name,
                )  # fmt: skip
                assert (newest.status, newest.reason, newest.propensities) == ("ok", None, None)
                assert newest.latency > 0
                told = bundles[arm].predict([user] * 5, answer["items"])
                for task in bundle.tasks:
                    np.testing.assert_allclose(answer["tasks"][task], told[task], atol=1e-5)
        assert len(logged(state, 24)) == 24
        assert {one.arm for one in logged(state, 24)} == {"frozen", "daily"}


def test_a_request_may_bring_its_arm_and_one_without_a_unit_has_none(
    finished: Path, bundle: mgoe.Bundle, tmp_path: Path, write: Write
):
    state = tmp_path / "state"
    with arms_of(finished, state, write(unit="request")) as service:
        for arm in ("frozen", "daily"):
            answer = service.recommend(user=1, arm=arm, k=3)
            newest = logged(state, 1)[-1]
            assert (answer["arm"], newest.arm, newest.brought, newest.unit) == (arm, arm, True, None)
        answer = service.recommend(user=1, k=3)
        assert "arm" not in answer
        assert (answer["experiment"], answer["bundle"]) == ("one", bundle.name)
        newest = logged(state, 3)[-1]
        assert (newest.unit, newest.experiment, newest.arm, newest.brought) == (None, "one", None, False)
        seen = {service.recommend(user=1, unit=f"session{n}", k=3)["arm"] for n in range(20)}
        assert seen == {"frozen", "daily"}
        session = service.rank(events=[{"item": 1, "behavior": "click"}], unit="session1", k=2)
        assert session["arm"] == service.recommend(user=5, unit="session1", k=2)["arm"]
        refused = service.client.post("/v1/recommend", json={"user": 1, "arm": "dayly"})
        assert refused.status_code == 422
        assert refused.json()["error"] == (
            "must be one of the experiment one, found 'dayly'; did you mean 'daily'?"
        )


def test_without_an_experiment_an_arm_is_refused(finished: Path, tmp_path: Path):
    with served(finished / "bundle", tmp_path) as service:
        refused = service.client.post("/v1/rank", json={"user": 1, "arm": "daily"})
        assert refused.status_code == 422
        assert "is for a service with an experiment, found 'daily'" in refused.json()["error"]
        assert not (tmp_path / "answers").exists()


def fail_in(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the treated arm fail."""
    arm, recommend = service.reloader.beside[0].engine, ranking.recommend

    def fail(engine: Any, *given: Any, **named: Any) -> Any:
        if engine is arm:
            raise RuntimeError("the arm is broken")
        return recommend(engine, *given, **named)

    monkeypatch.setattr(ranking, "recommend", fail)


def test_an_arm_that_fails_is_replaced_by_the_control_and_logged_so(
    finished: Path, bundle: mgoe.Bundle, tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
):
    state = tmp_path / "state"
    with arms_of(finished, state, write()) as service:
        fail_in(service, monkeypatch)
        answer = service.recommend(user=1, arm="daily", k=3)
        newest = logged(state, 1)[-1]
        assert (answer["arm"], answer["bundle"], newest.version) == ("daily", bundle.name, bundle.name)
        assert (newest.arm, newest.status, newest.reason) == ("daily", "fallback", "the arm is broken")
        assert newest.items == [str(item) for item in answer["items"]]
        assert service.recommend(user=1, arm="frozen", k=3)["items"] == answer["items"]
        page = service.client.get("/metrics").text
        assert 'mgoe_experiment_answers_total{outcome="fallback"} 1.0' in page


def test_the_control_answers_alone_where_an_arm_of_an_interleaved_list_fails(
    finished: Path, tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
):
    state = tmp_path / "state"
    with arms_of(finished, state, write(interleave=1.0)) as service:
        fail_in(service, monkeypatch)
        answer = service.recommend(user=1, k=3)
        newest = logged(state, 1)[-1]
        assert (newest.arm, newest.teams) == (None, None)
        assert (newest.status, newest.reason) == ("fallback", "the arm is broken")
        assert answer["items"] == service.recommend(user=1, arm="frozen", k=3)["items"]
        asked = {"user": 1, "objective": "nothing"}
        assert service.client.post("/v1/recommend", json=asked).status_code == 422


def test_an_error_is_logged(finished: Path, tmp_path: Path, write: Write):
    state = tmp_path / "state"
    with arms_of(finished, state, write()) as service:
        asked = {"user": 1, "arm": "daily", "objective": "nothing"}
        assert service.client.post("/v1/recommend", json=asked).status_code == 422
        newest = logged(state, 1)[-1]
        assert (newest.status, newest.items, newest.arm) == ("error", [], "daily")
        assert newest.reason is not None
        assert "nothing" in newest.reason


def test_an_answer_that_cannot_be_logged_is_given_and_reported(
    finished: Path, tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
):
    with arms_of(finished, tmp_path / "state", write()) as service:
        with monkeypatch.context() as patched:
            patched.setattr(AnswerLog, "append", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
            assert service.recommend(user=1, k=3)["items"]
        detail = service.client.get("/readyz").json()["detail"]
        assert detail == "answers are not logged: disk full"
        assert 'mgoe_write_failures_total{store="answers"} 1.0' in service.client.get("/metrics").text
        service.recommend(user=1, k=3)
        assert service.client.get("/readyz").json()["detail"] is None


def test_the_list_of_another_arm_is_logged_for_a_sample(
    finished: Path, other: Path, bundle: mgoe.Bundle, tmp_path: Path, write: Write
):
    state = tmp_path / "state"
    theirs = mgoe.load(other)
    with arms_of(finished, state, write(compare=1.0)) as service:
        for n, (arm, name) in enumerate((("frozen", theirs.name), ("daily", bundle.name)), 1):
            service.recommend(user=1, arm=arm, k=4)
            first, second = logged(state, 2 * n)[-2:]
            assert (first.use, second.use) == ("answer", "compare")
            assert first.request == second.request
            assert second.version == name != first.version
        assert [one.use for one in logged(state, 4)] == ["answer", "compare"] * 2


def test_under_load_no_arm_is_compared_and_that_is_counted(
    finished: Path, tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(module.WAITING, "compare", 0)
    with arms_of(finished, tmp_path / "state", write(compare=1.0)) as service:
        service.recommend(user=1, arm="daily", k=4)
        dropped = 'mgoe_experiment_answers_total{outcome="dropped"} 1.0'
        until(lambda: dropped in service.client.get("/metrics").text)
        assert [one.use for one in logged(tmp_path / "state", 1)] == ["answer"]


def test_an_arm_explores_with_logged_propensities_and_a_retry_gets_the_same_list(
    finished: Path, tmp_path: Path, write: Write
):
    state = tmp_path / "state"
    file = write(daily={"bundle": None, "explore": {"temperature": 0.5}})
    with arms_of(finished, state, file) as service:
        plain = service.recommend(user=1, arm="frozen", k=5)
        assert "propensities" not in plain
        lists = set()
        for number in range(10):
            given = [
                service.client.post(
                    "/v1/recommend",
                    json={"user": 1, "arm": "daily", "k": 5},
                    headers={"x-request-id": f"request{number}"},
                ).json()
                for _ in range(2)
            ]
            assert timeless(given[0]) == timeless(given[1])
            newest = logged(state, 1)[-1]
            assert (chances := newest.propensities) is not None
            assert chances == given[0]["propensities"]
            assert len(chances) == 5
            assert all(0 < one <= 1 for one in chances)
            lists.add(tuple(given[0]["items"]))
        assert len(lists) > 1
        ranked = service.rank(user=1, arm="daily", candidates=plain["items"], k=5)
        assert sorted(ranked["items"]) == sorted(plain["items"])


def test_lists_of_two_arms_are_interleaved(finished: Path, tmp_path: Path, write: Write):
    state = tmp_path / "state"
    with arms_of(finished, state, write(interleave=1.0)) as service:
        own = {arm: service.recommend(user=1, arm=arm, k=6) for arm in ("frozen", "daily")}
        answer = service.recommend(user=1, k=6)
        newest = logged(state, 3)[-1]
        assert newest.arm is None
        assert newest.experiment == answer["experiment"] == "one"
        assert "arm" not in answer
        assert newest.teams is not None
        assert newest.items == [str(item) for item in answer["items"]]
        for place in range(2, 7, 2):
            assert newest.teams[:place].count("frozen") == place // 2
        for row, (item, team) in enumerate(zip(answer["items"], newest.teams, strict=True)):
            at = own[team]["items"].index(item)
            assert set(own[team]["items"][:at]) <= set(answer["items"][:row])
            for task, scores in answer["tasks"].items():
                assert scores[row] == own[team]["tasks"][task][at]
        assert service.rank(user=1, k=2, candidates=[1, 2]).get("arm") is None
        assert logged(state, 4)[-1].teams is None


def test_the_switch_works_without_a_restart_and_another_experiment_needs_one(
    finished: Path, bundle: mgoe.Bundle, tmp_path: Path, write: Write
):
    state = tmp_path / "state"
    file = write()
    with arms_of(finished, state, file) as service:
        assert service.recommend(user=1, arm="daily", k=2)["arm"] == "daily"
        write(stop=True)
        until(lambda: "experiment" not in service.recommend(user=1, arm="daily", k=2))
        newest = logged(state, 1)[-1]
        assert (newest.experiment, newest.phase, newest.arm) == (None, None, None)
        assert newest.version == bundle.name
        write(id="another")
        until(lambda: service.client.get("/readyz").json()["detail"] is not None)
        detail = service.client.get("/readyz").json()["detail"]
        assert "another id, other arms and other bundles need a restart" in detail
        assert "experiment" not in service.recommend(user=1, k=2)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        write(start=now)
        until(lambda: service.client.get("/readyz").json()["detail"] is None)
        assert "experiment" not in service.recommend(user=1, k=2)
        write(end=now)
        until(lambda: "experiment" in service.recommend(user=1, k=2))


def test_two_experiments_share_no_user_and_each_has_its_own_arms(
    finished: Path, other: Path, tmp_path: Path, write: Write
):
    state, control = tmp_path / "state", {"name": "control", "bundle": None}

    def of(number: int, **more: Any) -> Path:
        space = {"id": "lists", "range": [number / 2, number / 2 + 0.5]}
        given: dict[str, Any] = {"id": f"e{number}", "file": f"e{number}", "namespace": space}
        return write(control, {"name": f"treated{number}"}, **(given | more))

    files = [of(number) for number in range(2)]
    experiments = [load_experiment(file) for file in files]
    with served(finished / "bundle", state, experiment=files) as service:
        assert len(service.reloader.beside) == 1, "a bundle of two arms is opened once"
        expected = list[tuple[str, str, str | None]]()
        for user in range(24):
            answer = service.recommend(user=user, k=3)
            arms = {one.id: arm_of(one, str(user)) for one in experiments}
            [(name, arm)] = [(name, arm) for name, arm in arms.items() if arm is not None]
            assert (answer["experiment"], answer["arm"]) == (name, ("control", f"treated{name[1:]}")[arm])
            expected.append((str(user), name, answer["arm"]))
        assert [(one.user, one.experiment, one.arm) for one in logged(state, 24)] == expected
        assert len({one[1:] for one in expected}) == 4
        mine = expected[0][1]
        for named, where in (("treated0", "e0"), ("treated1", "e1"), ("control", mine)):
            answer = service.recommend(user=0, arm=named, k=2)
            assert (answer["experiment"], answer["arm"]) == (where, named)
        session = service.rank(events=[{"item": 1, "behavior": "click"}], k=2)
        assert "experiment" not in session, "whoever is no unit is in no namespace"
        refused = service.client.post("/v1/rank", json={"user": 1, "arm": "treated2"})
        assert "must be one of the experiment e0 or e1, found 'treated2'" in refused.json()["error"]
        of(1, stop=True)
        other_user = next(int(user) for user, name, _ in expected if name == "e1")
        until(lambda: "experiment" not in service.recommend(user=other_user, k=2))
        first_user = next(int(user) for user, name, _ in expected if name == "e0")
        assert service.recommend(user=first_user, k=2)["experiment"] == "e0"
        of(1, namespace={"id": "lists", "range": [0.4, 1]})
        until(lambda: service.client.get("/readyz").json()["detail"] is not None)
        assert f"overlaps {files[0]} on one unit" in service.client.get("/readyz").json()["detail"]
        assert service.recommend(user=first_user, k=2)["experiment"] == "e0"


def test_an_event_counts_in_both_arms_when_it_is_accepted(finished: Path, tmp_path: Path, write: Write):
    with arms_of(finished, tmp_path / "state", write()) as service:
        for number in range(3):
            user = 10**6 + number
            assert all(service.recommend(user=user, arm=arm)["unseen_user"] for arm in ("frozen", "daily"))
            service.add({"user": user, "item": 1, "behavior": "click"})
            for arm in ("frozen", "daily"):
                assert not service.recommend(user=user, arm=arm)["unseen_user"]


def test_an_arm_follows_its_path(finished: Path, other: Path, tmp_path: Path, write: Write):
    link = tmp_path / "daily"
    link.symlink_to(finished / "bundle")
    state = tmp_path / "state"
    with arms_of(finished, state, write(daily={"bundle": str(link)})) as service:
        before = service.recommend(user=1, arm="daily", k=2)["bundle"]
        new = tmp_path / "new"
        new.symlink_to(other)
        os.replace(new, link)
        name = mgoe.load(other).name
        until(lambda: service.recommend(user=1, arm="daily", k=2)["bundle"] == name)
        assert service.recommend(user=1, arm="frozen", k=2)["bundle"] == before != name
        assert {one.version for one in logged(state, 1) if one.arm == "daily"} == {before, name}


def test_another_control_is_refused(finished: Path, other: Path, tmp_path: Path, write: Write):
    file = write(frozen={"bundle": str(other)}, daily={"bundle": str(finished / "bundle")})
    rule = r"arms\.0\.bundle: the first arm is the control, which is the served bundle"
    with pytest.raises(ConfigError, match=rule), arms_of(finished, tmp_path / "state", file):
        pass


def test_an_arm_of_other_tasks_is_refused(finished: Path, other: Path):
    one, two = mgoe.load(finished / "bundle"), mgoe.load(other)
    module.check_tasks("an arm", two, one)
    two.manifest = two.manifest.model_copy(update={"tasks": two.manifest.tasks[:1]})
    with pytest.raises(BundleError, match="an arm must have the tasks of the bundle that answers"):
        module.check_tasks("an arm", two, one)


def test_a_shadow_is_an_arm_whose_answers_nobody_gets(
    finished: Path, other: Path, bundle: mgoe.Bundle, tmp_path: Path, write: Write
):
    """It scores what the arms answer, whichever arm it was."""
    state, third = tmp_path / "state", tmp_path / "third"
    shutil.copytree(other, third)
    manifest = json.loads((third / MANIFEST).read_text())
    (third / MANIFEST).write_text(json.dumps(manifest | {"note": "another"}))
    shadow = {"bundle": str(third), "share": 1.0}
    with arms_of(finished, state, write(shadow=shadow)) as service:
        until(lambda: service.shadow is not None and service.shadow.engine is not None)
        for n, arm in enumerate(("frozen", "daily"), 1):
            answer = service.recommend(user=1, arm=arm, k=4)
            newest = {one.use: one for one in logged(state, 2 * n)[-2:]}
            first, second = newest["answer"], newest["shadow"]
            assert first.request == second.request
            assert (first.version, first.scores, first.shown) == (answer["bundle"], None, None)
            assert (second.served, second.version) == (first.version, mgoe.load(third).name)
            assert (second.experiment, second.arm, second.unit, second.user) == (None, None, None, "1")
            assert second.items[: second.shown] == first.items
            assert second.scores is not None
            told = mgoe.load(third).predict([1] * len(second.items), [int(item) for item in second.items])
            np.testing.assert_allclose(second.scores, told[[*bundle.tasks]], atol=1e-5)
        items = bundle.encoders.items.ids(np.arange(2)).to_pylist()
        assert service.score(users=[1], items=items)["bundle"] == bundle.name
        assert logged(state, 5)[-1].route == "score"
        counted = 'mgoe_shadow_requests_total{outcome="logged"} 3.0'  # just after it is logged
        until(lambda: counted in service.client.get("/metrics").text)
        write(shadow=shadow | {"share": 1e-9})

        def is_read() -> bool:
            shadow = service.experiment and service.experiment.settings[0].shadow
            return shadow is not None and shadow.share < 1

        until(is_read)
        service.score(users=[1], items=items)
        write(shadow=shadow | {"bundle": str(other)})
        until(lambda: service.client.get("/readyz").json()["detail"] is not None)
        assert "need a restart" in service.client.get("/readyz").json()["detail"]
    assert [one.use for one in logged(state, 5)].count("shadow") == 3


def test_an_arm_alone_needs_a_shadow_and_assigns_nobody(
    finished: Path, other: Path, tmp_path: Path, write: Write
):
    arm, state = {"name": "served", "share": 1.0}, tmp_path / "state"
    with pytest.raises(ConfigError, match="must hold two at least, or one and `shadow`, found one"):
        load_experiment(write(arms=[arm]))
    file = write(arms=[arm], shadow={"bundle": str(other), "share": 1.0}, compare=1.0)
    with arms_of(finished, state, file) as service:
        until(lambda: service.shadow is not None and service.shadow.engine is not None)
        answer = service.recommend(user=1, k=3)
        assert "experiment" not in answer
        assert [one.use for one in logged(state, 1)] == ["shadow"]
        assert service.client.post("/v1/rank", json={"user": 1, "arm": "served"}).status_code == 422


def test_new_bundles_of_all_arms_move_nobody_and_each_request_counts_once(
    finished: Path, other: Path, tmp_path: Path, write: Write
):
    """Both arms are replaced while requests run, and the service starts again with the same state."""
    state, links = tmp_path / "state", {name: tmp_path / name for name in ("served", "daily")}
    bundles = [finished / "bundle", other]
    names = [mgoe.load(path).name for path in bundles]

    def lead(link: Path, path: Path) -> None:
        (new := tmp_path / "new").symlink_to(path)
        os.replace(new, link)

    for link, path in zip(links.values(), bundles, strict=True):
        lead(link, path)
    file = write(daily={"bundle": str(links["daily"])}, compare=1.0)
    asked, arms = dict[str, tuple[str, str]](), dict[int, set[str]]()

    def ask(service: Served, users: Sequence[int] = range(20)) -> None:
        for user in users:
            found = service.client.post("/v1/recommend", json={"user": user, "k": 3})
            answer = found.json()
            asked[found.headers["x-request-id"]] = answer["arm"], answer["bundle"]
            arms.setdefault(user, set()).add(answer["arm"])

    for _ in range(2):
        with served(links["served"], state, experiment=file) as service:
            ask(service)
            for link, path in zip(links.values(), reversed(bundles), strict=True):
                lead(link, path)
            ask(service)
            engines = [service.reloader, *service.reloader.beside]
            until(lambda engines=engines: [one.engine.name for one in engines] == names[::-1])
            ask(service)
        bundles.reverse()
        names.reverse()
    answers = logged(state, len(asked))
    shown = [one for one in answers if one.use == "answer"]
    assert {one.request: (one.arm, one.version) for one in shown} == asked
    assert len(shown) == len(asked) == 120
    assert all(len(names) == 1 for names in arms.values())
    assert {name for names in arms.values() for name in names} == {"frozen", "daily"}
    assert len({one.phase for one in shown}) == 1
    compared = Counter(one.request for one in answers if one.use == "compare")
    assert {*compared.values()} == {1}
    assert compared.keys() <= asked.keys()
