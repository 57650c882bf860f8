"""The nearest items in the sketch: an inverted file of the items' vectors in eight bits per number (faiss).

Vectors have length 1, so that popularity does not decide. A search reads the items of `PROBES` cells, whose
centres are nearest. With `4 sqrt(I)` cells it compares about as many centres as items: 11,000 of two million.
On disk and mapped into memory the index takes rank + 8 bytes per item.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mgoe.graph.sketch import unit_rows

PROBES = 16
"""Cells that a search reads."""
POINTS = 32
"""Items per cell from which the cells are learned, and the fewest that there are of a cell on average."""
ROUNDS = 4
"""Rounds of k-means that learn the cells: ours."""
ROWS = 1 << 16
"""Vectors that are added at once."""
CHANGED = 0.5
"""Vectors that updates placed in the same cells, as a share of all, above which these are learned again."""


class FormerIndex(NamedTuple):
    """What an update of an index starts from.

    Attributes:
        vectors: Item vectors that it was written from. Shape (I of then, rank).
        file: The index.
        placed: Vectors that updates have placed since its cells were learned.
    """

    vectors: NDArray[np.float32]
    file: Path
    placed: int


def write_index(vectors: NDArray[np.float32], file: Path, former: FormerIndex | None = None) -> int:
    """Write the index of all items that have a vector, and return how many vectors updates have placed since
    its cells were learned.

    Args:
        vectors: Of the items. Shape (I, rank).
        file: File to write.
        former: An index to update: its cells stay, and only items whose vectors changed are placed again. The
            cells are learned again once updates have placed as many vectors as half of the items, or if the
            number of items calls for twice as many.
    """
    import faiss  # late: a service without retrieval does not need it

    placed = there = np.flatnonzero(np.asarray(vectors).any(axis=1))
    index, since = None, 0
    if former is not None and former.vectors.shape[1] == vectors.shape[1]:
        changed = _changed(former.vectors, vectors)
        again = np.intersect1d(there, changed, assume_unique=True)
        if (since := former.placed + len(again)) <= CHANGED * len(there):
            index: Any = faiss.read_index(str(former.file))
            index.remove_ids(changed)
            placed = again
    if index is None or not index.is_trained or _cells(len(there)) >= 2 * index.nlist:
        index, placed, since = _learned(vectors, there), there, 0
    for first in range(0, len(placed), ROWS):
        some = placed[first : first + ROWS]
        index.add_with_ids(unit_rows(vectors[some]), some)
    faiss.write_index(index, str(file))
    return since


def _changed(former: NDArray[np.float32], vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the items whose vectors differ, and new ones."""
    same = np.zeros(len(vectors), np.bool_)
    for first in range(0, len(former), ROWS):
        rows = slice(first, min(first + ROWS, len(former)))
        same[rows] = (former[rows] == vectors[rows]).all(axis=1)
    return np.flatnonzero(~same)


def _learned(vectors: NDArray[np.float32], there: NDArray[np.int64]) -> Any:
    """Return an index without items, whose cells are learned from some of those that have a vector."""
    import faiss

    cells = _cells(len(there))
    index: Any = faiss.index_factory(vectors.shape[1], f"IVF{cells},SQ8", faiss.METRIC_INNER_PRODUCT)
    index.cp.max_points_per_centroid, index.cp.min_points_per_centroid = POINTS, 1
    index.cp.niter = ROUNDS
    learn = np.random.default_rng(0).permutation(there)[: POINTS * cells]
    if len(there):
        index.train(unit_rows(vectors[np.sort(learn)]))
    return index


def _cells(items: int) -> int:
    return max(1, min(int(4 * np.sqrt(items)), items // POINTS))


class SketchIndex:
    """An index that `write_index` wrote, mapped into memory.

    Args:
        file: Where it is.
    """

    def __init__(self, file: Path):
        import faiss  # late: a service without retrieval does not need it

        self._index: Any = faiss.read_index(str(file), faiss.IO_FLAG_MMAP)
        self._index.nprobe = PROBES
        # by default each search starts threads that read its cells ahead: ten times the time of the search
        faiss.downcast_InvertedLists(self._index.invlists).prefetch_nthread = 0  # type: ignore[attr-defined]

    def nearest(self, vector: NDArray[np.float32], n: int) -> NDArray[np.int64]:
        """Return n items whose vectors are nearest, the nearest first; none for a vector of zeros."""
        if not vector.any():
            return np.empty(0, np.int64)
        near, items = self._index.search(unit_rows(vector[None]), int(n))
        there = items[0] >= 0
        return items[0][there][np.lexsort((items[0][there], -near[0][there]))]
