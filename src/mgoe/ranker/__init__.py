"""`mgoe.Ranker`: the whole line from a data frame to recommendations, in one object.

ranker     the object
settings   its parameters as the settings of a run
tables     rows of any library as files, and errors that name them
graph      the macro graph by ids
"""

from mgoe.ranker.graph import RankerGraph
from mgoe.ranker.ranker import NotFittedError, Ranker

__all__ = ["NotFittedError", "Ranker", "RankerGraph"]
