"""What a ranking may be asked for: over HTTP, on the command line and in Python."""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import Field, StrictBool, StrictInt, StrictStr

from mgoe.config import Settings

Count = Annotated[StrictInt, Field(ge=1)]
"""Number of items."""


class RankingRequest(Settings, allow_inf_nan=False):
    """What is asked of a ranking, whoever asks. A service limits its size, and takes values as JSON has them.

    Example:
        >>> RankingRequest(at_least={"click": 0.01}).k
        10
    """

    k: Count = 10
    """How many to return at most, best first."""
    objective: StrictStr | None = Field(
        default=None,
        description="What to rank by: numbers, tasks, + - * / ^, parentheses, min, max, log, sqrt. By "
        "default, that the strongest binary task is done at all.",
    )
    exclude: Any = Field(default=[])
    """Items to leave out."""
    exclude_known: StrictBool = False
    """Leave out items of the user's history, including live events, or of the session."""
    at_least: dict[str, float] = Field(default={})
    """Least probability (or value) by task."""
    where: dict[str, Any] = Field(
        default={},
        description="One value or a list of them by item feature, as in the bundle's side table; other items "
        "are left out.",
    )
    max_per: dict[str, Count] = Field(default={})
    """Most items per value of an item feature; those whose value is unknown count as one."""
    context: dict[str, Any] = Field(default_factory=dict)
    """Context features by name, as in the log; a multi-valued one takes a list. One not given is unknown."""
    exact: StrictBool = False
    """Score every item, even if the bundle can retrieve candidates."""


def without_numpy(value: Any) -> Any:
    """Return a value, or a mapping with such values, with the numbers of NumPy as those of Python.

    Example:
        >>> without_numpy({"k": np.int64(3), "where": {"color": "red"}})
        {'k': 3, 'where': {'color': 'red'}}
    """
    if isinstance(value, Mapping):
        return {name: without_numpy(one) for name, one in value.items()}
    return value.item() if isinstance(value, np.number | np.bool_) else value
