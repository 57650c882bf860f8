"""A ranker serves its bundle from a thread of the process that fitted it, until it is stopped."""

import gc
import importlib
from typing import Any

import pandas as pd
import pytest

import mgoe
from mgoe.config import RunSettings
from mgoe.errors import ConfigError, MgoeError, MissingExtra
from tests.ranker.conftest import like
from tests.serving.served import get, httpx, post

TORCH = {"runtime": {"engine": "torch"}}


def test_it_ranks_as_the_ranker_does_until_it_is_stopped(ranker: mgoe.Ranker):
    user = ranker.graph.ids("user")[3]
    with ranker.serve(port=0, **TORCH) as service:
        answer = post(f"{service.url}/v1/rank", json={"user": user, "k": 5}).json()
        assert answer["items"] == ranker.recommend(user, 5)["item"].tolist()
        assert service.url in service._repr_html_()
        with pytest.raises(ConfigError, match="port: must be free on"):
            ranker.serve(port=int(service.url.rpartition(":")[2]), **TORCH)
    assert repr(service) == f"Service(stopped at {service.url})"
    with pytest.raises(httpx.ConnectError):
        get(service.url)
    service.stop()  # a second time does nothing


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"workers": 2}, "must be 1 in a process with other work, found 2"),
        ({"prot": 1}, "did you mean 'port'"),
        ({"host": "0.0.0.0"}, "a token is needed"),
    ],
)
def test_wrong_settings_are_named(ranker: mgoe.Ranker, given: dict[str, Any], sentence: str):
    with pytest.raises(MgoeError, match=sentence) as caught:
        ranker.serve(**{"port": 0, **given})
    assert "--" not in str(caught.value)


def test_a_missing_extra_is_named(ranker: mgoe.Ranker, monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingExtra, match=r"pip install -e '.\[serve\]'"):
        ranker.serve(port=0)


def test_what_a_ranker_hands_out_outlives_its_next_fit(events: pd.DataFrame, small: RunSettings):
    own = mgoe.Ranker(["click"], model="shared-bottom", settings=like(small)).fit(events)
    graph, bundle = own.graph, own.bundle_
    with own.serve(port=0, **TORCH) as service:
        own.set_params(tasks=["buy"]).fit(events)
        assert bundle.path.is_dir()
        assert post(f"{service.url}/v1/rank", json={"user": 1, "k": 2}).json()["objective"] == "click"
        assert graph.to_scipy("user", "item").nnz
        home = bundle.path
    del graph, bundle, service
    gc.collect()
    assert not home.exists()
