"""The nearest items in the sketch: an inverted file of the items' vectors in eight bits per number (faiss).

Vectors have length 1, so that popularity does not decide. A search reads the items of `PROBES` cells, whose
centres are nearest. With `4 sqrt(I)` cells it compares about as many centres as items: 11,000 of two million.
On disk and mapped into memory the index takes rank + 8 bytes per item.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgoe.graph import Snapshot
from mgoe.graph.sketch import unit_rows

PROBES = 16
"""Cells that a search reads."""
POINTS = 32
"""Items per cell from which the cells are learned, and the fewest that there are of a cell on average."""
ROWS = 1 << 16
"""Vectors that are added at once."""


def write_index(snapshot: Snapshot, file: Path) -> None:
    """Write the index of all items that have a vector."""
    import faiss  # late: a service without retrieval does not need it

    vectors = snapshot.arrays["item_vectors"]
    there = np.flatnonzero(np.asarray(vectors).any(axis=1))
    cells = max(1, min(int(4 * np.sqrt(len(there))), len(there) // POINTS))
    index: Any = faiss.index_factory(vectors.shape[1], f"IVF{cells},SQ8", faiss.METRIC_INNER_PRODUCT)
    index.cp.max_points_per_centroid, index.cp.min_points_per_centroid = POINTS, 1
    learn = np.random.default_rng(0).permutation(there)[: POINTS * cells]
    if len(there):
        index.train(unit_rows(vectors[np.sort(learn)]))
    for first in range(0, len(there), ROWS):
        some = there[first : first + ROWS]
        index.add_with_ids(unit_rows(vectors[some]), some)
    faiss.write_index(index, str(file))


class SketchIndex:
    """An index that `write_index` wrote, mapped into memory.

    Args:
        file: Where it is.
    """

    def __init__(self, file: Path):
        import faiss  # late: a service without retrieval does not need it

        self._index: Any = faiss.read_index(str(file), faiss.IO_FLAG_MMAP)
        self._index.nprobe = PROBES

    def nearest(self, vector: NDArray[np.float32], n: int) -> NDArray[np.int64]:
        """Return n items whose vectors are nearest, the nearest first; none for a vector of zeros."""
        if not vector.any():
            return np.empty(0, np.int64)
        near, items = self._index.search(unit_rows(vector[None]), n)
        there = items[0] >= 0
        return items[0][there][np.lexsort((items[0][there], -near[0][there]))]
