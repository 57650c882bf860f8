"""Prefetching: run an iterator ahead of its consumer, in a thread."""

from collections.abc import Generator, Iterable
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TypeVar

Item = TypeVar("Item")

_POLL_SECONDS = 0.05


class _End:
    def __init__(self, error: BaseException | None = None):
        self.error = error


def prefetched(source: Iterable[Item]) -> Generator[Item, None, None]:
    """Yield what `source` yields while a thread keeps the next item ready.

    An error in the source is raised here, in its turn. Closing the generator early (a `break`, an exception
    in the consumer) ends the thread before it returns."""
    queue: Queue[Item | _End] = Queue(1)
    closed = Event()

    def put(item: Item | _End) -> bool:
        while not closed.is_set():
            try:
                queue.put(item, timeout=_POLL_SECONDS)
                return True
            except Full:
                continue
        return False

    def work() -> None:
        try:
            for item in source:
                if not put(item):
                    return
            put(_End())
        except BaseException as error:
            put(_End(error))

    thread = Thread(target=work, name="mgoe-prefetch", daemon=True)
    thread.start()
    try:
        while not isinstance(item := queue.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        closed.set()
        try:  # make room, so that a waiting thread wakes at once
            while True:
                queue.get_nowait()
        except Empty:
            thread.join()
