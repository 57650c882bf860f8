"""Signals that ask a process to stop, put off to a moment at which nothing is lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ASKED = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Note a request to stop instead of obeying it; it is obeyed when the block ends, however it ends. A second one is obeyed at once.

    A signal that the process ignores (a job in the background, a child of a comparison, whose parent answers Ctrl-C) stays ignored.

    Yields:
        Whether there was one. Outside of the main thread, which alone hears signals, there never is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    heard: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        restore()

    heeded = [number for number in ASKED if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, note) for number in heeded}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        yield lambda: bool(heard)
    finally:
        restore()
        if heard:
            signal.raise_signal(heard[0])
