"""Models of sequences: what a place may see, what is learned, and histories of every length."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from torch.nn import functional

from mgoe.topn import BASELINES, Budget, Events, Queries, Scores, make_lists
from mgoe.topn.baselines.sequence_network import HSTUBlock, SASRecBlock, SequenceNetwork
from mgoe.topn.baselines.sequences import BATCH, Histories, gbce_loss, loss_of, softmax_loss

SMALL = {"length": 6, "width": 16, "negatives": 16, "epochs": 2, "dropout": 0.1}
BLOCKS = {"sasrec": SASRecBlock, "hstu": HSTUBlock}


def of_users(sequences: list[list[int]], items: int) -> Events:
    """Return events of which those of a user are a day apart."""
    user = np.repeat(np.arange(len(sequences)), [len(one) for one in sequences])
    item = np.array([item for one in sequences for item in one], dtype=np.int64)
    age = np.array([len(one) - place - 1.0 for one in sequences for place in range(len(one))])
    return Events(user, item, np.zeros(len(user), int), age, (len(sequences), items), 1)


def fitted(name: str, events: Events, seed: int = 0, **settings: object) -> Scores:
    return BASELINES[name].fit(events, {**BASELINES[name].start, **SMALL, **settings}, seed, Budget())


def network_of(name: str) -> SequenceNetwork:
    torch.manual_seed(0)
    network = SequenceNetwork(BLOCKS[name], 9, {**BASELINES[name].start, **SMALL}).eval()
    for table in network.parameters():  # biases of the attention start at zero
        torch.nn.init.normal_(table, std=0.5)
    return network


@pytest.fixture
def events() -> Events:
    """Histories of no event, of one, and of fewer and more than a sequence holds."""
    rng = np.random.default_rng(0)
    return of_users([rng.integers(0, 9, size).tolist() for size in (0, 1, 2, 6, 7, 30)], 9)


@pytest.mark.parametrize("name", BLOCKS)
@given(place=st.integers(0, 5), seed=st.integers(0, 99))
def test_no_place_sees_what_comes_after_it(name: str, place: int, seed: int):
    rng = torch.Generator().manual_seed(seed)
    item, other = torch.randint(0, 9, (2, 3, 6), generator=rng)
    day, later = torch.rand((2, 3, 6), generator=rng).cumsum(dim=-1)
    seen = torch.arange(6) <= place
    network = network_of(name)
    with torch.inference_mode():
        before = network(item, day)
        after = network(torch.where(seen, item, other), torch.where(seen, day, day[:, [place]] + later))
    torch.testing.assert_close(before[:, seen], after[:, seen])
    last = network(item[:, : place + 1], day[:, : place + 1])
    torch.testing.assert_close(before[:, place], last[:, place])  # nor how far a sequence is padded


@pytest.mark.parametrize("name", BLOCKS)
def test_scores_of_a_user_do_not_depend_on_the_users_beside(name: str, events: Events):
    scores, users = fitted(name, events), np.arange(events.shape[0])
    alone = [scores(users[[user]])[0] for user in users]
    assert_allclose(scores(users), alone, atol=1e-5)
    assert_allclose(scores(users[::-1]), alone[::-1], atol=1e-5)


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("loss", ["softmax", "gbce"])
def test_a_planted_chain_of_items_is_learned(name: str, loss: str):
    rng, items = np.random.default_rng(0), 20
    after = rng.permutation(items)
    starts = rng.integers(0, items, 200)
    chains = [starts]
    for _ in range(6):
        chains.append(np.where(rng.random(200) < 0.9, after[chains[-1]], rng.integers(0, items, 200)))
    history = np.stack(chains, axis=1)
    events = of_users(history.tolist(), items)
    found = fitted(name, events, loss=loss, width=32, epochs=30, learning_rate=0.005)(np.arange(200))
    assert (found.argmax(axis=1) == after[history[:, -1]]).mean() > 0.9


@pytest.mark.parametrize("name", BLOCKS)
def test_a_seed_gives_the_same_lists_and_another_one_others(name: str, events: Events):
    queries = Queries.of(events, 0, np.arange(6), np.zeros(6, int), hide=False)
    state = torch.random.get_rng_state()
    lists = [make_lists(fitted(name, events, seed), queries, 5) for seed in (0, 0, 1)]
    assert_array_equal(lists[0], lists[1])
    assert (lists[0] != lists[2]).any()
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("name", BLOCKS)
def test_histories_of_every_length_have_scores(name: str, events: Events):
    found = fitted(name, events)(np.arange(events.shape[0]))
    assert np.isfinite(found).all()
    assert not found[0].any()  # so that popular items come first
    assert (np.ptp(found[1:], axis=1) > 0).all()
    assert not fitted(name, of_users([[], []], 9))(np.array([0, 1])).any()


def ordered(events: Events, seed: int = 0) -> Histories:
    return Histories.of(events, np.random.default_rng(seed))


def test_a_sequence_is_the_last_events_in_order(events: Events):
    shuffled = np.random.default_rng(0).permutation(len(events.user))
    columns = (column[shuffled] for column in (events.user, events.item, events.task, events.age))
    histories = ordered(Events(*columns, shape=events.shape, tasks=1))
    item, day, there = (one.numpy() for one in histories.last(np.arange(6), 6))
    for user in range(6):
        mine = events.item[events.user == user][-6:]
        assert_array_equal(item[user][there[user]], mine)
        assert_array_equal(there[user], np.arange(6) < len(mine))
        assert all(earlier < later for earlier, later in pairwise(day[user][there[user]]))


def test_a_batch_has_users_with_about_as_many_events():
    rng = np.random.default_rng(0)
    sizes = rng.integers(0, 80, 1000)
    histories = ordered(of_users([[0] * size for size in sizes.tolist()], 1))
    batches = histories.batches(50, rng)
    assert_array_equal(np.sort(np.concatenate(batches)), np.flatnonzero(sizes > 1))
    assert max(len(one) for one in batches) <= BATCH
    assert np.mean([np.ptp(np.minimum(sizes[one], 50)) for one in batches]) < 10


def test_events_at_one_time_are_in_an_order_by_chance():
    events = Events(np.zeros(8, int), np.arange(8), np.zeros(8, int), np.repeat([1.0, 0.0], 4), (1, 8), 1)
    found = [ordered(events, seed).item for seed in (0, 0, 1)]
    assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()
    assert {*found[2][:4].tolist()} == {0, 1, 2, 3}


def test_the_loss_over_all_items_is_that_of_a_softmax():
    network, rng = network_of("hstu"), torch.Generator().manual_seed(0)
    item, day = torch.randint(0, 9, (4, 6), generator=rng), torch.arange(6.0).expand(4, 6)
    there = torch.arange(6) < torch.tensor([2, 3, 6, 1])[:, None]
    found = loss_of(network, item, day, there, torch.arange(9), softmax_loss)
    scores = network(item[:, :-1], day[:, :-1]) @ network.items.weight.T
    wanted = item[:, 1:].masked_fill(~there[:, 1:], -1)
    torch.testing.assert_close(
        found, functional.cross_entropy(scores.flatten(0, 1), wanted.flatten(), ignore_index=-1)
    )


def test_gbce_of_all_negatives_is_binary_cross_entropy():
    rng = torch.Generator().manual_seed(0)
    positive, negative = torch.randn(5, generator=rng), torch.randn(5, 8, generator=rng)
    labels = torch.cat([torch.ones(5, 1), torch.zeros(5, 8)], dim=1)
    logits = torch.cat([positive[:, None], negative], dim=1) - np.log(8)
    expected = functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum") / 5
    torch.testing.assert_close(gbce_loss(positive, negative, 1.0), expected)
    assert gbce_loss(positive, negative, 0.1) < expected  # positives count less


@pytest.mark.parametrize("name", [name for name, one in BASELINES.items() if one.learns_in_epochs])
def test_a_fit_ends_with_the_epoch_in_which_its_time_is_used_up(name: str, events: Events):
    start, budget = BASELINES[name].start, Budget(seconds=0)
    found = [
        BASELINES[name].fit(events, {**start, "epochs": epochs}, 0, one)(np.arange(6))
        for epochs, one in ((3, budget), (1, Budget()))
    ]
    assert budget.stopped == 1
    assert_array_equal(*found)
