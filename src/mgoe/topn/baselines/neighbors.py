"""Item-to-item neighbours: an item scores by its similarity to the items of a user's profile, in which older
events count less.

Axes: `U` users, `I` items.
"""

from collections.abc import Mapping
from typing import Any

import numba
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mgoe.config import RangeSettings
from mgoe.topn.baselines.baseline import HALF_LIFE, NEIGHBORS, Baseline, by_similarity, load_implicit
from mgoe.topn.lists import Scores
from mgoe.topn.queries import Events


def fit_item_knn(events: Events, settings: Mapping[str, Any], seed: int) -> Scores:
    """Cosine of columns, as they are or weighted as text is (TF-IDF, BM25), by implicit."""
    neighbors = load_implicit("nearest_neighbours")
    kinds = {"cosine": "CosineRecommender", "tfidf": "TFIDFRecommender", "bm25": "BM25Recommender"}
    model = getattr(neighbors, kinds[settings["weighting"]])(K=settings["neighbors"])
    model.fit(sp.csr_matrix(events.matrix()), show_progress=False)
    return by_similarity(events.matrix(settings["half_life"]), sp.csr_array(model.similarity))


def fit_rp3beta(events: Events, settings: Mapping[str, Any], seed: int) -> Scores:
    """RP3beta (Paudel et al. 2017): three steps of a random walk with probabilities to the power `alpha`,
    over the popularity of the item it ends at to the power `beta`.

    The middle of the walk, item to user to item, is W = sum over u of p(i, u)^alpha p(u, j)^alpha / c(j)^beta
    with the column sums c. It is a symmetric product of one matrix up to a factor per row, which changes no
    neighbour of an item, so implicit computes it like a cosine and keeps the largest entries.
    """
    alpha, beta, known = settings["alpha"], settings["beta"], events.matrix()
    of_user, of_item = (np.asarray(known.sum(axis=axis)).ravel() + 1e-12 for axis in (1, 0))
    half = sp.diags_array(of_user ** (-alpha / 2)) @ known.power(alpha) @ sp.diags_array(of_item**-beta)
    model = load_implicit("nearest_neighbours").ItemItemRecommender(K=settings["neighbors"])
    model.fit(sp.csr_matrix(half).astype(np.float64), show_progress=False)
    walk = sp.diags_array(of_item ** (beta - alpha)) @ sp.csr_array(model.similarity)
    return by_similarity(events.matrix(settings["half_life"]), sp.csr_array(walk))


def fit_swing(events: Events, settings: Mapping[str, Any], seed: int) -> Scores:
    """Swing (Yang et al. 2020): two items are similar if pairs of users who share little else did both,

        w(i, j) = sum over u < v who did i and j of (n(u) n(v))^-1/2 / (alpha + items that u and v share),

    where n(u) is the number of items of user u."""
    known = events.matrix()
    known.sort_indices()
    turned = known.tocsc()
    turned.sort_indices()
    neighbors = min(settings["neighbors"], events.shape[1])
    item, weight = swing_links(
        turned.indptr, turned.indices, known.indptr, known.indices, settings["alpha"], neighbors
    )
    rows = np.repeat(np.arange(len(item)), neighbors)
    kept = weight.ravel() > 0
    similarity = sp.coo_array(
        (weight.ravel()[kept], (rows[kept], item.ravel()[kept])), shape=(len(item),) * 2
    )
    return by_similarity(events.matrix(settings["half_life"]), similarity.tocsr())


@numba.njit(cache=True)
def swing_links(
    item_start: NDArray[np.integer],
    item_user: NDArray[np.integer],
    user_start: NDArray[np.integer],
    user_item: NDArray[np.integer],
    alpha: float,
    neighbors: int,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the neighbours of each item with the largest weights.

    Args:
        item_start, item_user: Users of each item, rising; compressed rows.
        user_start, user_item: Items of each user, rising; compressed rows.
        alpha: Smooths the number of shared items.
        neighbors: How many to keep, K.

    Returns:
        Neighbours and weights, 0 where there are fewer. Shape (I, K) each.
    """
    items = len(item_start) - 1
    kept, weights = np.zeros((items, neighbors), np.int32), np.zeros((items, neighbors), np.float32)
    total, touched = np.zeros(items, np.float64), np.empty(items, np.int64)
    shared = np.empty(items, np.int64)
    for i in range(items):
        reached = 0
        for a in range(item_start[i], item_start[i + 1]):
            u = item_user[a]
            for b in range(a + 1, item_start[i + 1]):
                v = item_user[b]
                x, y, n = user_start[u], user_start[v], 0
                while x < user_start[u + 1] and y < user_start[v + 1]:
                    if user_item[x] == user_item[y]:
                        shared[n] = user_item[x]
                        n += 1
                        x += 1
                        y += 1
                    elif user_item[x] < user_item[y]:
                        x += 1
                    else:
                        y += 1
                sizes = (user_start[u + 1] - user_start[u]) * (user_start[v + 1] - user_start[v])
                weight = 1.0 / (np.sqrt(sizes) * (alpha + n))
                for j in shared[:n]:
                    if total[j] == 0:
                        touched[reached] = j
                        reached += 1
                    total[j] += weight
        best = touched[:reached][np.argsort(-total[touched[:reached]])[:neighbors]]
        for k in range(len(best)):
            kept[i, k], weights[i, k] = best[k], total[best[k]]
        for j in touched[:reached]:
            total[j] = 0
    return kept, weights


ITEM_KNN = Baseline(
    fit_item_knn,
    {"neighbors": 100, "weighting": "cosine", "half_life": 30.0},
    {"neighbors": NEIGHBORS, "weighting": ["cosine", "tfidf", "bm25"], "half_life": HALF_LIFE},
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
)
