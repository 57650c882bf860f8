"""The folder in which a graph is built: for one process at a time, with a record of the stages that are done.

It is beside the graph's place and takes this place when it is complete. A build that was killed resumes after
the stages that are recorded.
"""

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from mgoe._util.files import (
    GIB,
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
from mgoe._util.memory import anonymous_memory
from mgoe.errors import GraphError, OutputError
from mgoe.graph.manifest import GraphManifest, Spent, StoredFile, combined

CHECKSUMS, STAGES = "checksums.json", "stages.json"
WORK, SPILL = "work", "spill"
"""Folders of what only a build reads, and of what its engine spills."""
NOT_KEPT = (WORK, SPILL, STAGES, CHECKSUMS)
Advance = Callable[[int], None]
"""Progress callback; receives the units just completed."""


class Observer:
    """Receives the progress of a build. This one ignores it; override what should be shown.

    Example:
        >>> class Shown(Observer):
        ...     def stage(self, name: str, total: int, unit: str) -> Advance:
        ...         print(f"{name}: {total} {unit}")
        ...         return super().stage(name, total, unit)
        >>> advance = Shown().stage("pairs", 1000, "events")
        pairs: 1000 events
    """

    def stage(self, name: str, total: int, unit: str) -> Advance:
        """Begin a stage of `total` units, and return its progress callback."""
        return lambda done: None

    def end(self) -> None:
        """Receive that the stage has ended, or failed."""


class Stages:
    """The record of the stages that are done, in the folder of a build.

    Args:
        folder: Of the build; `stages.json` in it is the record.
        observer: Receives the progress.
        source: What is made (`what`), the facts of its `log`, its `settings`, and anything else that must be
            the same for a build to resume.

    Raises:
        GraphError: The folder holds an unfinished build of something else.
    """

    def __init__(self, folder: Path, observer: Observer, source: dict[str, Any]):
        self.file, self.observer = folder / STAGES, observer
        self._record: dict[str, Any] = {"source": source, "done": {}}
        if self.file.exists():
            self._record = read_json(self.file)
            _check_same(folder, self._record["source"], source)
        else:
            write_json(self.file, self._record)

    def run(self, name: str, total: int, work: Callable[[Advance], None], unit: str = "pairs") -> None:
        """Do a stage unless it is done, and record it with its time. If it fails, it starts again next time.

        Args:
            name: Of the stage; in a snapshot, its number and a colon stand before.
            total: Units of work.
            work: Does the stage.
            unit: Name of the units.
        """
        if name in self._record["done"]:
            return
        advance = self.observer.stage(name, total, unit)
        started = time.perf_counter()
        try:
            with peak_memory() as peak:
                work(advance)
        finally:
            self.observer.end()
        self._record["done"][name] = {"seconds": time.perf_counter() - started, "peak_gib": peak[0] / GIB}
        write_json(self.file, self._record)

    @property
    def spent(self) -> dict[str, Spent]:
        """What each kind of stage took, over all snapshots."""
        out: dict[str, Spent] = {}
        for name, took in self._record["done"].items():
            kind = name.split(": ")[-1]
            so_far = out.get(kind, Spent(0, 0))
            out[kind] = Spent(so_far.seconds + took["seconds"], max(so_far.peak_gib, took["peak_gib"]))
        return out


@contextmanager
def peak_memory(every: float = 0.05) -> Iterator[list[int]]:
    """Measure the most anonymous memory (bytes) of this process during the block.

    Args:
        every: Seconds between two measurements.

    Yields:
        A list whose only entry is the peak so far.

    Example:
        >>> with peak_memory() as peak:
        ...     filled = [0] * 1_000_000
        >>> peak[0] > 0
        True
    """
    peak, stop = [anonymous_memory()], threading.Event()

    def watch() -> None:
        while not stop.wait(every):
            peak[0] = max(peak[0], anonymous_memory())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        stop.set()
        watcher.join()
        peak[0] = max(peak[0], anonymous_memory())


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
        raise OutputError(
            out,
            f"cannot be written: {reason}; free space or memory, or choose another folder (what is done is "
            "kept, and the same command resumes from there)",
        ) from None


def finish(
    folder: Path,
    out: Path,
    manifest: GraphManifest,
    files: Mapping[str, Path],
    done: Stages,
    spent: Mapping[str, Spent] | None = None,
    noted: str | None = None,
) -> None:
    """Write the manifest and move the graph to its place, over what was there.

    Args:
        folder: Of `workplace`.
        out: The place.
        manifest: Without files and stages.
        files: Kept with the graph, by name.
        done: Record of the build.
        spent: What was done before the build.
        noted: What `built` of the manifest must be. Another graph is removed.

    Raises:
        GraphError: The graph is another one; what was in its place stays.
    """
    for name, file in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / name)
    shutil.rmtree(folder / SPILL, ignore_errors=True)

    def write_checksums(_: Advance) -> None:
        found = checksums(
            folder,
            (
                path
                for path in folder.rglob("*")
                if path.is_file() and path.relative_to(folder).parts[0] not in NOT_KEPT
            ),
        )
        facts = {
            name: {"bytes": (folder / name).stat().st_size, "sha256": one} for name, one in found.items()
        }
        write_json(folder / CHECKSUMS, facts)

    done.run("checksums", 0, write_checksums)
    listed = {name: StoredFile(**facts) for name, facts in read_json(folder / CHECKSUMS).items()}
    built, took = combined(listed, "snapshots/"), {**(spent or {}), **done.spent}
    if noted not in (None, built):
        shutil.rmtree(folder)
        raise GraphError(
            out,
            "snapshots that are built again must be those that its models have learned from, found others; "
            "use the versions of mgoe and of its libraries that made the run, or overwrite it to train again",
        )
    manifest.with_changes(
        built=built,
        files=listed,
        stages={
            name: Spent(round(stage.seconds, 3), round(stage.peak_gib, 3)) for name, stage in took.items()
        },
        seconds=round(sum(stage.seconds for stage in took.values()), 3),
    ).write(folder)
    replace_folder(folder, out)
    _tidy(out)


def complete_move(out: Path) -> None:
    """Complete the move of a graph to its place if the process that made it was killed.

    Raises:
        OutputError: Another process is moving it, and there is no graph meanwhile.
    """
    if was_set_aside(out) or (out / STAGES).exists() or lock_file(building(out)).exists():
        try:
            with exclusive(building(out), "the macro graph"):
                _tidy(out)
        except OutputError:
            if was_set_aside(out) and not out.exists():
                raise


def _tidy(out: Path) -> None:
    """Bring back a graph that was set aside, and remove from a complete one what only its build read."""
    recover(out)
    clear_partial(out)
    shutil.rmtree(out / WORK, ignore_errors=True)
    for name in (CHECKSUMS, STAGES):
        (out / name).unlink(missing_ok=True)


def _check_same(folder: Path, begun: dict[str, Any], source: dict[str, Any]) -> None:
    """Refuse to resume a build of something else."""
    if begun == source:
        return
    what, fix = source["what"], f"remove {folder.name}, or overwrite it, to start over"
    if begun["what"] != what:
        rule = f"holds an unfinished {begun['what']}, found a new {what}; finish that, or {fix}"
    elif begun["log"] != source["log"]:
        found = f"{begun['log']['events']:,} events then, {source['log']['events']:,} now"
        rule = f"the log changed since this {what} was begun ({found}); restore the log, or {fix}"
    else:
        old, new = begun.get("settings", {}), source.get("settings", {})
        changed = [key for key in new if old.get(key) != new[key]] or ["the graph that it starts from"]
        rule = f"an unfinished {what} had other settings ({', '.join(changed)}); restore them, or {fix}"
    raise GraphError(folder, rule)
