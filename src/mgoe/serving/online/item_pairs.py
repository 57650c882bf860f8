"""The pairs of a snapshot by item. A snapshot holds them by user; a service needs both, so it keeps them the other way on its disk."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from mgoe._util.arrays import ArrayFolder, mapped, save_arrays
from mgoe._util.files import GIB, remove_folder, sync
from mgoe.errors import StoreError
from mgoe.graph import MacroGraph
from mgoe.graph.pair_rows import PairRows, available_threads, by_item

PARTS = ("indptr", "other", "task_mask", "time", "events")
UNFINISHED = ".index-"
HOUR = 3600
MEMORY = GIB // 4
"""Bytes that the sorting may take."""


def item_rows(graph: MacroGraph, folder: Path | None) -> PairRows:
    """Pairs of the latest snapshot by item, memory-mapped.

    Args:
        graph: Of a bundle.
        folder: Where the index of each graph is kept for other processes and later starts; one of another graph is removed. Without it
            the index lies in a folder that ends with this process.

    Raises:
        StoreError: The folder cannot be written.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="mgoe-") as held:  # mapped files outlive their names
            return _written(graph, Path(held))
    place = folder / f"index-{graph.checksum[:16]}"
    try:
        if (rows := _held(place)) is not None:
            return rows
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        unfinished = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=folder))
        try:
            rows = _written(graph, unfinished)
            _settle(unfinished, place)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return _held(place) or rows
    except OSError as error:
        raise StoreError(
            folder,
            f"the index of the graph cannot be written: {error.strerror or error}; free space, or mend rights",
        ) from None


def _held(place: Path) -> PairRows | None:
    """An index that is whole; None where a part is missing or cannot be read."""
    try:
        rows = PairRows(*(mapped(place / f"{name}.npy") for name in PARTS))
    except (OSError, ValueError, EOFError):
        return None
    return rows if {len(getattr(rows, name)) for name in PARTS[1:]} == {rows.indptr[-1]} else None


def _sweep(folder: Path) -> None:
    """Remove what processes that were killed left half written: none takes an hour."""
    for left in folder.glob(f"{UNFINISHED}*"):
        with suppress(OSError):
            if time.time() - max(path.stat().st_mtime for path in (left, *left.iterdir())) > HOUR:
                shutil.rmtree(left, ignore_errors=True)


def _written(graph: MacroGraph, folder: Path) -> PairRows:
    rows, starts = PairRows.by_user(graph.folder(-1)), PairRows.item_indptr(graph.folder(-1))
    save_arrays(folder, {"indptr": starts})
    with ArrayFolder(folder) as out:
        for name in PARTS[1:]:
            out.append({name: getattr(rows, name)[:0]})
        for block in by_item(rows, starts, MEMORY, available_threads()):
            out.append({name: getattr(block, name) for name in PARTS[1:]})
    return PairRows(*(mapped(folder / f"{name}.npy") for name in PARTS))


def _settle(unfinished: Path, place: Path) -> None:
    """Give the index its place, durably, unless another process has been faster, and remove those of other graphs, and a damaged one."""
    for path in (*unfinished.iterdir(), unfinished):
        sync(path)
    for other in place.parent.glob("index-*"):
        if other != place or _held(place) is None:
            remove_folder(other, UNFINISHED)
    try:
        os.rename(unfinished, place)
    except OSError:
        if not place.exists():
            raise
    sync(place.parent)
