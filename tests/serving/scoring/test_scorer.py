"""The scorer agrees with the bundle, whichever runtime it uses."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import mgoe
from mgoe.bundle.ranking import finished
from mgoe.models import make_model, resolve
from mgoe.serving.events.event import EventReader
from mgoe.serving.online.live import LiveNodes
from mgoe.serving.scoring.item_rows import ItemRows
from mgoe.serving.scoring.runtime import Runtime
from mgoe.serving.scoring.scorer import Scorer
from tests.effort import up_to

for _name in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(_name, reason=f"{_name} is not installed: pip install -e '.[onnx]'")

ENGINES = ("torch", "onnx")


@pytest.fixture(scope="module")
def scorers(bundle: mgoe.Bundle, graphs: Path) -> dict[str, Scorer]:
    return {engine: Scorer(bundle, runtime=Runtime(engine=engine), cache=graphs) for engine in ENGINES}


@pytest.mark.parametrize("engine", ENGINES)
def test_scores_are_those_of_the_bundle(scorers: dict[str, Scorer], bundle: mgoe.Bundle, engine: str):
    @up_to(10)
    @given(
        user=st.integers(-1, 210),
        items=st.lists(st.integers(-1, 110), max_size=40),
    )
    def check(user, items):
        codes = np.array(items, np.int64)
        expected = bundle.score_indices(np.full(len(codes), user), codes)
        found = scorers[engine].score(user, codes)
        assert_allclose(found, expected, atol=1e-5, rtol=1e-4)

    check()


@pytest.mark.parametrize("name", ["mgoe", "mgoe-paper", "stem"])
def test_users_who_are_scored_together_get_their_own_scores(bundle: mgoe.Bundle, name: str):
    """Also where deeper layers read what is the user's, and where nothing is computed ahead."""
    other = mgoe.load(bundle.path)
    vars(other)["model"] = make_model(resolve(name), bundle.model.spec, seed=0).eval()
    scorer = Scorer(other, runtime=Runtime(engine="torch"))

    @up_to(10)
    @given(pairs=st.lists(st.tuples(st.integers(-1, 210), st.integers(-1, 110)), max_size=40))
    def check(pairs):
        users, items = np.array(pairs, np.int64).reshape(-1, 2).T.copy()
        expected = other.score_indices(users, items)
        assert_allclose(finished(scorer.in_blocks(users, items)), expected, atol=1e-5, rtol=1e-4)

    check()


@pytest.mark.parametrize("engine", ENGINES)
def test_contexts_side_features_and_values(shown: Path, engine: str):
    bundle, rng = mgoe.load(shown / "bundle"), np.random.default_rng(0)
    scorer, items = Scorer(bundle, runtime=Runtime(engine=engine)), rng.integers(-1, 100, 30)
    context = {name: rng.integers(0, 3, 1) for name in bundle.encoders.context_features.encode({}, 1)}
    each = {name: np.resize(values, 30) for name, values in context.items()}
    expected = bundle.score_indices(np.full(30, 5), items, each)
    assert_allclose(scorer.score(5, items, context), expected, atol=1e-5, rtol=1e-4)


def test_rows_of_items_that_live_events_touch_are_recomputed(bundle: mgoe.Bundle):
    live = LiveNodes.of(bundle)
    scorer = Scorer(bundle, live, Runtime(engine="torch"))
    items = np.arange(bundle.encoders.items.size)
    before = scorer.score(3, items)
    assert_allclose(before, bundle.score_indices(np.full(len(items), 3), items), atol=1e-5, rtol=1e-4)
    reader = EventReader.of(bundle)
    users, names = (
        bundle.encoders.users.ids([3, 8]).to_pylist(),
        bundle.encoders.items.ids([2, 9]).to_pylist(),
    )
    raw = [
        {"user": user, "item": item, "behavior": "click"}
        for user in users
        for item in (*names, max(names) + 10**6)
    ]
    now = 2 * 10**15
    live.apply([reader.read(event, now) for event in raw])
    scorer.refresh()  # as a service does it where it applies events
    every = np.arange(live.size("item"))
    fresh = Scorer(bundle, live, Runtime(engine="torch"))
    for user in (3, 8, 11):
        # Not to the last bit: PyTorch sums the products of one or two rows in another order, and uses another
        # exponential for the last rows of a block, so a row computed alone differs by some 1e-6 of its size.
        assert_allclose(scorer.score(user, every), fresh.score(user, every), rtol=1e-5)
    assert not np.allclose(scorer.score(3, items), before, atol=1e-6)
    assert scorer.n_items == len(items) + 1


@pytest.mark.parametrize("engine", ENGINES)
def test_a_score_reads_all_of_a_batch_of_events_or_none(
    bundle: mgoe.Bundle, graphs: Path, engine: str, monkeypatch: pytest.MonkeyPatch
):
    """The batch touches the user and the item while the item's row is read."""
    live = LiveNodes.of(bundle)
    scorer, items = Scorer(bundle, live, Runtime(engine=engine), graphs), np.arange(30)
    user, names = bundle.encoders.users.ids([3]).to_pylist()[0], bundle.encoders.items.ids(items).to_pylist()
    events = [
        EventReader.of(bundle).read({"user": user, "item": name, "behavior": "buy"}, 2 * 10**15)
        for name in names
    ]
    live.apply(events[:1])  # so that all is compiled, and the others take no time
    before = scorer.score(3, items)

    def apply() -> None:
        live.apply(events)
        scorer.refresh()

    other, waited, take = threading.Thread(target=apply), [], ItemRows.take

    def read(self: ItemRows, *args: Any) -> Sequence[torch.Tensor]:
        if not waited:
            waited.append(True)
            other.start()
            other.join(0.5)
        return take(self, *args)

    monkeypatch.setattr(ItemRows, "take", read)
    found = scorer.score(3, items)
    other.join()
    assert waited
    assert_allclose(found, before, rtol=1e-6)
    assert not np.allclose(scorer.score(3, items), before, atol=1e-4)


def test_each_block_of_a_request_reads_its_user_again(bundle: mgoe.Bundle, monkeypatch: pytest.MonkeyPatch):
    """After a batch between two blocks, the second block reads both sides as changed."""
    live = LiveNodes.of(bundle)
    scorer, items = Scorer(bundle, live, Runtime(engine="torch")), np.arange(30)
    before, deeper = scorer.score(3, items), scorer._steps.rest
    user, names = bundle.encoders.users.ids([3]).to_pylist()[0], bundle.encoders.items.ids(items).to_pylist()
    events = [
        EventReader.of(bundle).read({"user": user, "item": name, "behavior": "buy"}, 2 * 10**15)
        for name in names
    ]

    def then_apply(*args: Any) -> Any:
        live.apply(events)
        return deeper(*args)

    monkeypatch.setattr("mgoe.serving.scoring.scorer.BLOCK_ROWS", 15)
    monkeypatch.setattr(scorer._steps, "rest", then_apply)
    found = scorer.score(3, items)
    assert_allclose(found[:15], before[:15], rtol=1e-5)
    assert_allclose(found[15:], scorer.score(3, items)[15:], rtol=1e-5)


def test_lower_precision_is_close_and_has_the_same_graphs(
    scorers: dict[str, Scorer], bundle: mgoe.Bundle, graphs: Path
):
    items = np.arange(100)
    exact = scorers["torch"].score(4, items)
    for engine in ENGINES:
        low = Scorer(bundle, runtime=Runtime(engine=engine, precision="bfloat16"), cache=graphs)
        assert not low.awaits_graphs
        found = low.score(4, items)
        assert_allclose(found, exact, atol=0.05)
        assert np.abs(found - exact).max() > 0


def test_the_weights_of_an_explanation_add_up(scorers: dict[str, Scorer]):
    shown = scorers["torch"].weights(4, 7)
    assert set(shown) >= {"gates", "u1", "u2", "i1", "i2"}
    for name in ("gates", "u1", "u2", "i1", "i2"):
        assert_allclose(shown[name].sum(-1), 1, atol=1e-5)
