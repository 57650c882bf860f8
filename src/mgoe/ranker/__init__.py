"""`mgoe.Ranker`: from a data frame to recommendations, in one object.

ranker        the object
recommender   what it does with its bundle alone
settings      its parameters as the settings of a run
workdir       the folder that it works in
tables        rows of any library as files, and errors that name them
graph         the macro graph by ids
plots         curves, reliability and the macro graph
"""

from mgoe.ranker.graph import RankerGraph
from mgoe.ranker.ranker import Ranker
from mgoe.ranker.recommender import NotFittedError

__all__ = ["NotFittedError", "Ranker", "RankerGraph"]
