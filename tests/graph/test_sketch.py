import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from mgoe.graph.sketch import score_matrix, sketch, unit_rows
from tests.effort import up_to
from tests.graph.random_pairs import draw, matrix, pairs

bounded = up_to(40)


@bounded
@given(graph=pairs, scale=st.sampled_from([0.5, 1.0, 2.0]), normalize=st.sampled_from(["degree", "none"]))
def test_at_full_rank_it_is_the_singular_value_decomposition(graph, scale, normalize):
    s = score_matrix(graph, normalize)
    found = sketch(s, 12, 2, scale, seed=0)
    _, singular, _ = np.linalg.svd(s.toarray())
    top = singular.max(initial=0)
    assert_allclose(found.singular[: len(singular)], singular[:12], atol=1e-5 * max(1, top))
    # similarities do not depend on signs, nor on the basis that equal singular values leave open
    for vectors, square in ((found.users, s @ s.T), (found.items, s.T @ s)):
        assert_allclose(vectors @ vectors.T, _power(square.toarray(), scale), atol=1e-3 * max(1, top) ** (2 * scale))
    assert not found.users[graph.sums["user"] == 0].any()
    assert not found.items[graph.sums["item"] == 0].any()


def test_no_draw_loses_a_direction():
    """Of 500 small graphs, unlucky draws of the range finder among them."""
    for seed in range(500):
        s = score_matrix(draw(seed, 2 + seed % 11, 2 + seed % 9, 0.1 + seed % 7 / 8), "degree")
        exact = np.linalg.svd(s.toarray(), compute_uv=False)
        assert_allclose(sketch(s, 12, 2, 1.0, seed=0).singular[: len(exact)], exact, atol=1e-5)


def _power(square, scale):
    values, vectors = np.linalg.eigh(square.astype(float))
    kept = values > 1e-9 * values.max(initial=0)
    return (vectors[:, kept] * values[kept] ** scale) @ vectors[:, kept].T


@bounded
@given(graph=pairs, seed=st.integers(0, 100))
def test_rows_of_the_paper_are_as_far_apart_as_those_of_the_explicit_similarity(graph, seed):
    """Spec section 2: with scale 2 and no normalisation, rows keep the distances of rows of S S^T."""
    s = matrix(graph).astype(float) / 4096
    found = sketch(score_matrix(graph, "none"), 12, 2, 2.0, seed)
    for vectors, similarity in ((found.users, s @ s.T), (found.items, s.T @ s)):
        explicit = np.linalg.norm(similarity[:, None] - similarity[None], axis=2)
        assert_allclose(np.linalg.norm(vectors[:, None] - vectors[None], axis=2), explicit, atol=2e-3 * max(1, explicit.max(initial=0)))


def test_a_low_rank_keeps_the_leading_directions():
    s = score_matrix(draw(0, 300, 200, 0.05), "degree")
    exact = np.linalg.svd(s.toarray(), compute_uv=False)
    found = sketch(s, 16, 4, 1.0, seed=0)
    assert_allclose(found.singular, exact[:16], rtol=0.05)
    assert_allclose(np.linalg.norm(found.items, axis=0), found.singular, rtol=1e-4)
    assert (np.diff(found.singular) <= 0).all()


@bounded
@given(graph=pairs)
def test_signs_are_fixed_by_the_largest_entry_of_each_item_direction(graph):
    items = sketch(score_matrix(graph, "degree"), 12, 2, 1.0, 0).items
    largest = items[np.abs(items).argmax(axis=0), np.arange(12)] if len(items) else np.zeros(12)
    assert (largest >= 0).all()


@bounded
@given(graph=pairs, normalize=st.sampled_from(["degree", "none"]))
def test_normalised_scores_by_definition(graph, normalize):
    s = matrix(graph) / 4096
    divisor = np.sqrt(np.outer(s.sum(axis=1), s.sum(axis=0))) if normalize == "degree" else 1
    assert_allclose(score_matrix(graph, normalize).toarray(), np.divide(s, divisor, out=np.zeros_like(s), where=s > 0), rtol=1e-6)


@pytest.mark.parametrize("shape", [(0, 0), (3, 0), (3, 2)])
def test_a_graph_without_edges_has_zero_vectors(shape):
    found = sketch(sp.csr_array(shape, dtype=np.float32), 4, 2, 0.5, 0)
    assert_array_equal(found.users, np.zeros((shape[0], 4)))
    assert_array_equal(found.items, np.zeros((shape[1], 4)))
    assert_array_equal(found.singular, np.zeros(4))


def test_unit_rows_leave_zero_rows_alone():
    assert_allclose(unit_rows(np.float32([[3, 4], [0, 0]])), [[0.6, 0.8], [0, 0]])
