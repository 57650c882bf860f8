"""Where a graph is built: a folder beside its place, for one process at a time, that takes its place when
complete.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from mgoe._util.files import (
    checksums,
    clear_partial,
    clear_unfinished,
    exclusive,
    lock_file,
    read_json,
    recover,
    replace_folder,
    was_set_aside,
    write_json,
)
from mgoe.errors import OutputError
from mgoe.graph.build import stages
from mgoe.graph.build.stages import Spent, Stages

MANIFEST, CHECKSUMS = "graph.json", "checksums.json"
WORK, SPILL = "work", "spill"
"""Folders of what only a build reads, and of what its engine spills."""


def building(out: Path) -> Path:
    """Return the folder in which a graph is built."""
    return out.with_name(f"{out.name}.building")


@contextmanager
def workplace(out: Path) -> Iterator[Path]:
    """Yield the folder in which a graph is built, with what an earlier process finished there.

    Raises:
        OutputError: Another process holds the folder, it cannot be written, or the disk is full.
    """
    folder = building(out)
    try:
        with exclusive(folder, "the macro graph"):
            _tidy(out)
            folder.mkdir(exist_ok=True)
            clear_unfinished(folder)
            yield folder
    except (OSError, duckdb.IOException, duckdb.OutOfMemoryException) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        fix = "free space or memory, or choose another folder"
        kept = "what is done is kept, and the same command resumes from there"
        raise OutputError(out, f"cannot be written: {reason}; {fix} ({kept})") from None


def finish(
    folder: Path,
    out: Path,
    meta: dict[str, Any],
    files: Mapping[str, Path],
    done: Stages,
    spent: Mapping[str, Spent] | None = None,
) -> None:
    """Write the manifest and move the graph to its place, over what was there.

    Args:
        folder: Of `workplace`.
        out: The place.
        meta: Manifest, but for files and stages.
        files: Kept with the graph, by name.
        done: Record of the build.
        spent: What was done before the build.
    """
    for name, file in files.items():
        shutil.copyfile(file, folder / name)
    shutil.rmtree(folder / SPILL, ignore_errors=True)
    if done.pending("checksums"):
        with done.running("checksums", 0):
            write_json(folder / CHECKSUMS, _files(folder))
    took = {**(spent or {}), **done.spent}
    meta = meta | {
        "files": read_json(folder / CHECKSUMS),
        "stages": {
            name: {"seconds": round(stage.seconds, 3), "peak_gib": round(stage.peak_gib, 3)}
            for name, stage in took.items()
        },
        "seconds": round(sum(stage.seconds for stage in took.values()), 3),
    }
    write_json(folder / MANIFEST, meta)
    replace_folder(folder, out)
    _tidy(out)


def settle(out: Path) -> None:
    """Complete the move of a graph to its place if the process that made it was killed.

    Raises:
        OutputError: Another process is moving it, and there is no graph meanwhile.
    """
    missing = not out.exists() and was_set_aside(out)
    if was_set_aside(out) or (out / stages.FILE).exists() or lock_file(building(out)).exists():
        try:
            with exclusive(building(out), "the macro graph"):
                _tidy(out)
        except OutputError:
            if missing:
                raise


def _tidy(out: Path) -> None:
    """Bring back a graph that was set aside, and remove from a complete one what only its build read."""
    recover(out)
    clear_partial(out)
    shutil.rmtree(out / WORK, ignore_errors=True)
    for name in (CHECKSUMS, stages.FILE):
        (out / name).unlink(missing_ok=True)


def _files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the size and checksum of every file of the graph."""
    temporary = (WORK, SPILL, stages.FILE, CHECKSUMS)
    files = [path for path in folder.rglob("*") if path.relative_to(folder).parts[0] not in temporary]
    found = checksums(folder, (path for path in files if path.is_file()))
    return {name: {"bytes": (folder / name).stat().st_size, "sha256": one} for name, one in found.items()}
