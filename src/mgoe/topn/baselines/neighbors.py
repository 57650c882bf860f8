"""Item-to-item neighbours: an item scores by its similarity to the items of a user's profile, in which older
events count less.

Axes: `U` users, `I` items.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp

from mgoe.config import RangeSettings
from mgoe.retrieval import PAIR, ItemLinks, LatestPairs, Rows, computed, swing_rows
from mgoe.topn.baselines.baseline import HALF_LIFE, NEIGHBORS, Baseline, Budget, by_similarity, fit_similarity
from mgoe.topn.lists import Events, Scores

USERS = 1000
"""Users of an item that Swing counts at most, those of the smallest indices: time and memory grow with their
square."""


def fit_item_knn(events: Events, settings: Mapping[str, Any], seed: int, budget: Budget) -> Scores:
    """Cosine of columns, as they are or weighted as text is (TF-IDF, BM25), by implicit."""
    kinds = {"cosine": "CosineRecommender", "tfidf": "TFIDFRecommender", "bm25": "BM25Recommender"}
    similarity = fit_similarity(kinds[settings["weighting"]], events.matrix(), settings["neighbors"])
    return by_similarity(events.profiles.matrix(settings["half_life"]), similarity)


def fit_rp3beta(events: Events, settings: Mapping[str, Any], seed: int, budget: Budget) -> Scores:
    """RP3beta (Paudel et al. 2017): three steps of a random walk with probabilities to the power `alpha`,
    over the popularity of the item it ends at to the power `beta`.

    The middle of the walk, item to user to item, is W = sum over u of p(i, u)^alpha p(u, j)^alpha / c(j)^beta
    with the column sums c. It is a symmetric product of one matrix up to a factor per row, which changes no
    neighbour of an item, so implicit computes it like a cosine and keeps the largest entries.
    """
    alpha, beta, known = settings["alpha"], settings["beta"], events.matrix()
    of_user, of_item = (np.asarray(known.sum(axis=axis)).ravel() + 1e-12 for axis in (1, 0))
    half = sp.diags_array(of_user ** (-alpha / 2)) @ known.power(alpha) @ sp.diags_array(of_item**-beta)
    half = sp.csr_matrix(half).astype(np.float64)
    similarity = fit_similarity("ItemItemRecommender", half, settings["neighbors"])
    walk = sp.diags_array(of_item ** (beta - alpha)) @ similarity
    return by_similarity(events.profiles.matrix(settings["half_life"]), sp.csr_array(walk))


def fit_swing(events: Events, settings: Mapping[str, Any], seed: int, budget: Budget) -> Scores:
    """Swing (Yang et al. 2020): two items are similar if pairs of users who share little else did both,

        w(i, j) = sum over u < v who did i and j of (n(u) n(v))^-1/2 / (alpha + items that u and v share),

    where n(u) is the number of items of user u."""
    links = swing_links(events, settings["alpha"], min(settings["neighbors"], events.shape[1]))
    similarity = sp.csr_array((links.weight, links.item, links.indptr), shape=(events.shape[1],) * 2)
    return by_similarity(events.profiles.matrix(settings["half_life"]), similarity)


def swing_links(events: Events, alpha: float, neighbors: int) -> ItemLinks:
    """Return the neighbours of each item with the largest weights, itself included.

    Args:
        events: What was done; how often and when does not matter.
        alpha: Smooths the number of shared items.
        neighbors: How many to keep.
    """
    known, items = events.matrix(), events.shape[1]
    known.sort_indices()
    done = np.ones(known.nnz, PAIR)  # every score is one, and so are times
    done["other"] = known.indices
    by_user = Rows(known.indptr.astype(np.int64), done)
    pairs = LatestPairs.of(by_user, items)
    compute = partial(swing_rows, pairs, alpha, USERS, True)
    return computed(compute, pairs.by_item, np.arange(items, dtype=np.int32), neighbors)


ITEM_KNN = Baseline(
    fit_item_knn,
    {"neighbors": 100, "weighting": "cosine", "half_life": 30.0},
    {"neighbors": NEIGHBORS, "weighting": ["cosine", "tfidf", "bm25"], "half_life": HALF_LIFE},
    by_profile=True,
    by_implicit=True,
)
RP3BETA = Baseline(
    fit_rp3beta,
    {"neighbors": 100, "alpha": 1.0, "beta": 0.3, "half_life": 30.0},
    {
        "neighbors": NEIGHBORS,
        "alpha": RangeSettings(low=0.2, high=2.0),
        "beta": RangeSettings(low=0.0, high=1.0),
        "half_life": HALF_LIFE,
    },
    by_profile=True,
    by_implicit=True,
)
SWING = Baseline(
    fit_swing,
    {"neighbors": 100, "alpha": 1.0, "half_life": 30.0},
    {
        "neighbors": NEIGHBORS,
        "alpha": RangeSettings(low=0.1, high=100.0, log=True),
        "half_life": HALF_LIFE,
    },
    by_profile=True,
)
