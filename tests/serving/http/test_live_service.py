"""Events over HTTP count at once and reach every worker; bundles are replaced while requests run."""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mgoe
from mgoe.errors import BundleError, StoreError
from mgoe.lifecycle import Sources, update
from mgoe.serving import LiveBundle, open_log
from mgoe.serving.events.log import ServiceLog
from tests.serving.served import Served, served, timeless

httpx = pytest.importorskip("httpx", reason="httpx is not installed: pip install httpx")


def until(happened: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_an_event_changes_the_next_answer(finished: Path, bundle: mgoe.Bundle, tmp_path: Path):
    user, items = (
        bundle.encoders.users.ids([0]).to_pylist()[0],
        bundle.encoders.items.ids(np.arange(8)).to_pylist(),
    )
    event = {
        "user": "newcomer" if isinstance(user, str) else 10**9,
        "item": items[0],
        "behavior": "buy",
        "id": "e1",
    }
    with served(finished / "bundle", tmp_path) as service:
        before = service.rank(user=event["user"], candidates=items)
        assert before["unseen_user"]
        assert service.add(event) == {
            "accepted": 1,
            "refused": 0,
            "erased": 0,
            "outcomes": [{"outcome": "accepted", "error": None}],
        }
        after = service.rank(user=event["user"], candidates=items)
        assert not after["unseen_user"]
        assert after["scores"] != before["scores"]
        assert items[0] not in service.rank(user=event["user"], exclude_known=True, k=1000)["items"]
        explained = service.explain(user=event["user"], item=items[0])
        assert explained["live"]["user"]["new"]
        assert [one["id"] for one in explained["recents"]["items"]] == [items[0]]
        service.add(event, event)
        assert service.rank(user=event["user"], candidates=items)["scores"] == after["scores"]
        page = service.client.get("/metrics").text
        assert "mgoe_live_duplicates" in page
        assert 'mgoe_calibration_error{calibration="after",task="buy"}' in page
    with served(finished / "bundle", tmp_path) as again:  # now by the exported graphs
        scores = again.rank(user=event["user"], candidates=items)["scores"]
        assert scores == pytest.approx(after["scores"], rel=1e-6)


def test_texts_do_not_build_an_index_over_all_ids_where_ids_are_whole_numbers(finished: Path, tmp_path: Path):
    with served(finished / "bundle", tmp_path) as service:
        service.add({"user": "1000000000", "item": 10**9, "behavior": "buy"})
        answer = service.rank(user="nobody", candidates=["nothing", "1000000000", 10**9, "07"])
        assert (answer["unseen_user"], answer["unseen_items"], answer["repeated"]) == (True, 2, 1)
        assert not service.rank(user="1000000000", k=1)["unseen_user"]
        service.explain(user="nobody", item="nothing")
        for side in (vocabularies := service.reloader.engine.live.vocabularies):
            assert "_by_string" not in vars(vocabularies[side])


def test_predict_with_the_events_of_a_service_agrees_with_it(
    finished: Path, bundle: mgoe.Bundle, tmp_path: Path
):
    users, items = (
        bundle.encoders.users.ids(np.arange(3)).to_pylist(),
        bundle.encoders.items.ids(np.arange(8)).to_pylist(),
    )
    asked = [10**9, *users]
    with served(finished / "bundle", tmp_path) as service:
        service.add(
            *({"user": user, "item": item, "behavior": "buy"} for user in asked[:3] for item in items[:2])
        )
        answers = [service.score(users=[user], items=items) for user in asked]
    moved = LiveBundle(bundle, open_log(tmp_path, make=False))
    for user, answer in zip(asked, answers, strict=True):
        told = moved.predict(user, items)
        for task in bundle.tasks:
            assert_allclose(answer["tasks"][task], told[task], rtol=0, atol=1e-5)
    assert not np.allclose(
        moved.predict(users[0], items)["buy"], bundle.predict(users[0], items)["buy"], rtol=0, atol=1e-5
    )
    assert set(moved.recommend(10**9, k=1000, exclude_known=True)["item"]).isdisjoint(items[:2])


def test_each_event_has_its_own_outcome(finished: Path, bundle: mgoe.Bundle, tmp_path: Path):
    user, item = bundle.encoders.users.ids([0]).to_pylist()[0], bundle.encoders.items.ids([0]).to_pylist()[0]
    good = {"user": user, "item": item, "behavior": "click"}
    bad = [
        good | {"behavior": "clik"}, good | {"time": time.time() + 3600}, good | {"time": "soon"},
        {"user": user}, good | {"what": 1}, good | {"time": 10**400},
    ]  # fmt: skip
    with served(finished / "bundle", tmp_path) as service:
        found = service.add(good, *bad, good)
    assert (found["accepted"], found["refused"]) == (2, len(bad))
    assert [one["outcome"] for one in found["outcomes"]] == ["accepted", *["refused"] * len(bad), "accepted"]
    for outcome, message in zip(
        found["outcomes"][1:],
        ["did you mean 'click'", "ahead", "time as in", "item", "no field", "number since 1970"],
        strict=False,
    ):
        assert message in outcome["error"]


def test_workers_see_the_events_of_other_workers(finished: Path, bundle: mgoe.Bundle, tmp_path: Path):
    item = bundle.encoders.items.ids([0]).to_pylist()[0]
    with served(finished / "bundle", tmp_path) as one, served(finished / "bundle", tmp_path) as other:
        one.add({"user": 10**9, "item": item, "behavior": "click"})
        said = one.rank(user=10**9, k=5)
        until(lambda: other.rank(user=10**9, k=5)["scores"] == said["scores"])
        assert not said["unseen_user"]
        assert timeless(other.rank(user=10**9, k=5)) == timeless(said)


def test_a_store_that_goes_away_and_comes_back(
    finished: Path, bundle: mgoe.Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    user, item = bundle.encoders.users.ids([0]).to_pylist()[0], bundle.encoders.items.ids([0]).to_pylist()[0]
    log = ServiceLog(tmp_path / "log.sqlite")
    with served(finished / "bundle", tmp_path, log=log) as service, monkeypatch.context() as away:

        def gone(*_: object, **__: object) -> None:
            raise StoreError("store", "is away; start it again")

        away.setattr(log, "append", gone)
        away.setattr(log, "read", gone)
        response = service.client.post(
            "/v1/events", json={"events": [{"user": user, "item": item, "behavior": "click"}]}
        )
        assert (response.status_code, response.json()["place"]) == (503, "store")
        until(lambda: "away" in (service.client.get("/readyz").json()["detail"] or ""))
        assert service.rank(user=user, k=3)["ranked"]
        away.undo()
        assert service.add({"user": user, "item": item, "behavior": "click"})["accepted"] == 1
        until(lambda: service.client.get("/readyz").json()["detail"] is None)


def hammer(service: Served, stop: threading.Event, found: list[tuple[int, str]]) -> None:
    with httpx.Client(base_url=service.url, timeout=60) as client:
        while not stop.is_set():
            response = client.post("/v1/rank", json={"user": 1, "k": 3})
            found.append((response.status_code, response.json().get("bundle", "")))


def test_a_bundle_is_replaced_while_requests_run(finished: Path, own: Path, tmp_path: Path):
    link, other = tmp_path / "current", tmp_path / "other"
    link.symlink_to(own)
    shutil.copytree(own, other)
    change_manifest(other, note="another")
    with served(link, tmp_path / "state") as service:
        stop, found = threading.Event(), []
        threads = [threading.Thread(target=hammer, args=(service, stop, found)) for _ in range(2)]
        for thread in threads:
            thread.start()
        first = service.reloader.engine.name
        for target in (other, own):
            before = service.reloader.engine.name
            (tmp_path / "next").symlink_to(target)
            os.replace(tmp_path / "next", link)
            until(lambda before=before: service.rank(user=1, k=1)["bundle"] != before)
        stop.set()
        for thread in threads:
            thread.join()
        assert {status for status, _ in found} == {200}
        assert {name for _, name in found} <= {first, mgoe_name(other)}
        assert 'mgoe_bundle_swaps_total{outcome="taken"} 2.0' in service.client.get("/metrics").text


def change_manifest(bundle: Path, **changes: object) -> None:
    manifest = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps(manifest | changes))


def mgoe_name(bundle: Path) -> str:
    from mgoe._util.files import sha256

    return sha256(bundle / "bundle.json")[:12]


def damage(bundle: Path) -> None:
    weights = bundle / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damage, "checksum"),
        (lambda bundle: change_manifest(bundle, format=99), "format"),
        (lambda bundle: (bundle / "spec.json").unlink(), "missing"),
    ],
)
def test_a_bundle_that_cannot_be_served_is_refused_and_the_old_one_keeps_serving(
    finished: Path, own: Path, tmp_path: Path, change, message: str
):
    with served(own, tmp_path / "state") as service:
        name = service.rank(user=1, k=1)["bundle"]
        change(own)
        until(lambda: message in (service.client.get("/readyz").json()["detail"] or ""))
        assert service.rank(user=1, k=1)["bundle"] == name
        assert 'mgoe_bundle_swaps_total{outcome="refused"} 1.0' in service.client.get("/metrics").text
        shutil.copytree(finished / "bundle", own, dirs_exist_ok=True)
        until(lambda: service.client.get("/readyz").json()["detail"] is None)


def test_an_event_without_an_id_counts_once_after_the_bundle_was_refreshed(finished: Path, tmp_path: Path):
    item = mgoe.load(finished / "bundle").encoders.items.ids([0]).to_pylist()[0]
    event = {"user": 10**9, "item": item, "behavior": "click", "time": "2026-01-01T00:00:00Z"}
    with served(finished / "bundle", tmp_path / "state") as service:
        service.add(event)
    update(finished / "bundle", Sources(events=str(tmp_path / "state")), tmp_path / "new", groups="keep")
    with served(tmp_path / "new", tmp_path / "state") as service:
        service.add(event)
        assert service.reloader.engine.live.stats["duplicates"] == 1
        assert service.reloader.engine.live.stats["events"] == 0
    with pytest.raises(BundleError, match="holds every event"):
        update(tmp_path / "new", Sources(events=str(tmp_path / "state")), tmp_path / "newer", groups="keep")


def test_a_refreshed_bundle_holds_the_events_and_takes_later_ones(finished: Path, own: Path, tmp_path: Path):
    state, items = tmp_path / "state", mgoe.load(own).encoders.items.ids(np.arange(5)).to_pylist()
    with served(own, state) as service:
        service.add(
            *({"user": 10**9, "item": item, "behavior": "click", "id": str(item)} for item in items[:3])
        )
        update(own, Sources(events=str(state)), tmp_path / "new", groups="keep")
        service.add({"user": 10**9, "item": items[3], "behavior": "buy", "id": "later"})
        name = service.reloader.engine.name
        shutil.copytree(tmp_path / "new", own, dirs_exist_ok=True)
        until(lambda: service.reloader.engine.name != name and service.reloader.refused is None)
        explained = service.explain(user=10**9)
        assert {one["id"] for one in explained["recents"]["items"]} == set(items[:4])
        assert explained["live"]["user"]["pairs"] == [3, 4]
        scored, ranked = (
            service.score(users=[10**9], items=[items[4]]),
            service.rank(user=10**9, candidates=[items[4]]),
        )
        assert_allclose(scored["tasks"]["click"], ranked["tasks"]["click"])
