"""Running ahead of a consumer, in threads: the next results are ready when they are asked for."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice, repeat, takewhile
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_turn(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int, most: int
) -> Generator[Result, None, None]:
    """Yield what `work` makes of each item, in order, while threads work on the following items.

    An error is raised here, in its turn. Closing the generator early (a `break`, an exception in the
    consumer) ends the threads before it returns.

    Args:
        work: Called in a thread.
        items: Taken one by one, by the consumer's thread.
        threads: How many work.
        most: Items that are taken and not yielded yet.
    """
    pool = ThreadPoolExecutor(threads, "mgoe-prefetch")
    try:
        started = (pool.submit(work, item) for item in items)
        waiting = deque(islice(started, most))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(islice(started, 1))
    finally:
        pool.shutdown(cancel_futures=True)


def prefetched(source: Iterable[Item]) -> Generator[Item, None, None]:
    """Yield what `source` yields while a thread keeps the next two items ready.

    Errors and closing as for `in_turn`.
    """
    end: Any = object()
    with closing(in_turn(partial(next, iter(source)), repeat(end), threads=1, most=2)) as items:
        yield from takewhile(lambda item: item is not end, items)
