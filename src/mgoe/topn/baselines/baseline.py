"""What every baseline is: a fit, and the settings that are searched."""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import scipy.sparse as sp

from mgoe._util.extras import install, load
from mgoe.config import RangeSettings
from mgoe.topn.lists import Events, Scores

Space = Mapping[str, list[Any] | RangeSettings]


@dataclass
class Budget:
    """The processor time of a fit. One that learns in epochs ends with the epoch in which it is used up; one
    that solves its equations at once does not look at it.

    Attributes:
        seconds: Of the processor, all threads together.
        stopped: Number of epochs after which a fit ended early; None if it did not.

    Example:
        >>> budget = Budget(seconds=0)
        >>> list(budget.epochs(3)), budget.stopped
        ([0], 1)
    """

    seconds: float = math.inf
    stopped: int | None = None

    def epochs(self, wanted: int) -> Iterator[int]:
        """Yield the numbers of the epochs that there is time for, at least one."""
        until = time.process_time() + self.seconds
        for epoch in range(wanted):
            if epoch and time.process_time() >= until:
                self.stopped = epoch
                return
            yield epoch


@dataclass(frozen=True)
class Baseline:
    """A recommender that knows who did what and when, and nothing else.

    Attributes:
        fit: Fits it to events with settings and a seed, within a budget.
        start: Settings of the first trial.
        space: Choices or ranges of the other trials, by the names of `start`.
        random: Whether another seed gives other lists.
        by_profile: Whether it scores rows by what `Events.profiles` knows of them, and not by their number;
            only then can it be asked for the next item.
        by_implicit: Whether it needs the library implicit (extra `topn`).

    Example:
        >>> from mgoe.topn.baselines import BASELINES
        >>> BASELINES["ease"].start.keys() == BASELINES["ease"].space.keys()
        True
    """

    fit: Callable[[Events, Mapping[str, Any], int, Budget], Scores]
    start: Mapping[str, Any] = field(default_factory=dict)
    space: Space = field(default_factory=dict)
    random: bool = False
    by_profile: bool = False
    by_implicit: bool = False

    @property
    def learns_in_epochs(self) -> bool:
        """Whether a fit can end early, as its budget says."""
        return "epochs" in self.start


HALF_LIFE = RangeSettings(low=1.0, high=200.0, log=True)
"""Days after which an event of a user's profile counts half."""
NEIGHBORS = RangeSettings(low=20, high=1000, log=True)
"""Items that are kept per item."""


def load_implicit(module: str) -> Any:
    """Import a module of implicit (Frederickson), which the extra `topn` installs.

    Raises:
        MissingExtra: It is not installed.
    """
    return load(
        f"implicit.{module}",
        "topn.baselines",
        "implicit",
        f"{install('topn')}, or leave this baseline out",
    )


def fit_similarity(name: str, matrix: Any, neighbors: int) -> sp.csr_array:
    """Fit an item-to-item model of implicit, and return the similarities from each item to its neighbours.

    Args:
        name: Of its class.
        matrix: Sparse. Shape (U, I).
        neighbors: Most similarities of an item.

    Returns:
        Shape (I, I).
    """
    model = getattr(load_implicit("nearest_neighbours"), name)(K=neighbors)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", load_implicit("utils").ParameterWarning)  # of a matrix of its own
        model.fit(sp.csr_matrix(matrix), show_progress=False)
    return sp.csr_array(model.similarity)


def by_similarity(profiles: sp.csr_array, similarity: sp.csr_array) -> Scores:
    """Score items by their similarity to those of each user's profile.

    Args:
        profiles: Shape (U, I).
        similarity: From an item to its neighbours, itself included. Shape (I, I).
    """
    return lambda users: (profiles[users] @ similarity).toarray()
