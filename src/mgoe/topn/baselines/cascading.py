"""CascadingRank (Lee et al. 2025, arXiv 2502.11335): personalised ranking on one graph per task, weakest task
first.

Axes: `U` users, `I` items, `B` users that are asked for.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mgoe.config import RangeSettings
from mgoe.topn.baselines.baseline import HALF_LIFE, Baseline, Budget
from mgoe.topn.lists import Events, Scores

CONVERGED = 1e-3
"""What is left of the start of an iteration when it stops."""
AT_ONCE = 64
"""Users whose scores are iterated together."""


def fit_cascading_rank(events: Events, settings: Mapping[str, Any], seed: int, budget: Budget) -> Scores:
    """Score by r of the strongest task, where each task's scores r of users and items are the fixed point of

        r = walk A r + (1 - walk) (own q + (1 - own) r of the weaker task)

    with the symmetrically normalised graph A of the task and the query q: the user, and the distribution of
    what the user did. For the weakest task, q takes the place of the weaker one. In the paper's letters alpha
    is (1 - walk) own, and beta (1 - walk)(1 - own).
    """
    graphs = [events.matrix(settings["half_life"], task) for task in range(events.tasks)]
    smooth = [normalized(graph) for graph in graphs]
    done = [sp.csr_array(scaled_rows(graph)) for graph in graphs]
    walk, own = settings["walk"], settings["own"]
    rounds = int(np.ceil(np.log(CONVERGED) / np.log(walk)))

    def of_block(users: NDArray[np.int64]) -> NDArray[np.float32]:
        me = np.zeros((events.shape[0], len(users)), np.float32)
        me[users, np.arange(len(users))] = 1
        before: tuple[NDArray, NDArray] | None = None
        for graph, mine in zip(smooth, done, strict=True):
            query = mine[users].T.toarray()
            weaker = before or (me, query)
            start_user = (1 - walk) * (own * me + (1 - own) * weaker[0])
            start_item = (1 - walk) * (own * query + (1 - own) * weaker[1])
            of_user, of_item = me, query
            for _ in range(rounds):
                of_user, of_item = (
                    walk * (graph @ of_item) + start_user,
                    walk * (graph.T @ of_user) + start_item,
                )
            before = of_user, of_item
        assert before is not None
        return before[1].T

    def scores(users: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.concatenate([of_block(users[at : at + AT_ONCE]) for at in range(0, len(users), AT_ONCE)])

    return scores


def normalized(graph: sp.csr_array) -> sp.csr_array:
    """Return D_u^-1/2 A D_i^-1/2, 0 for nodes without an edge. Shape (U, I)."""
    users, items = (inverse(np.asarray(graph.sum(axis=axis)).ravel()) ** 0.5 for axis in (1, 0))
    return sp.csr_array(sp.diags_array(users) @ graph @ sp.diags_array(items))


def scaled_rows(graph: sp.csr_array) -> sp.csr_array:
    """Return a matrix whose rows sum to 1, or to 0 where they are empty."""
    return sp.csr_array(sp.diags_array(inverse(np.asarray(graph.sum(axis=1)).ravel())) @ graph)


def inverse(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 1 / values, 0 where they are 0."""
    return np.divide(1, values, out=np.zeros_like(values), where=values > 0)


CASCADING_RANK = Baseline(
    fit_cascading_rank,
    {"walk": 0.3, "own": 0.3, "half_life": 30.0},
    {
        "walk": RangeSettings(low=0.05, high=0.8),
        "own": RangeSettings(low=0.0, high=1.0),
        "half_life": HALF_LIFE,
    },
)
