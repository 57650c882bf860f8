"""What scores pairs for a ranking, in steps between which a service answers other requests."""

from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mgoe.features import View

Answer = TypeVar("Answer")
Steps = Generator[None, None, Answer]
"""Work that pauses now and then, so that a service can answer other requests meanwhile."""


class Scores(Protocol):
    """What scores items for users, as of now."""

    @property
    def n_items(self) -> int:
        """Items that have an index."""
        ...

    def reading(self) -> AbstractContextManager[View]:
        """Return a context in which what is read does not change."""
        ...

    def in_blocks(
        self, users: NDArray[np.int64], items: NDArray[np.int64], context: Mapping[str, NDArray] | None
    ) -> Steps[NDArray[np.float32]]:
        """Return the probability (or value) of each task for pairs, (B, T). Encoded context has one row."""
        ...


def finished(steps: Steps[Answer]) -> Answer:
    """Carry out all steps and return their result."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value
