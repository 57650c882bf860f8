"""What a snapshot has learned: the sketch that projects nodes, and the macro nodes.

A build that keeps them depends on events alone.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from mgoe._util.arrays import mapped
from mgoe.graph.pair_rows import SIDES, Side
from mgoe.graph.sketch import Sketch

as_on_one_thread = threadpool_limits.wrap(limits=1, user_api="blas")
"""Decorator that gives BLAS one thread.

How BLAS rounds depends on how many threads share a product, and a rounding can decide a macro node. What is
learned must not depend on the cores of the machine. Everything else runs on threads of our own, whose sums
keep one order.
"""


@dataclass(frozen=True)
class Learned:
    """What one snapshot has learned.

    Attributes:
        sketch: Projects users by their items.
        item_sums: Fixed-point score sum of each item when the sketch was learned; normalises a user's pairs.
            Shape (I,).
        items: Item vectors. Shape (I, rank).
        macro: Macro node of each node, by side, for each resolution. Shape (U,), (I,).
        chances: Of `likelihood.log_chances`, likewise. Shape (Ki, Ku), (Ku, Ki).
    """

    sketch: Sketch
    item_sums: NDArray[np.int64]
    items: NDArray[np.float32]
    macro: tuple[dict[Side, NDArray[np.int32]], ...]
    chances: tuple[dict[Side, NDArray[np.int32]], ...]

    @classmethod
    def of(cls, snapshot: Path, resolutions: int, scale: float) -> Self:
        """Read it from the folder of a snapshot.

        Args:
            snapshot: The folder.
            resolutions: Number of resolutions.
            scale: Power of the singular values on the vectors.
        """

        def by_side(r: int, name: str) -> dict[Side, NDArray]:
            return {side: mapped(snapshot / f"r{r}.{side}_{name}.npy") for side in SIDES}

        return cls(
            read_sketch(snapshot, scale),
            mapped(snapshot / "basis_sum.npy"),
            mapped(snapshot / "item_vectors.npy"),
            tuple(by_side(r, "macro") for r in range(resolutions)),
            tuple(by_side(r, "chances") for r in range(resolutions)),
        )


def read_sketch(snapshot: Path, scale: float) -> Sketch:
    """Return the sketch in the folder of a snapshot."""
    return Sketch(mapped(snapshot / "basis.npy"), mapped(snapshot / "singular.npy"), scale)
