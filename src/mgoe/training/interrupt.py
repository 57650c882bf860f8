"""Defer signals that ask a process to stop until nothing is lost."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

REQUESTS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Record a request to stop, and obey it when the block ends. A second request takes effect at once.

    A signal that the process ignores stays ignored, as in a background job or in a child process of a
    comparison, whose parent handles Ctrl-C.

    Yields:
        Function that returns whether there was a request. Only the main thread receives signals; elsewhere it
        returns False.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        restore()

    handled = [number for number in REQUESTS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, note) for number in handled}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        yield lambda: bool(received)
    finally:
        restore()
        if received:
            signal.raise_signal(received[0])
