"""Baselines of top-N recommendation. They are no ranking models: each reads who did what and when, and scores
the whole catalogue at once.

popularity  events of the last hours or days, the same list for everybody; a user's own frequent items
neighbors   item-kNN, RP3beta, Swing
linear      EASE, SLIM
factors     iALS
lightgcn    LightGCN
visits      what others did after a user's last items (transitions), or in visits with them (session kNN)
sequences   SASRec, and a model like HSTU; their networks are in `sequence_network`
cascading   CascadingRank, for several tasks

Item-kNN, RP3beta, iALS and the neighbours of SLIM are computed by implicit (extra `topn`).
"""

from mgoe.config import named
from mgoe.topn.baselines.baseline import Baseline, Budget, Space, load_implicit
from mgoe.topn.baselines.cascading import CASCADING_RANK
from mgoe.topn.baselines.factors import IALS
from mgoe.topn.baselines.lightgcn import LIGHTGCN
from mgoe.topn.baselines.linear import EASE, SLIM
from mgoe.topn.baselines.neighbors import ITEM_KNN, RP3BETA, SWING
from mgoe.topn.baselines.popularity import FREQUENT, POPULARITY
from mgoe.topn.baselines.sequences import HSTU, SASREC
from mgoe.topn.baselines.visits import SKNN, TRANSITIONS

BASELINES: dict[str, Baseline] = {
    "popularity": POPULARITY,
    "frequent": FREQUENT,
    "transitions": TRANSITIONS,
    "sknn": SKNN,
    "item-knn": ITEM_KNN,
    "swing": SWING,
    "rp3beta": RP3BETA,
    "ease": EASE,
    "slim": SLIM,
    "ials": IALS,
    "lightgcn": LIGHTGCN,
    "sasrec": SASREC,
    "hstu": HSTU,
    "cascading-rank": CASCADING_RANK,
}
"""Baselines by name, those that are built in."""


def find_baseline(name: str) -> Baseline:
    """Return a baseline by name, built in or of an extension.

    Raises:
        ConfigError: The name is unknown, or the extension cannot be imported.

    Example:
        >>> find_baseline("popularity").start
        {'half_life': 7.0}
    """
    return named("mgoe.baselines", BASELINES, name, Baseline)


__all__ = ["BASELINES", "Baseline", "Budget", "Space", "find_baseline", "load_implicit"]
