"""Vectors that tell what users and items are about, as an encoder of texts and images would.

A node has the vector of its own community with a set probability, and otherwise that of any node. So the best
reading of a taste, which is linear in the vector, has that probability as its correlation with the taste.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mgoe.simulation.truth import Ids, Truth

Side = Literal["user", "item"]
SPREAD = 0.1
"""Standard deviation of vectors of one community, where those of communities have 1."""
WIDEST = 4096


def told_communities(truth: Truth, side: Side) -> NDArray[np.int16]:
    """Return the community that the vector of each node tells: its own, or that of any node. Shape (n,)."""
    nodes = truth.users if side == "user" else truth.items
    rng = np.random.default_rng([truth.settings.seed, 7, side == "item"])
    own = rng.random(len(nodes)) < (truth.settings.content or 0)
    return np.where(own, nodes.community, rng.permutation(nodes.community))


def contents(truth: Truth, side: Side) -> NDArray[np.floating]:
    """Return a vector per node, of twice as many numbers as there are communities. Shape (n, W).

    Example:
        >>> from mgoe.simulation import WorldSettings, make_truth
        >>> few = {"users": 30, "items": 20, "exposures": 300, "days": 5, "content": 0.5}
        >>> small = WorldSettings(**few, user_communities=2, item_communities=3)
        >>> contents(make_truth(small), "item").shape
        (20, 6)
    """
    told = told_communities(truth, side)
    rng = np.random.default_rng([truth.settings.seed, 8, side == "item"])
    communities = int(told.max()) + 1
    centers = rng.standard_normal((communities, min(WIDEST, 2 * communities)), np.float32)
    return centers[told] + np.float32(SPREAD) * rng.standard_normal((len(told), centers.shape[1]), np.float32)


def write_contents(truth: Truth, folder: Path) -> None:
    """Write a side table of users and one of items, with their vectors in the column `content`."""
    ids_of: dict[Side, Ids] = {"user": truth.user_ids, "item": truth.item_ids}
    for side, ids in ids_of.items():
        vectors = contents(truth, side)
        listed = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        columns = {f"{side}_id": ids.of(np.arange(len(vectors))), "content": listed}
        pq.write_table(pa.table(columns), folder / f"{side}s.parquet", compression="zstd")
