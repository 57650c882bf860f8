"""Stages of a build: each is done once, timed, and recorded, so that a build which was killed goes on after the last that was done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mgoe._util.files import GIB, read_json, write_json

FILE = "stages.json"
Advance = Callable[[int], None]
"""Told of each part of a stage that is done."""


class Observer(Protocol):
    """Who is told how far a build is."""

    def stage(self, name: str, total: int, unit: str) -> Callable[[int], None]:
        """A stage begins. Returns what is called with each part of the total that is done."""
        ...

    def note(self, line: str) -> None:
        """Something worth knowing before it is too late."""
        ...


class Silent:
    """Tells nobody."""

    def stage(self, name: str, total: int, unit: str) -> Callable[[int], None]:
        """See `Observer`."""
        return lambda done: None

    def note(self, line: str) -> None:
        """See `Observer`."""


@dataclass(frozen=True)
class Spent:
    """What a stage took.

    Attributes:
        seconds: On the clock.
        peak_gib: Most anonymous memory while it ran; 0 where the system does not tell.
    """

    seconds: float
    peak_gib: float


class Stages:
    """The record of a build, in the folder that it writes.

    Args:
        folder: Where `stages.json` lies.
        observer: Told of each stage.
        source: What the build is made of; another one may not go on with it.
    """

    def __init__(self, folder: Path, observer: Observer, source: Any = None):
        self.file, self.observer = folder / FILE, observer
        self._record: dict[str, Any] = {"source": source, "done": {}}
        if self.file.exists():
            self._record = read_json(self.file)
        else:
            write_json(self.file, self._record)

    @property
    def source(self) -> Any:
        """What the build was begun with."""
        return self._record["source"]

    def run(
        self, name: str, total: int, work: Callable[[Callable[[int], None]], None], unit: str = "pairs"
    ) -> None:
        """Do a stage unless it is done. It has to begin anew when it was cut off."""
        if name in self._record["done"]:
            return
        advance = self.observer.stage(name, total, unit)
        started = time.perf_counter()
        with peak_memory() as peak:
            work(advance)
        self._record["done"][name] = {"seconds": time.perf_counter() - started, "peak_gib": peak[0] / GIB}
        write_json(self.file, self._record)

    @property
    def spent(self) -> dict[str, Spent]:
        """Of each kind of stage, over all snapshots."""
        out: dict[str, Spent] = {}
        for name, took in self._record["done"].items():
            kind = name.split(": ")[-1]
            before = out.get(kind, Spent(0, 0))
            out[kind] = Spent(before.seconds + took["seconds"], max(before.peak_gib, took["peak_gib"]))
        return out


@contextmanager
def peak_memory(every: float = 0.05) -> Iterator[list[int]]:
    """The most anonymous memory (bytes) of this process meanwhile, as the single entry of a list."""
    peak, stop = [anonymous()], threading.Event()

    def watch() -> None:
        while not stop.wait(every):
            peak[0] = max(peak[0], anonymous())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        stop.set()
        watcher.join()
        peak[0] = max(peak[0], anonymous())


def anonymous() -> int:
    """Anonymous memory of this process in bytes, mapped files aside; 0 where the system does not tell."""
    try:
        with open("/proc/self/status") as status:
            return next((int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon")), 0)
    except OSError:
        return 0
