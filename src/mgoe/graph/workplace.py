"""Where a graph is built: a folder beside its place, for one process at a time, that takes its place when it is whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from mgoe._util.files import exclusive, lock_file, sha256, write_json
from mgoe.errors import GraphError, OutputError
from mgoe.graph.build.stages import FILE as STAGES
from mgoe.graph.build.stages import Observer, Spent, Stages

MANIFEST = "graph.json"


def building(out: Path) -> Path:
    """The folder in which a graph is built."""
    return out.with_name(f"{out.name}.building")


@contextmanager
def workplace(out: Path) -> Iterator[Path]:
    """Take the folder in which a graph is built; what an earlier process finished is still there.

    Raises:
        OutputError: Another process holds it, it cannot be written, or the disk is full.
    """
    folder = building(out)
    try:
        with exclusive(folder, "the macro graph"):
            restore(out)
            folder.mkdir(exist_ok=True)
            for unfinished in folder.glob(
                ".*.tmp"
            ):  # of a record that a process was writing when it was killed
                unfinished.unlink()
            yield folder
    except (OSError, duckdb.IOException, duckdb.OutOfMemoryException) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        kept = "what is done is kept, and the same command goes on from there"
        raise OutputError(
            out, f"cannot be written: {reason}; free space or memory, or choose another folder ({kept})"
        ) from None


def begin(folder: Path, observer: Observer, source: dict[str, Any]) -> Stages:
    """The record of what is done there.

    Args:
        folder: Of `workplace`.
        observer: Told of each stage.
        source: `what` is done, the facts of the `log`, and anything else that must be the same for it to go on.

    Raises:
        GraphError: Something else was begun there.
    """
    stages = Stages(folder, observer, source)
    before = stages.source
    if before == source:
        return stages
    mend = f"remove {folder.name} (or use --overwrite) to begin anew"
    if before["what"] != source["what"]:
        raise GraphError(
            folder,
            f"holds an unfinished {before['what']}, found a new {source['what']}; finish that, or {mend}",
        )
    if before["log"] != source["log"]:
        found = f"{before['log']['events']:,} events then, {source['log']['events']:,} now"
        raise GraphError(
            folder,
            f"the log changed since this {source['what']} was begun ({found}); restore the log, or {mend}",
        )
    old, new = before.get("settings", {}), source.get("settings", {})
    changed = [key for key in new if old.get(key) != new[key]] or ["the graph that it starts from"]
    raise GraphError(
        folder,
        f"an unfinished {source['what']} had other settings ({', '.join(changed)}); restore them, or {mend}",
    )


def finish(
    folder: Path,
    out: Path,
    meta: dict[str, Any],
    files: Mapping[str, Path],
    stages: Stages,
    spent: Mapping[str, Spent] | None = None,
) -> None:
    """Note what was made and move it to its place, over what lay there before."""
    for name, file in files.items():
        shutil.copyfile(file, folder / name)
    shutil.rmtree(folder / "spill", ignore_errors=True)
    stages.run("checksums", 0, lambda advance: write_json(folder / "checksums.json", _checksums(folder)))
    spent = {**(spent or {}), **stages.spent}
    meta = meta | {
        "files": json.loads((folder / "checksums.json").read_text()),
        "stages": {
            name: {"seconds": round(took.seconds, 3), "peak_gib": round(took.peak_gib, 3)}
            for name, took in spent.items()
        },
        "seconds": round(sum(took.seconds for took in spent.values()), 3),
    }
    write_json(folder / MANIFEST, meta)
    replaced = _replaced(out)
    if out.exists():
        os.replace(out, replaced)
    os.replace(folder, out)
    _tidy(out)


def restore(out: Path) -> None:
    """Put back a graph that a process was about to replace when it was killed."""
    replaced = _replaced(out)
    if replaced.exists() and not out.exists():
        os.replace(replaced, out)
    _tidy(out)


def settle(out: Path) -> None:
    """Do what is left of a graph's taking its place, where the process that was at it was killed.

    Raises:
        OutputError: Another process is at it, and there is no graph meanwhile.
    """
    missing = not out.exists() and _replaced(out).exists()
    if missing or (out / STAGES).exists() or lock_file(building(out)).exists():
        try:
            with exclusive(building(out), "the macro graph"):
                restore(out)
        except OutputError:
            if missing:
                raise


def _tidy(out: Path) -> None:
    """Remove what a graph in its place needs no more. Not before: a build that is cut off on the way there goes on from it."""
    for folder in (_replaced(out), out / "work"):
        shutil.rmtree(folder, ignore_errors=True)
    for name in ("checksums.json", STAGES):
        (out / name).unlink(missing_ok=True)


def _replaced(out: Path) -> Path:
    return out.with_name(f".{out.name}.replaced")


def _checksums(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and checksum of every file of the graph."""
    files = sorted(
        file for file in folder.rglob("*") if file.is_file() and _belongs(file.relative_to(folder))
    )
    with ThreadPoolExecutor(2) as pool:
        sums = list(pool.map(sha256, files))
    return {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": checksum}
        for file, checksum in zip(files, sums, strict=True)
    }


def _belongs(file: Path) -> bool:
    return file.parts[0] not in ("work", "spill", STAGES, "checksums.json")
