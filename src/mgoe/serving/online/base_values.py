"""What a snapshot holds of a node, read when an event first touches it. Much is summed from its pairs.

Snapshots have their pairs by user; a service keeps an index of them by item on its disk, see `item_rows`.
"""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from mgoe._util.arrays import ArrayFolder, mapped, save_arrays, take
from mgoe._util.files import NEW, durable_folder, remove_folder
from mgoe.errors import StoreError
from mgoe.graph import MacroGraph, Snapshot
from mgoe.graph.counts import own_pairs
from mgoe.graph.edges import SparseEdges, first_order, second_order_own, second_sums
from mgoe.graph.newcomers import power_of
from mgoe.graph.pair_rows import (
    OTHER,
    SORT_MEMORY,
    PairColumns,
    PairRows,
    Side,
    available_threads,
    by_item,
    starts,
)
from mgoe.serving.online import kernels

INDEX = ("indptr", *PairColumns._fields)
"""Arrays of an index."""
"""Bytes that sorting may take."""


@dataclass(frozen=True)
class BaseValues:
    """What a snapshot holds of the nodes of one side.

    Attributes:
        side: Which side.
        snapshot: Memory-mapped.
        scores: Fixed-point score of every task mask. Shape (2^T,).
        rows: The snapshot's pairs by this side.
        share: Share of each task among all pairs. Shape (T,).
        other_sums: Fixed-point score sum of each node of the other side. Shape (I,) or (U,).
    """

    side: Side
    snapshot: Snapshot
    scores: NDArray[np.int64]
    rows: PairRows
    share: NDArray[np.floating]
    other_sums: NDArray[np.int64]

    @property
    def other(self) -> Side:
        """The other side."""
        return OTHER[self.side]

    @property
    def recents(self) -> int:
        """Length of the list of recent neighbours."""
        return self.snapshot.arrays[f"recent_{self.other}s"].shape[1]

    @property
    def widths(self) -> list[int]:
        """Macro nodes of this side at each resolution."""
        return self.snapshot.widths(self.side)

    @property
    def other_widths(self) -> list[int]:
        """Macro nodes of the other side at each resolution."""
        return self.snapshot.widths(self.other)

    def edges(self, r: int) -> tuple[NDArray[np.int64], NDArray[np.uint16], NDArray[np.integer]]:
        """1st-order edges of the other side at a resolution: `(indptr, macro, score)`."""
        return getattr(self.snapshot.resolutions[r], f"{self.other}_edges")

    def block(self, indices: NDArray[np.int64]) -> PairRows:
        """Return the snapshot's pairs of some nodes; a node beyond the snapshot has none."""
        known = indices < len(self.rows)
        start, end = (np.where(known, self.rows.indptr[np.where(known, indices + k, 0)], 0) for k in (0, 1))
        indptr = starts(end - start)
        at = np.arange(indptr[-1]) + np.repeat(start - indptr[:-1], end - start)
        return PairRows(indptr, *self.rows.columns.at(at))

    def read(self, indices: NDArray[np.int64]) -> dict[str, NDArray]:
        """Return first values for the slots of some nodes, by the names of `Nodes`."""
        snapshot, tasks, block = self.snapshot, len(self.share), self.block(indices)
        own, degree = own_pairs(block, self.scores, tasks, self.recents), np.diff(block.indptr)
        rows = np.arange(len(block))
        at = kernels.find_pairs(
            block.indptr, block.other, np.repeat(rows, self.recents), own["recent"].ravel().astype(np.int64)
        )
        recent_time = np.zeros(len(at), np.int64)
        recent_time[at >= 0] = block.time[at[at >= 0]]
        values = {
            "index": indices,
            "macro": snapshot.macro_nodes(self.side, indices),
            "fixed_second": np.empty((len(indices), len(self.widths)), np.int64),
            "fixed_sum": own["sum"],
            "fixed_second_sum": second_sums(block, self.scores, self.other_sums)["second_sum"],
            "done": own["done"],
            "degree": degree,
            "events": own["events"],
            **{name: own[name] for name in ("first", "last", "total", "again")},
            "recent": own["recent"],
            "recent_task_mask": own["recent_task_mask"],
            "recent_time": recent_time.reshape(own["recent"].shape),
            "vectors": take(snapshot.arrays[f"{self.side}_vectors"], indices, 0),
            "new": degree == 0,
            "power": power_of(degree),
        }
        edges = []
        for r, part in enumerate(snapshot.resolutions):
            other_width = self.other_widths[r]
            other_macro = getattr(part, f"{self.other}_macro")
            given = (
                block,
                self.scores,
                SparseEdges(*self.edges(r)),
                np.ascontiguousarray(values["macro"][:, r]),
            )
            values["fixed_second"][:, r] = second_order_own(*given)
            first = first_order(block, self.scores, other_macro, other_width)
            edges.append(first.dense(other_width + 1))
        return values | {"edges": np.concatenate(edges, axis=1)}


def prepared_folder(bundle: Path) -> Path:
    """Return the folder beside a bundle with what was made of it for services before they open it: an index
    of its graph, and exported graphs of its model. Services only read it."""
    place = Path(os.path.realpath(bundle))
    return place.with_name(f"{place.name}.prepared")


def item_rows(graph: MacroGraph, folder: Path | None) -> PairRows:
    """Return the pairs of the latest snapshot by item, memory-mapped.

    Args:
        graph: The graph of a bundle.
        folder: Where the index is kept for other processes and later starts, unless it was prepared beside
            the bundle; it replaces that of another graph. None: the index is in a temporary folder that ends
            with this process.

    Raises:
        StoreError: The folder cannot be written.
    """
    name = f"index-{graph.checksum[:16]}"
    if (rows := _read_index(prepared_folder(graph.path.parent) / name)) is not None:
        return rows
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="mgoe-") as scratch:  # mapped files outlive their names
            return _write_index(graph, Path(scratch))
    place = folder / name
    try:
        if (rows := _read_index(place)) is not None:
            return rows
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "index.lock"):  # one process writes, the others wait
            rows = _read_index(place)
            return _replace_index(graph, place) if rows is None else rows
    except OSError as error:
        raise StoreError(
            folder,
            f"the index of the graph cannot be written: {error.strerror or error}; "
            "free space, or grant write access",
        ) from None


def _read_index(place: Path) -> PairRows | None:
    """Map an index; None if an array is missing or damaged."""
    try:
        rows = PairRows(*(mapped(place / f"{name}.npy") for name in INDEX))
    except (OSError, ValueError, EOFError):
        return None
    return rows if {len(column) for column in rows.columns} == {rows.indptr[-1]} else None


def _replace_index(graph: MacroGraph, place: Path) -> PairRows:
    """Write an index. Other ones go, and what killed processes have left."""
    for left in place.parent.glob(f"{NEW}*"):
        shutil.rmtree(left, ignore_errors=True)
    with durable_folder(place) as unfinished:
        rows = _write_index(graph, unfinished)
        for other in place.parent.glob("index-*"):
            remove_folder(other, NEW)
    return rows


def _write_index(graph: MacroGraph, folder: Path) -> PairRows:
    rows, indptr = PairRows.by_user(graph.folder(-1)), PairRows.item_indptr(graph.folder(-1))
    save_arrays(folder, {"indptr": indptr})
    with ArrayFolder(folder) as out:
        out.append(rows.columns.at(slice(0))._asdict())
        for block in by_item(rows, indptr, SORT_MEMORY, available_threads()):
            out.append(block.columns._asdict())
    return PairRows(*(mapped(folder / f"{name}.npy") for name in INDEX))
