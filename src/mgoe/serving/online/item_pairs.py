"""An index of a snapshot's pairs by item, which a service keeps on its disk. Snapshots have them by user."""

import os
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock

from mgoe._util.arrays import ArrayFolder, mapped, save_arrays
from mgoe._util.files import GIB, remove_folder, sync
from mgoe.errors import StoreError
from mgoe.graph import MacroGraph
from mgoe.graph.pair_rows import PairColumns, PairRows, available_threads, by_item

NAMES = ("indptr", *PairColumns._fields)
UNFINISHED = ".index-"
"""Start of the name of an index that is being written or removed."""
MEMORY = GIB // 4
"""Bytes that sorting may take."""


def item_rows(graph: MacroGraph, folder: Path | None) -> PairRows:
    """Return the pairs of the latest snapshot by item, memory-mapped.

    Args:
        graph: The graph of a bundle.
        folder: Where the index is kept for other processes and later starts; it replaces that of another
            graph. None: the index is in a temporary folder that ends with this process.

    Raises:
        StoreError: The folder cannot be written.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="mgoe-") as scratch:  # mapped files outlive their names
            return _write(graph, Path(scratch))
    place = folder / f"index-{graph.checksum[:16]}"
    try:
        if (rows := _read(place)) is not None:
            return rows
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "index.lock"):  # one process writes, the others wait
            rows = _read(place)
            return _replace(graph, place) if rows is None else rows
    except OSError as error:
        fix = "free space, or grant write access"
        rule = f"the index of the graph cannot be written: {error.strerror or error}; {fix}"
        raise StoreError(folder, rule) from None


def _read(place: Path) -> PairRows | None:
    """Map an index; None if an array is missing or damaged."""
    try:
        rows = PairRows(*(mapped(place / f"{name}.npy") for name in NAMES))
    except (OSError, ValueError, EOFError):
        return None
    return rows if {len(column) for column in rows.columns} == {rows.indptr[-1]} else None


def _replace(graph: MacroGraph, place: Path) -> PairRows:
    """Write an index, durable before it has its name. Other ones go, and what killed processes have left."""
    for left in place.parent.glob(f"{UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)
    unfinished = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=place.parent))
    try:
        rows = _write(graph, unfinished)
        for path in (*unfinished.iterdir(), unfinished):
            sync(path)
        for other in place.parent.glob("index-*"):
            remove_folder(other, UNFINISHED)
        os.rename(unfinished, place)
        sync(place.parent)
        return rows
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write(graph: MacroGraph, folder: Path) -> PairRows:
    rows, starts = PairRows.by_user(graph.folder(-1)), PairRows.item_indptr(graph.folder(-1))
    save_arrays(folder, {"indptr": starts})
    with ArrayFolder(folder) as out:
        out.append(rows.columns.at(slice(0))._asdict())
        for block in by_item(rows, starts, MEMORY, available_threads()):
            out.append(block.columns._asdict())
    return PairRows(*(mapped(folder / f"{name}.npy") for name in NAMES))
