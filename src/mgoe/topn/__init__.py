"""Top-N recommendation as a whole: lists from the catalogue, what they are worth, and simple baselines.

queries    whose lists are measured, what is known then, and what is relevant
lists      the best items of each user, in a fixed order
measure    HR, NDCG, MRR, recall, novelty and coverage, with the influence of each user
next_item  the same of every event of a window, as of its moment
baselines  recommenders that know who did what and when
"""

from mgoe.topn.baselines import BASELINES, Baseline, Budget, find_baseline, load_implicit
from mgoe.topn.lists import Events, Queries, Scores, best_items, events_until, make_lists, popularity_places
from mgoe.topn.measure import measure_lists, ranks_of
from mgoe.topn.next_item import NextItems

__all__ = [
    "BASELINES",
    "Baseline",
    "Budget",
    "Events",
    "NextItems",
    "Queries",
    "Scores",
    "best_items",
    "events_until",
    "find_baseline",
    "load_implicit",
    "make_lists",
    "measure_lists",
    "popularity_places",
    "ranks_of",
]
