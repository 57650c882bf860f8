"""A snapshot: everything that a model reads of a macro graph as of one moment, memory-mapped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mgoe._util.arrays import mapped, take
from mgoe.errors import GraphError
from mgoe.graph.adjusted import split_adjusted
from mgoe.graph.edges import SparseEdges
from mgoe.graph.links import ItemLinks
from mgoe.graph.manifest import GraphManifest
from mgoe.graph.pair_rows import BLOCK_PAIRS, PairColumns, Side, block_bounds
from mgoe.graph.rates import Rates, RateTable, restore
from mgoe.graph.scores import UNIT, score_table

PAIRS = (
    "pairs.indptr",
    "pairs.item",
    *(f"pairs.{name}" for name in PairColumns._fields[1:]),
    "pairs.item_indptr",
)
"""Distinct pairs by user, then item: (U + 1,), (E,) ...; and where the pairs of each item start, by item: (I
+ 1,).
"""
RECENTS = ("recent_items", "recent_items_task_mask", "recent_users", "recent_users_task_mask")
"""Recent neighbours, newest first, -1 at the end, and the tasks done with them: (U, R), (I, R)."""
COUNTS = ("user_counts", "user_sum", "user_second_sum", "item_counts", "item_sum", "item_second_sum")
"""Counts, score sums, and what comes back over two steps: (U, 2T + 3), (U,), (U,), likewise for items."""
SPANS = tuple(
    f"{side}_{name}" for side in ("user", "item") for name in ("first", "last", "total", "again", "ages")
)
"""When nodes were active and how often they came back, see `own_pairs`."""
LINKS = ("links.indptr", "links.item", "links.weight")
"""The strongest `ItemLinks` of every item, rows by the other item: (I + 1,), (L,), (L,)."""
SKETCH = ("user_vectors", "item_vectors", "singular", "basis", "basis_sum")
"""The sketch: (U, rank), (I, rank), (rank,); and what projects users, with the fixed-point item sums from
when it was learned: (I, rank), (I,).
"""
DENSE = ("u1", "u2", "i1", "i2", "user_table", "item_table")
"""At the dense resolution, log(1 + edge) of both orders: (U, Ki), (U, Ku), (I, Ku), (I, Ki); and the macro
task table: (U, T), (I, T).
"""
ARRAYS = PAIRS + RECENTS + COUNTS + SPANS + LINKS + SKETCH + DENSE
"""What a snapshot holds beside its resolutions. Scores are in units of the merging score unless stated
otherwise.
"""


@dataclass(frozen=True)
class Resolution:
    """The macro nodes of one resolution and the edges to them. Scores are in units of the merging score.

    Attributes:
        user_macro, item_macro: Own macro node; `Ku` or `Ki` is the cold node. Shape (U,), (I,).
        user_edges, item_edges: 1st-order edges, one row per node.
        user_second, item_second: 2nd-order edge to the own macro node. Shape (U,), (I,).
        user_mass, item_mass: 1st-order score of all members of a macro node. Shape (Ku,), (Ki,).
        user_second_mass, item_second_mass: 2nd-order score that reaches a macro node. Shape (Ku,), (Ki,).
        user_chances, item_chances: Log shares by which new nodes find their macro node, unit 2^-10. Shape
            (Ki, Ku), (Ku, Ki).
        macro_edges: Score between each user macro node and each item macro node. Shape (Ku, Ki).

    Example:
        >>> one = graph.latest.resolutions[0]
        >>> one.macro_edges.shape == graph.sizes[0]
        True
    """

    user_macro: NDArray[np.int32]
    item_macro: NDArray[np.int32]
    user_edges: SparseEdges
    item_edges: SparseEdges
    user_second: NDArray[np.float32]
    item_second: NDArray[np.float32]
    user_mass: NDArray[np.float32]
    item_mass: NDArray[np.float32]
    user_second_mass: NDArray[np.float32]
    item_second_mass: NDArray[np.float32]
    user_chances: NDArray[np.int32]
    item_chances: NDArray[np.int32]
    macro_edges: NDArray[np.float32]

    @classmethod
    def read(cls, array: Callable[[str], NDArray]) -> Resolution:
        """Read every array by its name."""
        sparse = {name: SparseEdges.read(array, name) for name in ("user_edges", "item_edges")}
        plain = {field.name: array(field.name) for field in fields(cls) if field.name not in sparse}
        return cls(**plain, **sparse)  # type: ignore[arg-type]


PLACED = ("targets", "worth", "kappa", "sum", "vectors", "log_first")
"""What nodes of one side read with their content: of a `Placing`, and what it reads; for each resolution,
also `macro0`, ..., and `norm0`, .... Nodes that have content and no index yet follow the known ones.
"""


@dataclass(frozen=True)
class Snapshot:
    """The macro graph as of one moment.

    Attributes:
        arrays: By the names of `ARRAYS`.
        resolutions: Coarse to fine.
        dense: Index of the resolution that the experts aggregate.
        cut: Last bucket that the snapshot holds.
        bucket: Length of a bucket, microseconds.
        scores: Merging score of every task mask. Shape (2^T,).
        now: First moment after all that it holds, in microseconds: the end of its last bucket, of the latest
            one that of its last event.
        rates: Counts of what was shown; None for a log of events.
        placed: For each side that has content, this and the arrays of `PLACED`.

    Example:
        >>> graph.latest.n_users == len(bundle.encoders.users.ids(np.arange(graph.latest.n_users)))
        True
    """

    arrays: Mapping[str, NDArray]
    resolutions: tuple[Resolution, ...]
    dense: int
    cut: int
    bucket: int
    scores: NDArray[np.float64]
    now: int
    rates: Rates | None = None
    placed: Mapping[Side, Mapping[str, NDArray]] = field(default_factory=dict)

    @property
    def end(self) -> int:
        """End of the last bucket, in microseconds."""
        return (self.cut + 1) * self.bucket

    @property
    def links(self) -> ItemLinks:
        """The strongest links of every item, the other items of each rising."""
        return ItemLinks(*(self.arrays[name] for name in LINKS))

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.arrays["user_sum"])

    @property
    def n_items(self) -> int:
        """Number of items."""
        return len(self.arrays["item_sum"])

    @property
    def macro_users(self) -> int:
        """Ku of the dense resolution."""
        return len(self.resolutions[self.dense].user_mass)

    @property
    def macro_items(self) -> int:
        """Ki of the dense resolution."""
        return len(self.resolutions[self.dense].item_mass)

    def widths(self, side: Side) -> list[int]:
        """Return the macro nodes of a side at each resolution. Length Z."""
        return [len(getattr(part, f"{side}_mass")) for part in self.resolutions]

    def macro_nodes(self, side: Side, nodes: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the macro nodes of some nodes, the cold ones beyond the snapshot. Shape (n, Z)."""
        parts = zip(self.resolutions, self.widths(side), strict=True)
        return np.stack([take(getattr(part, f"{side}_macro"), nodes, width) for part, width in parts], axis=1)

    @cached_property
    def total(self) -> float:
        """Sum of all scores."""
        return float(np.asarray(self.arrays["user_sum"]).sum(dtype=np.float64))

    @cached_property
    def second_total(self) -> tuple[float, float]:
        """Sums of all 2nd-order scores, of users and of items."""
        users, items = (self.arrays[f"{side}_second_sum"].sum(dtype=np.float64) for side in ("user", "item"))
        return float(users), float(items)

    def known_items(self, user: int) -> NDArray[np.int32]:
        """Return the items in a user's history, ascending; none for an unknown user."""
        if not 0 <= user < self.n_users:
            return np.empty(0, np.int32)
        start, end = self.arrays["pairs.indptr"][user : user + 2]
        return self.arrays["pairs.item"][start:end]

    @classmethod
    def open(cls, folder: Path, manifest: GraphManifest, cut: int) -> Snapshot:
        """Open a saved snapshot, memory-mapped.

        Args:
            folder: Of the snapshot, in that of its graph.
            manifest: That of the graph.
            cut: Last bucket of the snapshot.

        Raises:
            GraphError: An array is missing or damaged.
        """

        def read(name: str) -> NDArray:
            return _mapped(folder / f"{name}.npy")

        resolutions = range(len(manifest.resolutions))
        parts = tuple(Resolution.read(lambda name, r=r: read(f"r{r}.{name}")) for r in resolutions)
        arrays = {name: read(name) for name in ARRAYS}
        rates = None
        if (counted := manifest.rates) is not None:
            files, groups = enumerate(counted.categories), restore(counted.groups)
            tables = RateTable.read(read)
            rates = Rates(
                groups,
                tuple(tables),
                split_adjusted(groups, tables, read("rates.adjusted")),
                {name: _mapped(folder.parent.parent / f"categories{k}.npy") for k, name in files},
                np.array([*counted.regressions.values()], bool),
            )
        settings = manifest.settings
        scores = score_table(np.asarray(manifest.ranks), settings.beta, settings.code) / UNIT
        names = (*PLACED, *(f"{name}{r}" for name in ("macro", "norm") for r in resolutions))
        placed: dict[Side, dict[str, NDArray]] = {
            side: {name: read(f"{side}_placed.{name}") for name in names} | {"content": content}
            for side, content in read_content(folder.parent.parent, manifest.content).items()
        }
        end = (cut + 1) * manifest.bucket
        now = min(end, manifest.last + 1) if cut == manifest.cuts[-1] else end
        return cls(arrays, parts, manifest.dense, cut, manifest.bucket, scores, now, rates, placed)


def score_sums(snapshot: Snapshot, side: Side) -> NDArray[np.int64]:
    """Return the fixed-point score sum of each node, which is that of its edges."""
    indptr, _, score = getattr(snapshot.resolutions[0], f"{side}_edges")
    sums = np.empty(len(indptr) - 1, np.int64)
    # holds a block in memory, not all edges
    for first, last in block_bounds(indptr, BLOCK_PAIRS, len(indptr)):
        bounds = np.asarray(indptr[first : last + 1])
        total = np.concatenate([[0], np.cumsum(score[bounds[0] : bounds[-1]], dtype=np.int64)])
        sums[first:last] = np.diff(total[bounds - bounds[0]])
    return sums


def read_content(graph: Path, sides: Iterable[Side]) -> dict[Side, NDArray[np.float32]]:
    """Open what nodes of some sides are about, which is kept with a graph. Shape (n, D) each.

    Raises:
        GraphError: An array is missing or damaged.
    """
    return {side: _mapped(graph / f"content.{side}.npy") for side in sides}


def _mapped(file: Path) -> NDArray:
    try:
        return mapped(file)
    except FileNotFoundError:
        raise GraphError(file, "the graph is damaged: this array is missing; build the graph again") from None
    except (ValueError, OSError, EOFError) as error:
        raise GraphError(
            file, f"the graph is damaged: this array cannot be read ({error}); build the graph again"
        ) from None
