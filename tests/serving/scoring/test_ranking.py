"""Rankings and scores over HTTP are those of the bundle."""

import json
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from typer.testing import CliRunner

import mgoe
from mgoe._util.files import sha256
from mgoe.cli import app
from mgoe.config import RunSettings, dump_settings, load_settings
from mgoe.serving.scoring import scorer
from tests.serving.served import Served, answered, served, timeless


@pytest.fixture(scope="module")
def users(bundle: mgoe.Bundle) -> list[int]:
    return bundle.encoders.users.ids(np.arange(bundle.encoders.users.size)).to_pylist()


@pytest.fixture(scope="module")
def items(bundle: mgoe.Bundle) -> list[int]:
    return bundle.encoders.items.ids(np.arange(bundle.encoders.items.size)).to_pylist()


def test_scores_are_those_of_mgoe_predict(
    service: Served, bundle: mgoe.Bundle, users: list, items: list, tmp_path: Path
):
    rng = random.Random(0)
    pairs = pd.DataFrame(
        {"user_id": rng.choices([*users, 99], k=80), "item_id": rng.choices([*items, 98], k=80)}
    )
    pairs.to_parquet(tmp_path / "pairs.parquet")
    words = ["predict", bundle.path, tmp_path / "pairs.parquet", "--out", tmp_path / "scores.parquet"]
    assert CliRunner().invoke(app, [str(word) for word in words]).exit_code == 0
    expected = pd.read_parquet(tmp_path / "scores.parquet")
    found = service.score(users=pairs["user_id"].tolist(), items=pairs["item_id"].tolist())
    for task in bundle.tasks:
        assert_allclose(found["tasks"][task], expected[task], rtol=0, atol=1e-6)
    assert (found["unseen_users"], found["unseen_items"]) == (
        (pairs["user_id"] == 99).sum(),
        (pairs["item_id"] == 98).sum(),
    )


def test_context_is_read(shown: Path, tmp_path: Path):
    bundle = mgoe.load(shown / "bundle")
    user, every = (
        bundle.encoders.users.ids([3]).to_pylist()[0],
        bundle.encoders.items.ids(np.arange(20)).to_pylist(),
    )
    with served(shown / "bundle", tmp_path) as service:
        for context in ({}, {"device": "phone"}, {"device": "never seen"}, {"device": None}):
            expected = bundle.predict([user], every, {name: [value] for name, value in context.items()})
            found = service.score(users=[user], items=every, context=context)
            for task in bundle.tasks:
                assert_allclose(found["tasks"][task], expected[task], rtol=1e-4, atol=1e-5)
        several = service.client.post("/v1/rank", json={"user": user, "context": {"device": ["phone"]}})
        assert (several.status_code, several.json()["place"]) == (422, "context.device")
        misspelt = service.client.post("/v1/rank", json={"user": user, "context": {"devise": "x"}})
        assert misspelt.json()["error"].endswith("did you mean 'device'?")
        json.dumps(service.explain(user=user, item=every[0], context='{"device": "phone"}'))


@given(data=st.data())
def test_a_ranking_is_ordered_by_the_objective(
    service: Served, bundle: mgoe.Bundle, users: list, items: list, data: st.DataObject
):
    user = data.draw(st.sampled_from([*users, 99]))
    candidates = data.draw(st.lists(st.sampled_from([*items, 98]), min_size=1, max_size=30))
    k = data.draw(st.integers(1, 40))
    found = service.rank(user=user, candidates=candidates, k=k, objective="click * buy^2 + .1")
    once = list(dict.fromkeys(candidates))
    scores = bundle.predict([user], once)
    values = scores["click"].to_numpy(np.float64) * scores["buy"].to_numpy(np.float64) ** 2 + 0.1
    assert_allclose(found["scores"], np.sort(values)[::-1][:k], rtol=1e-5)
    assert_allclose(found["scores"], [values[once.index(item)] for item in found["items"]], rtol=1e-5)
    assert (found["ranked"], found["repeated"]) == (len(once), len(candidates) - len(once))
    assert found["unseen_user"] == (user == 99)


@pytest.mark.parametrize("block", [7, 2048])
def test_the_whole_catalogue_is_ranked_in_blocks(
    service: Served, bundle: mgoe.Bundle, users: list, monkeypatch, block: int
):
    monkeypatch.setattr(scorer, "BLOCK_ROWS", block)
    found = service.rank(user=users[5], k=12, objective="click")
    assert_allclose(found["scores"], bundle.recommend(users[5], k=12, objective="click")["click"], atol=1e-5)
    assert found["ranked"] == bundle.encoders.items.size


def test_a_ranking_by_a_task_within_a_sample_space_agrees_with_recommend(own: Path, tmp_path: Path):
    """The default objective is how likely the task is done at all."""
    raw = load_settings(own / "settings.yaml").model_dump(mode="json")
    raw["tasks"][1]["given"] = "click"
    (own / "settings.yaml").write_text(dump_settings(RunSettings.model_validate(raw)))
    manifest = json.loads((own / "bundle.json").read_text())
    manifest["checksums"]["settings.yaml"] = sha256(own / "settings.yaml")
    (own / "bundle.json").write_text(json.dumps(manifest))
    with served(own, tmp_path / "state") as service:
        found, conditional = service.rank(user=3, k=1000), service.rank(user=3, k=1000, objective="buy")
        assert found["objective"] == answered(service.client.get("/v1/about"))["objective"] == "click * buy"
        same = service.rank(user=3, k=1000, objective="click * buy")
        assert timeless(found) == timeless(same)
    assert_allclose(found["scores"], np.array(found["tasks"]["click"]) * found["tasks"]["buy"], rtol=1e-6)
    assert_allclose(conditional["scores"], conditional["tasks"]["buy"], rtol=1e-6)
    recommended = mgoe.load(own).recommend(3, k=1000)
    assert_allclose(found["scores"], recommended.click * recommended.buy, rtol=1e-3)


def test_filters(service: Served, bundle: mgoe.Bundle, users: list, items: list):
    known = set(bundle.encoders.items.ids(bundle.graph.latest.known_items(0)).to_pylist())
    every = service.rank(user=users[0], k=1000)
    new = service.rank(user=users[0], k=1000, exclude_known=True)
    assert set(every["items"]) - set(new["items"]) == known
    least = float(np.median(every["tasks"]["click"]))
    kept = service.rank(user=users[0], k=1000, at_least={"click": least})
    assert set(kept["items"]) == {
        item for item, p in zip(every["items"], every["tasks"]["click"], strict=True) if p >= least
    }
    candidates = [1, "one", *items[:3]]
    assert service.rank(user=users[0], candidates=candidates, exclude=candidates[:4])["items"] == [items[2]]
    assert service.rank(user=users[0], candidates=[1], exclude=[1])["items"] == []
    assert (
        service.rank(user="--5", candidates=["--7", 7], objective="click / 0", exclude=["--7", 7])["items"]
        == []
    )


def test_ids_are_returned_as_given(service: Served, users: list, items: list):
    found = service.rank(user=str(users[0]), candidates=[str(items[0]), items[1], items[0], "new"])
    assert (found["user"], found["repeated"], found["unseen_items"]) == (str(users[0]), 1, 1)
    assert set(found["items"]) == {str(items[0]), items[1], "new"}
    assert service.rank(user=-(2**60) - 1, candidates=[2**53 - 1])["user"] == str(-(2**60) - 1)


@pytest.mark.parametrize(
    ("request_", "place", "message"),
    [
        ({}, "user", "must be given"),
        ({"user": None}, "user", "must be given"),
        (
            {"user": 1.5},
            "user",
            "must be an id: a whole number of 64 bits, or a text of 1 to 512 characters, found '1.5'",
        ),
        ({"user": True}, "user", "must be an id: a whole number"),
        ({"user": 1, "exclude": [1, None]}, "exclude.1", "must be an id: a whole number"),
        ({"user": 1, "context": {"device": {}}}, "context.device", "must be a text, a number"),
        ({"user": 1, "context": {"device": [1, {}]}}, "context.device", "or a list of these"),
        ({"user": 1, "candidates": []}, "candidates", "at least 1"),
        ({"user": 1, "candidates": list(range(10**5))}, "candidates", "10,000 at most"),
        ({"user": 1, "k": 0}, "k", "greater"),
        ({"user": 1, "kk": 2}, "kk", "not permitted"),
        ({"user": 1, "objective": "click +"}, "objective", "at character 7"),
        ({"user": 1, "objective": "click / 0"}, "objective", "divides by zero"),
        ({"user": 1, "objective": "clik"}, "objective", "did you mean 'click'"),
        ({"user": 1, "at_least": {"clik": 0.1}}, "at_least", "did you mean 'click'"),
        ({"user": 1, "context": {"device": "x"}}, "context.device", "not a context feature"),
        ({"user": 1, "candidates": [[]] * 10**5}, "candidates.0", "must be an id: a whole number"),
    ],
)
def test_a_request_that_cannot_be_ranked_fails(service: Served, request_: dict, place: str, message: str):
    response = service.client.post("/v1/rank", json=request_)
    assert response.status_code == 422
    problem = response.json()
    assert problem["place"] == place
    assert message in problem["error"]


def test_lists_of_pairs_must_match(service: Served):
    response = service.client.post("/v1/score", json={"users": [1, 2], "items": [1, 2, 3]})
    assert (response.status_code, response.json()["place"]) == (422, "users")
