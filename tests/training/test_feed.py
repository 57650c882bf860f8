import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mgoe._util.prefetch import prefetched
from mgoe.errors import TrainingError
from mgoe.features import Reader, View
from mgoe.models import CategoricalSpec, FeatureSpec
from mgoe.training import Feed, make_spec
from mgoe.training.distributed.process_group import ProcessGroup
from tests.data.test_example_file import example_file, sizes
from tests.effort import up_to
from tests.training.fakes import GRAPH, NEEDS, PREPARED, SPEC, make_examples, make_feed

SEEDS = st.integers(0, 2**32 - 1)


def joined(batches):
    batches = list(batches)
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


@given(
    count=st.integers(1, 300),
    batch_size=st.integers(1, 80),
    seed=SEEDS,
    epoch=st.integers(1, 5),
    block=st.integers(1, 200),
)
def test_every_example_once_an_epoch_with_its_own_inputs(count, batch_size, seed, epoch, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mgoe.training.feed.BLOCK_ROWS", block)
        batches = list(make_feed(count).batches(batch_size, shuffle_seed=(seed, epoch)))
    assert [len(batch["weight"]) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    found = joined(batches)
    rows = found["weight"].numpy().astype(int) - 1  # the fake's weights number the rows
    np.testing.assert_array_equal(np.sort(rows), np.arange(count))
    expected = direct(make_examples(count), rows)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name].numpy(), values, err_msg=name)


def direct(examples, rows):
    """Row by row, straight from each row's own snapshot."""
    parts = []
    for row in rows:
        one = examples.take(np.array([row]))
        view = View.of(GRAPH.snapshots[one.snapshot[0]], PREPARED.user_side, PREPARED.item_side)
        part = Reader(NEEDS, SPEC)(view, one.user, one.item, one.context)
        parts.append(part | {"labels": one.labels, "weight": one.weight, "position": one.position})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@given(count=st.integers(8, 400), seed=SEEDS, epoch=st.integers(1, 50))
def test_the_seed_and_the_epoch_decide_the_order(count, seed, epoch):
    feed = make_feed(count)
    order, again, next_epoch, other = (
        joined(feed.batches(64, shuffle_seed=key))["weight"]
        for key in ((seed, epoch), (seed, epoch), (seed, epoch + 1), (seed + 1, epoch))
    )
    assert (order == again).all()
    assert (order != next_epoch).any()
    assert (order != other).any()


@given(
    count=st.integers(1, 300),
    batch_size=st.integers(1, 80),
    start=st.integers(0, 12),
    block=st.integers(1, 200),
    seed=SEEDS,
)
def test_what_follows_after_some_batches_is_the_rest_of_all(count, batch_size, start, block, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mgoe.training.feed.BLOCK_ROWS", block)
        whole = list(make_feed(count).batches(batch_size, shuffle_seed=seed))
        rest = list(make_feed(count).batches(batch_size, shuffle_seed=seed, start=start))
    assert len(rest) == len(whole[start:])
    for one, other in zip(rest, whole[start:], strict=True):
        for name in other:
            np.testing.assert_array_equal(one[name], other[name])


@given(
    count=st.integers(1, 200),
    size=st.integers(1, 5),
    each=st.integers(1, 20),
    block=st.integers(1, 200),
    seed=SEEDS,
)
def test_processes_share_every_batch(count, size, each, block, seed):
    """Rows with weight are the batch of one process, in some order; a process without a share gets a row
    without weight."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mgoe.training.feed.BLOCK_ROWS", block)
        alone = list(make_feed(count).batches(size * each, shuffle_seed=seed))
        shares = [
            list(make_feed(count).batches(size * each, shuffle_seed=seed, processes=ProcessGroup(rank, size)))
            for rank in range(size)
        ]
    assert {len(share) for share in shares} == {len(alone)}
    for whole, *parts in zip(alone, *shares, strict=True):
        assert all(len(part["weight"]) for part in parts)
        weights = torch.cat([part["weight"] for part in parts])
        assert torch.equal(weights[weights > 0].sort().values, whole["weight"].sort().values)


@up_to(10)
@given(parts=sizes, size=st.integers(1, 5), each=st.integers(1, 20), seed=SEEDS, start=st.integers(0, 3))
def test_processes_share_every_streamed_batch(parts, size, each, seed, start):
    with example_file(parts, shards=2) as file:
        feed = Feed(PREPARED, GRAPH, file, frozenset({"ids"}), SPEC)
        alone = list(feed.batches(size * each, seed))[start:]
        shares = [
            list(feed.batches(size * each, seed, start=start, processes=ProcessGroup(rank, size)))
            for rank in range(size)
        ]
    assert {len(share) for share in shares} == {len(alone)}
    for whole, *parts in zip(alone, *shares, strict=True):
        weights = torch.cat([part["weight"] for part in parts])
        assert torch.equal(weights[weights > 0].sort().values, whole["weight"].sort().values)


@given(count=st.integers(1, 200), first=st.integers(0, 100), length=st.integers(1, 100))
def test_rows_in_order(count, first, length):
    first = min(first, count - 1)
    last = min(count, first + length)
    found = joined(make_feed(count).batches(7, rows=slice(first, last)))
    np.testing.assert_array_equal(found["weight"], np.arange(first + 1, last + 1))


def test_in_order_without_a_seed():
    found = joined(make_feed(500).batches(64))
    np.testing.assert_array_equal(found["weight"], np.arange(1, 501))


def test_only_needed_groups_are_gathered():
    batch = next(iter(make_feed(10, needs=frozenset({"counts"})).batches(10)))
    assert set(batch) == {
        "user",
        "item",
        "user_macro",
        "item_macro",
        "counts",
        "labels",
        "weight",
        "position",
    }


def test_inputs_of_a_prediction_hold_no_label():
    users, items = np.array([0, 3, -1, USERS_BEYOND]), np.array([0, 39, 2, -1])
    view = View.of(GRAPH.snapshots[-1], PREPARED.user_side, PREPARED.item_side)
    inputs = Reader(NEEDS, SPEC)(view, users, items)
    assert not set(inputs) & {"labels", "weight", "position", "snapshot", "bucket"}
    np.testing.assert_array_equal(inputs["user"], [0, 3, SPEC.n_users, SPEC.n_users])
    np.testing.assert_array_equal(inputs["item"], [0, SPEC.n_items, 2, SPEC.n_items])
    assert inputs["recent_items"].max() <= SPEC.n_items
    np.testing.assert_array_equal(inputs["recent_items"][:, 1], -1)  # padding stays


USERS_BEYOND = 10_000


def feed_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("mgoe-prefetch")]


def test_the_thread_ends_when_the_consumer_stops_early():
    for batch in make_feed(5000).batches(1):
        assert len(batch["weight"]) == 1
        break
    assert not feed_threads()


def test_the_thread_ends_when_the_consumer_fails():
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the loop is the thing tested
        for _ in prefetched(range(10**6)):
            raise ZeroDivisionError
    assert not feed_threads()


def test_an_error_in_the_source_reaches_the_consumer_in_its_turn():
    def source():
        yield 1
        yield 2
        raise KeyError("gone")

    seen = []
    with pytest.raises(KeyError, match="gone"):  # noqa: PT012 - what came before the error counts
        for item in prefetched(source()):
            seen.append(item)
    assert seen == [1, 2]
    assert not feed_threads()


def prepared(**changes):
    return SimpleNamespace(**{**vars(PREPARED), **changes})


def test_sizes_are_those_of_the_data():
    spec = make_spec(PREPARED, GRAPH, NEEDS)
    assert (spec.n_users, spec.n_items) == (
        GRAPH.snapshots[1].n_users,
        GRAPH.snapshots[1].n_items,
    )  # the snapshot that ends training
    assert (spec.macro_users, spec.macro_items, spec.recents) == (5, 4, 2)
    assert [(t.name, t.weight, t.given) for t in spec.tasks] == [("click", 1.0, None), ("buy", 2.0, 0)]
    assert spec.user_side == spec.item_side == (CategoricalSpec("kind", 4),)
    assert spec.context == (CategoricalSpec("hour", 24), CategoricalSpec("tags", 7, multi=True))
    assert spec.positions == 9
    assert spec.widths == {"user_side_numeric": 1, "item_side_numeric": 1, "context_numeric": 2, "counts": 3}
    assert FeatureSpec.from_json(spec.to_json()) == spec


def test_moments_are_those_of_the_training_examples(monkeypatch):
    block = make_feed(500, seed=3).block(np.arange(500))  # the seed of the fake's training examples
    spec = make_spec(PREPARED, GRAPH, NEEDS)
    for name, (mean, std) in spec.moments.items():
        values = block[name].double().numpy()
        np.testing.assert_allclose(mean, values.mean(0), atol=1e-6)
        np.testing.assert_allclose(std, values.std(0), atol=1e-6)
    monkeypatch.setattr("mgoe.training.feed.MOMENT_ROWS", 100)
    sampled = make_spec(PREPARED, GRAPH, NEEDS)
    assert sampled.moments == make_spec(PREPARED, GRAPH, NEEDS).moments != spec.moments


def test_only_wanted_groups_are_measured():
    assert make_spec(PREPARED, GRAPH, frozenset({"ids", "counts"})).widths == {"counts": 3}


def test_a_regression_label_has_moments_over_what_is_known():
    settings = {"tasks": [{"name": "click"}, {"name": "stay", "kind": "regression"}]}
    examples = make_examples(4)
    examples.labels[:, 1] = [1, np.nan, 3, 5]
    stay = make_spec(prepared(settings=settings, streamed=lambda split: examples), GRAPH, NEEDS).tasks[1]
    assert (stay.mean, stay.std) == (3, pytest.approx(np.std([1, 3, 5])))


@up_to(10)
@given(factor=st.floats(1, 1e12), seed=st.integers(0, 99))
def test_outliers_move_the_moments_of_a_regression_a_little(factor, seed):
    settings = {"tasks": [{"name": "click"}, {"name": "stay", "kind": "regression"}]}
    examples = make_examples(400, seed)
    examples.labels[:, 1] = np.random.default_rng(seed).exponential(5e3, 400)
    log = prepared(settings=settings, streamed=lambda split: examples)
    usual = make_spec(log, GRAPH, NEEDS).tasks[1]
    assert usual.top >= examples.labels[:, 1].max()
    examples.labels[:3, 1] *= factor
    stay = make_spec(log, GRAPH, NEEDS).tasks[1]
    assert stay.top <= 2 * usual.top
    assert abs(stay.mean - usual.mean) <= 3 / 400 * stay.top
    assert stay.std <= usual.std + np.sqrt(3 / 400) * stay.top  # the root of a mean square is a norm


def test_no_training_example_is_refused():
    with pytest.raises(TrainingError, match="training examples: there must be at least one"):
        make_spec(prepared(streamed=lambda split: make_examples(0)), GRAPH)
