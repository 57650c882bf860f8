import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from mgoe.graph import sketch as module
from mgoe.graph.pair_rows import OTHER
from mgoe.graph.scores import UNIT
from mgoe.graph.sketch import Sketch, divided, score_matrix, sketch, unit_rows
from tests.graph.random_pairs import SCORES, Pairs, draw, matrix, pairs

forms = st.sampled_from(["degree", "none"])


def scored(graph: Pairs, normalize: str, users: np.ndarray | None = None) -> sp.csr_array:
    own, other = graph.sums["user"], graph.sums["item"]
    rows = graph.rows("user").some(users)
    return score_matrix(rows, SCORES, own if users is None else own[users], other, normalize)


def projected(
    graph: Pairs, side: str, vectors: np.ndarray, stretch: np.ndarray, normalize: str
) -> np.ndarray:
    sums = {node: total / UNIT for node, total in graph.sums.items()}
    given = SCORES / UNIT, sums[side], sums[OTHER[side]], vectors, stretch, normalize
    return module.projected(graph.block(side), *given)["vectors"]


def users_of(found: Sketch, graph: Pairs, normalize: str) -> np.ndarray:
    return projected(graph, "user", found.basis, found.stretch, normalize)


@given(graph=pairs, scale=st.sampled_from([0.5, 1.0, 2.0]), normalize=forms)
def test_at_full_rank_it_is_the_singular_value_decomposition(graph, scale, normalize):
    s = scored(graph, normalize)
    found = sketch(s, 12, 2, scale, seed=0)
    _, singular, _ = np.linalg.svd(s.toarray())
    top = singular.max(initial=0)
    assert_allclose(found.singular[: len(singular)], singular[:12], atol=1e-5 * max(1, top))
    # similarities do not depend on signs, nor on the basis that equal singular values leave open
    users = users_of(found, graph, normalize)
    for vectors, square in ((users, s @ s.T), (found.items, s.T @ s)):
        assert_allclose(
            vectors @ vectors.T, _power(square.toarray(), scale), atol=1e-3 * max(1, top) ** (2 * scale)
        )
    assert not users[graph.sums["user"] == 0].any()
    assert not found.items[graph.sums["item"] == 0].any()


def test_no_draw_loses_a_direction():
    """Of 500 small graphs, unlucky draws of the range finder among them."""
    for seed in range(500):
        s = scored(draw(seed, 2 + seed % 11, 2 + seed % 9, 0.1 + seed % 7 / 8), "degree")
        exact = np.linalg.svd(s.toarray(), compute_uv=False)
        assert_allclose(sketch(s, 12, 2, 1.0, seed=0).singular[: len(exact)], exact, atol=1e-5)


def _power(square, scale):
    values, vectors = np.linalg.eigh(square.astype(float))
    kept = values > 1e-9 * values.max(initial=0)
    return (vectors[:, kept] * values[kept] ** scale) @ vectors[:, kept].T


@given(graph=pairs, seed=st.integers(0, 100))
def test_rows_of_the_paper_are_as_far_apart_as_those_of_the_explicit_similarity(graph, seed):
    """Spec section 2: with scale 2 and no normalisation, rows keep the distances of rows of S S^T."""
    s = matrix(graph).astype(float) / UNIT
    found = sketch(scored(graph, "none"), 12, 2, 2.0, seed)
    for vectors, similarity in ((users_of(found, graph, "none"), s @ s.T), (found.items, s.T @ s)):
        explicit = np.linalg.norm(similarity[:, None] - similarity[None], axis=2)
        assert_allclose(
            np.linalg.norm(vectors[:, None] - vectors[None], axis=2),
            explicit,
            atol=2e-3 * max(1, explicit.max(initial=0)),
        )


def test_a_low_rank_keeps_the_leading_directions():
    s = scored(draw(0, 300, 200, 0.05), "degree")
    exact = np.linalg.svd(s.toarray(), compute_uv=False)
    found = sketch(s, 16, 4, 1.0, seed=0)
    assert_allclose(found.singular, exact[:16], rtol=0.05)
    assert_allclose(np.linalg.norm(found.items, axis=0), found.singular, rtol=1e-4)
    assert (np.diff(found.singular) <= 0).all()


@given(graph=pairs)
def test_signs_are_fixed_by_the_largest_entry_of_each_item_direction(graph):
    basis = sketch(scored(graph, "degree"), 12, 2, 1.0, 0).basis
    assert (basis.max(axis=0) >= -basis.min(axis=0)).all()


@given(graph=pairs, normalize=forms)
def test_normalised_scores_by_definition(graph, normalize):
    assert_allclose(scored(graph, normalize).toarray(), explicit_scores(graph, normalize), rtol=1e-6)


def explicit_scores(graph, normalize):
    s = matrix(graph) / UNIT
    divisor = np.sqrt(np.outer(s.sum(axis=1), s.sum(axis=0))) if normalize == "degree" else 1
    return np.divide(s, divisor, out=np.zeros_like(s), where=s > 0)


@given(graph=pairs, normalize=forms, data=st.data())
def test_the_matrix_of_some_users_holds_their_rows_of_the_whole(graph, normalize, data):
    users = np.array(sorted(data.draw(st.sets(st.integers(0, graph.nodes("user") - 1)))), np.int64)
    assert_array_equal(scored(graph, normalize, users).toarray(), scored(graph, normalize).toarray()[users])


@given(graph=pairs, normalize=forms, side=st.sampled_from(["user", "item"]), seed=st.integers(0, 100))
def test_a_projection_is_the_product_of_scores_and_vectors(graph, normalize, side, seed):
    vectors = np.random.default_rng(seed).normal(size=(graph.nodes(OTHER[side]), 5)).astype(np.float32)
    stretch = np.float32([1, 0.5, 2, 0, 3])
    s = explicit_scores(graph, normalize)
    found = projected(graph, side, vectors, stretch, normalize)
    assert_allclose(found, (s if side == "user" else s.T) @ vectors * stretch, rtol=1e-4, atol=1e-4)


@given(graph=pairs, known=st.integers(0, 9), normalize=forms)
def test_a_projection_passes_over_nodes_that_were_not_there(graph, known, normalize):
    """As when the sketch was learned: of the first `known` items, and their sums then."""
    known = min(known, graph.nodes("item"))
    before = np.where(np.arange(known) % 3 == 2, 0, 5 * UNIT) / UNIT  # every third had no edges yet
    vectors = np.random.default_rng(0).normal(size=(known, 3)).astype(np.float32)
    sums, ones = graph.sums["user"] / UNIT, np.ones(3, np.float32)
    given = SCORES / UNIT, sums, before, vectors, ones, normalize
    s = np.where(before > 0, matrix(graph)[:, :known] / UNIT, 0)
    if normalize == "degree":
        s = s / np.sqrt(np.maximum(graph.sums["user"] / UNIT, 1e-9))[:, None] / np.sqrt(5)
    found = module.projected(graph.block("user"), *given)["vectors"]
    assert_allclose(found, s @ vectors, rtol=1e-4, atol=1e-4)


@given(graph=pairs, scale=st.sampled_from([0.5, 1.0, 2.0]), normalize=forms)
def test_items_projected_by_users_are_the_items_of_the_sketch(graph, scale, normalize):
    """`S^T P = Q Sigma`: what a sampled build does with all items is exact at full rank."""
    found = sketch(scored(graph, normalize), 12, 2, scale, seed=0)
    users = users_of(found, graph, normalize)
    again = projected(graph, "item", users, divided(np.ones_like(found.singular), found.singular), normalize)
    top = max(1, found.singular.max(initial=0)) ** scale
    real = found.singular > 1e-3 * found.singular.max(initial=0)  # division by the weakest magnifies rounding
    assert_allclose(again[:, real], found.items[:, real], atol=2e-3 * top)


@given(graph=pairs, share=st.sampled_from([0.25, 0.5]))
def test_a_sample_of_users_gives_the_singular_values_of_all_of_them(graph, share):
    """The same rows, said to be a share of all: squares of singular values are in proportion to the users."""
    s = scored(graph, "none")
    whole, part = sketch(s, 12, 2, 1.0, 0), sketch(s, 12, 2, 1.0, 0, share)
    assert_array_equal(part.basis, whole.basis)
    assert_allclose(part.singular, whole.singular / np.sqrt(share), rtol=1e-6)


@pytest.mark.parametrize("shape", [(0, 0), (3, 0), (3, 2), (0, 2)])
def test_a_graph_without_edges_has_zero_vectors(shape):
    found = sketch(sp.csr_array(shape, dtype=np.float32), 4, 2, 0.5, 0)
    assert_array_equal(found.items, np.zeros((shape[1], 4)))
    assert_array_equal(found.singular, np.zeros(4))
    assert_array_equal(found.stretch, np.zeros(4))


def test_unit_rows_leave_zero_rows_alone():
    assert_allclose(unit_rows(np.float32([[3, 4], [0, 0]])), [[0.6, 0.8], [0, 0]])
