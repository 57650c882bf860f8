"""Placing by content against its definition, on plain arrays."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from mgoe.graph.edges import SparseEdges
from mgoe.graph.likelihood import NEVER, log_chances
from mgoe.graph.placing import TELLS, Placing, SomeNodes
from mgoe.graph.scores import UNIT
from tests.effort import MANY, SOAK, up_to
from tests.serving.online.worlds import START, World

SIZES = [(2, 3), (4, 5)]
"""Macro nodes of this side and of the other, at two resolutions."""
RANK = 4
CHANCES = [log_chances(np.random.default_rng(r).integers(1, 50, size) * UNIT) for r, size in enumerate(SIZES)]


def world(seed: int, n: int, beyond: int = 3, says: float = 1.0) -> tuple[partial[SomeNodes], np.ndarray]:
    """Nodes of a few scores, whose shares and vectors content says more or less of; a tenth have no content.

    Returns:
        What gathers them, and the shares of each at the dense resolution.
    """
    rng = np.random.default_rng(seed)
    taste = rng.normal(size=(n + beyond, 2))
    content = np.column_stack([says * taste + (1 - says) * rng.normal(size=taste.shape), np.ones(len(taste))])
    content[rng.random(len(content)) < 0.1] = 0
    edges = []
    for _, width in SIZES:
        shares = np.exp(1.5 * taste @ rng.normal(size=(2, width)))
        shares /= shares.sum(axis=1, keepdims=True)
        drawn = np.stack([rng.multinomial(6, row) for row in shares[:n]]) * UNIT
        row, column = np.nonzero(drawn)
        starts = np.concatenate([[0], np.cumsum((drawn > 0).sum(axis=1))])
        edges.append(SparseEdges(starts, column.astype(np.uint16), drawn[row, column].astype(np.uint32)))
    gather = partial(
        SomeNodes.of,
        content=content.astype(np.float32),
        sums=np.full(n, 6 * UNIT),
        vectors=(np.sqrt(6) * taste[:n] @ rng.normal(size=(2, RANK))).astype(np.float32),
        edges=edges,
        macro=[rng.integers(0, own, n).astype(np.int32) for own, _ in SIZES],
        sizes=SIZES,
    )
    return gather, shares


def fit(gather: partial[SomeNodes]) -> Placing:
    there = np.flatnonzero(gather.keywords["content"][: len(gather.keywords["sums"])].any(axis=1))
    return Placing.fit(gather, there, [np.ones(width) for _, width in SIZES], dense=1)


def shares_of(placing: Placing, some: SomeNodes) -> np.ndarray:
    """What content alone predicts at the dense resolution."""
    content = np.column_stack([some.content, np.ones(len(some.sums))])
    logs = (content @ placing.targets.T)[:, RANK + SIZES[0][1] :]
    return np.exp(logs) / np.exp(logs).sum(axis=1, keepdims=True)


@up_to(8)
@given(seed=st.integers(0, 99), n=st.integers(1, 30))
def test_a_node_reads_its_own_scores_and_kappa_more(seed, n):
    """By the definition, node by node: sums, edges, vectors, macro nodes; without content all stays."""
    gather, _ = world(seed, n)
    placing, some = Placing(*(np.asarray(one) for one in fit(gather))), gather(np.arange(n + 5))
    read, (kappa, half, _) = placing.read(some, CHANCES, dense=1), placing.worth.tolist()
    for k, (content, total) in enumerate(zip(some.content, some.sums / UNIT, strict=True)):
        worth = kappa * half / (half + total) if content.any() else 0.0
        assert_allclose(read["kappa"][k], worth, rtol=1e-6)
        assert_allclose(read["sum"][k], total + worth, rtol=1e-6)
        if not worth:
            assert_array_equal(read["vectors"][k], some.vectors[k])
            assert [read[f"macro{r}"][k] for r in (0, 1)] == [own[k] for own in some.macro]
            continue
        ours = placing.targets.astype(float) @ [*content, 1.0]
        mean = (np.sqrt(total) * some.vectors[k] + worth * ours[:RANK]) / (total + worth)
        assert_allclose(read["vectors"][k] / np.sqrt(total + worth), mean, rtol=1e-4, atol=1e-6)
        start = RANK
        for r, ((own, width), chances) in enumerate(zip(SIZES, CHANCES, strict=True)):
            share = np.exp(ours[start : start + width])
            edges = some.edges[r][k] + np.rint(worth * UNIT * share / share.sum())
            start += width
            assert_allclose(edges.sum() / UNIT, total + worth, atol=width / UNIT)
            likely = edges @ np.where(chances == NEVER, -np.inf, chances)
            assert likely[read[f"macro{r}"][k]] >= likely.max() - abs(likely.max()) * 1e-6
            assert chances.shape == (width, own)
        assert_allclose(np.expm1(read["log_first"][k].astype(float)), edges / UNIT, rtol=5e-3, atol=5e-3)


@up_to(10)
@given(seed=st.integers(0, 99), cut=st.integers(1, 39))
def test_what_a_node_reads_does_not_depend_on_who_is_read_beside_it(seed, cut):
    gather, _ = world(seed, 40)
    placing = fit(gather)
    whole = placing.read(gather(np.arange(43)), CHANCES, dense=1)
    parts = [placing.read(gather(rows), CHANCES, dense=1) for rows in np.split(np.arange(43), [cut])]
    for name, values in whole.items():
        assert_array_equal(np.concatenate([part[name] for part in parts]), values, err_msg=name)


def test_content_that_says_something_tells_and_noise_seldom_does():
    """The long form finds how seldom: evidence of e^5 is very strong, and not a proof."""
    sizes = np.random.default_rng(0).integers(150, 400, MANY if SOAK else 10)
    told, noise = (
        np.array([fit(world(seed, n, says=says)[0]).worth[-1] for seed, n in enumerate(sizes)])
        for says in (1.0, 0.0)
    )
    assert told.min() > TELLS
    assert (noise > TELLS).mean() < 0.005


@pytest.mark.parametrize(("tells", "placed"), [(TELLS, []), (-np.inf, ["user", "item"])])
def test_a_graph_whose_content_tells_nothing_places_nobody(tmp_path, tells, placed):
    """It is then as one without content, whatever its folder holds."""
    graph = World(tmp_path, START, (), content=True, tells=tells, resolutions=[(2, 2)]).graph
    assert [*graph.manifest.content] == [*graph.latest.placed] == placed


@pytest.mark.parametrize("says", [1.0, 0.0])
def test_content_is_believed_as_far_as_it_says_something(says):
    """What it says of new nodes is near the truth; noise says what is usual, and not more of one than of
    another."""
    gather, shares = world(7, 1500, beyond=500, says=says)
    placing, some = fit(gather), gather(np.arange(1500, 2000))
    about = some.content.any(axis=1)
    found, truth = shares_of(placing, some)[about], shares[1500:][about]
    wrong, usual = ((found - truth) ** 2).sum(), ((truth.mean(axis=0) - truth) ** 2).sum()
    assert wrong < 0.2 * usual if says else abs(wrong / usual - 1) < 0.05
    assert placing.worth[0] > 6 if says else placing.worth[0] < 3
