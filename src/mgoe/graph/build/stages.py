"""The stages of a build. Each is timed and recorded when it is done, so a build that was killed resumes after
them.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgoe._util.files import GIB, read_json, write_json
from mgoe._util.memory import anonymous_memory
from mgoe.errors import GraphError

FILE = "stages.json"
Advance = Callable[[int], None]
"""Progress callback; receives the units just completed."""


class Observer:
    """Receives the progress of a build. This one ignores it; override what should be shown."""

    def stage(self, name: str, total: int, unit: str) -> Advance:
        """Begin a stage of `total` units, and return its progress callback."""
        return lambda done: None

    def note(self, line: str) -> None:
        """Receive a line that is worth knowing before the build ends."""


@dataclass(frozen=True)
class Spent:
    """What a stage took.

    Attributes:
        seconds: On the clock.
        peak_gib: Most anonymous memory while it ran.
    """

    seconds: float
    peak_gib: float


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
        self.file, self.observer = folder / FILE, observer
        self._record: dict[str, Any] = {"source": source, "done": {}}
        if self.file.exists():
            self._record = read_json(self.file)
            _check_same(folder, self._record["source"], source)
        else:
            write_json(self.file, self._record)

    def pending(self, name: str) -> bool:
        """Return whether a stage is still to be done."""
        return name not in self._record["done"]

    @contextmanager
    def running(self, name: str, total: int, unit: str = "pairs") -> Iterator[Advance]:
        """Time a stage and record it when the block succeeds. A stage that fails starts again next time.

        Args:
            name: Of the stage; in a snapshot, its number and a colon stand before.
            total: Units of work.
            unit: Their name.
        """
        advance = self.observer.stage(name, total, unit)
        started = time.perf_counter()
        with peak_memory() as peak:
            yield advance
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


def _check_same(folder: Path, begun: dict[str, Any], source: dict[str, Any]) -> None:
    """Refuse to resume a build of something else."""
    if begun == source:
        return
    what, fix = source["what"], f"remove {folder.name} (or use --overwrite) to start over"
    if begun["what"] != what:
        rule = f"holds an unfinished {begun['what']}, found a new {what}; finish that, or {fix}"
        raise GraphError(folder, rule)
    if begun["log"] != source["log"]:
        found = f"{begun['log']['events']:,} events then, {source['log']['events']:,} now"
        rule = f"the log changed since this {what} was begun ({found}); restore the log, or {fix}"
        raise GraphError(folder, rule)
    old, new = begun.get("settings", {}), source.get("settings", {})
    changed = [key for key in new if old.get(key) != new[key]] or ["the graph that it starts from"]
    rule = f"an unfinished {what} had other settings ({', '.join(changed)}); restore them, or {fix}"
    raise GraphError(folder, rule)
