"""The macro graph of a ranker, by ids instead of indices."""

from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from mgoe.bundle import Bundle
from mgoe.errors import GraphError
from mgoe.graph.matrices import matrix
from mgoe.graph.pair_rows import SIDES, Side


class RankerGraph:
    """The latest snapshot of the macro graph that a ranker reads: `ranker.graph`.

    Args:
        bundle: It holds the graph.
    """

    def __init__(self, bundle: Bundle):
        self._bundle = bundle

    def ids(self, side: Side) -> list[Any]:
        """Return the ids of all users or items, in the order of the rows of `to_scipy`.

        Raises:
            GraphError: The side is neither `user` nor `item`.

        Example:
            >>> len(ranker.graph.ids("item"))
            99
        """
        if side not in SIDES:
            raise GraphError("side", f"must be user or item, found {side!r}; choose one of them")
        nodes = len(self._bundle.snapshot.arrays[f"{side}_sum"])  # an item that was added has no node
        return self._bundle.ids(side, np.arange(nodes))

    def to_scipy(self, rows: str, columns: str, resolution: int | None = None) -> sparse.csr_array:
        """Return the scores between two kinds of nodes as a sparse matrix.

        Args:
            rows, columns: `user` and `item` for the distinct pairs; `user` and `item_macro`, `item` and
                `user_macro`, or `user_macro` and `item_macro` for macro edges; in either order.
            resolution: Place of the resolution of the macro nodes, coarse to fine; by default the one that
                the experts read.

        Returns:
            Scores in units of the merging score. Users and items have the order of `ids`.

        Raises:
            GraphError: No edges join these kinds, or there is no such resolution.

        Example:
            >>> ranker.graph.to_scipy("user", "item").shape
            (192, 99)
        """
        return matrix(self._bundle.graph, rows, columns, resolution)

    def macro_nodes(self, side: Side) -> pd.DataFrame:
        """Return the macro node of every user or item at every resolution.

        Returns:
            One row per node: its id, its total `score`, and a column per resolution, named after its number
            of macro nodes, coarse to fine. -1 stands for a node without one.

        Raises:
            GraphError: The side is neither `user` nor `item`.

        Example:
            >>> ranker.graph.macro_nodes("item").columns.tolist()
            ['item', 'score', 'macro_8']
        """
        snapshot = self._bundle.graph.latest
        found = {side: self.ids(side), "score": np.asarray(snapshot.arrays[f"{side}_sum"])}
        for part in snapshot.resolutions:
            macro, size = getattr(part, f"{side}_macro"), len(getattr(part, f"{side}_mass"))
            found[f"macro_{size}"] = np.where(macro == size, -1, macro)
        return pd.DataFrame(found)

    def __repr__(self) -> str:
        return repr(self._bundle.graph)

    def _repr_html_(self) -> str:
        return self._bundle.graph._repr_html_()
