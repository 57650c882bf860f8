"""Next items: every event of a window is a query over all items that are known at its moment. A list reads
what its user did strictly before. So events at one time know nothing of each other, and their order is not
read.

Baselines are fitted several times in a window, as a service trains anew, to the events before. What a user
did since then is known too. An item that nobody did before the moment is in no list, and counts as missed.

Axes: `E` events of a log, `Q` queries, `I` items, `N` places of a list.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Literal, Self

import ibis
import numpy as np
from numpy.typing import NDArray

from mgoe.data import Prepared
from mgoe.errors import DataError
from mgoe.evaluation import draw_queries
from mgoe.topn.lists import DAY, Asked, Events, Queries, Scores, make_lists

FITS = 24
"""Fits of a baseline in a window, at equal distances in time."""


@dataclass(frozen=True)
class NextItems(Queries):
    """Events that lists are to find, each as if it were a user with one relevant item. `events` are those
    before the first fit.

    Attributes:
        log: User, item, task and time of all events, by user and then by time. Shape (4, E).
        row: The events that are asked for. Shape (Q,).
        fits: When baselines are fitted, rising. Queries before the first one get no list.

    Example:
        >>> asked = NextItems.by_time(prepared, "test", [0, 1], hide=False)
        >>> lists = asked.lists(lambda events: lambda rows: np.ones((len(rows), events.shape[1])), 5)
        >>> lists.shape == (len(asked.row), 5)
        True
    """

    log: NDArray[np.int64]
    row: NDArray[np.int64]
    fits: NDArray[np.int64]

    @classmethod
    def by_time(
        cls, prepared: Prepared, split: Literal["valid", "test"], tasks: Sequence[int], hide: bool
    ) -> Self:
        """Ask for the events of a window, each once, however many tasks it does.

        Args:
            prepared: The log.
            split: The window, or windows.
            tasks: Numbers of the tasks of these events.
            hide: Take known items out of lists. Events on them are then not asked for.
        """
        before = prepared.valid_window + (split == "test")
        end = before + 1 if split == "valid" else len(prepared.cuts)
        table = prepared.history.filter(prepared.history["snapshot"] <= ibis.literal(end)).to_pyarrow()
        log = np.stack([table[name].to_numpy() for name in ("user", "item", "task", "time")], dtype=np.int64)
        wanted = (table["snapshot"].to_numpy() > before) & np.isin(log[2], tasks)
        moments = log[3, wanted] if wanted.any() else np.zeros(1)
        fits = np.linspace(moments.min(), moments.max(), FITS, endpoint=False).astype(np.int64)
        shape = int(prepared.users_at[end]), int(prepared.items_at[end])
        return cls.of_log(log, wanted, fits, shape, len(prepared.tasks), hide, before)

    @classmethod
    def of_log(
        cls,
        log: NDArray[np.int64],
        wanted: NDArray[np.bool_],
        fits: NDArray[np.int64],
        shape: tuple[int, int],
        tasks: int,
        hide: bool,
        snapshot: int = 0,
    ) -> Self:
        """Ask for some events of a log.

        Args:
            log: User, item, task and time of each event, in any order. Shape (4, E).
            wanted: Which events are asked for. Shape (E,).
            fits, hide, snapshot: As the attributes.
            shape, tasks: As those of `Events`.

        Raises:
            DataError: None is.
        """
        order = np.lexsort((log[1], log[3], log[0]))
        (user, item, _, time), kept = (log := log[:, order]), wanted[order]
        if hide:
            by_pair = np.lexsort((time, item, user))
            earliest = by_pair[first_of_runs(user[by_pair], item[by_pair])]
            kept[by_pair] &= time[earliest] == time[by_pair]
        there = np.flatnonzero(kept)
        if not len(there):
            raise DataError(
                "topn",
                "events of the window must be there to be found, found none; move `split.cuts`"
                + (", or let known items stay with `topn.hide_known: false`" if hide else ""),
            )
        row = there[np.unique(first_of_runs(user, time, item)[there], return_index=True)[1]]
        known, each = _known_at(int(fits[0]), log, shape, tasks), np.arange(len(row))
        return cls(known, snapshot, each, each, item[row], hide, log, row, fits)

    def sample(self, users: int, seed: int) -> Self:
        """Return at most so many queries, drawn at random."""
        kept = draw_queries(self.users, users, seed)
        each = np.arange(len(kept))
        return replace(self, users=each, user=each, item=self.item[kept], row=self.row[kept])

    @property
    def whose(self) -> NDArray[np.int64]:
        """The user of each query. Shape (Q,)."""
        return self.log[0, self.row]

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """When each item is first done. Shape (I,)."""
        first = np.full(self.events.shape[1], np.iinfo(np.int64).max)
        np.minimum.at(first, self.log[1], self.log[3])
        return first

    @property
    def unseen(self) -> NDArray[np.bool_]:
        """Which queries ask for an item that nobody did before. Shape (Q,)."""
        return self.first[self.item] >= self.log[3, self.row]

    def parts(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], Events]]:
        """Yield the queries between one fit and the next: their numbers, their rows of `Asked`, and what is
        known of others and of these rows."""
        user, item, task, time = self.log
        begin, since, events = first_of_runs(user), first_of_runs(user, time), self.events
        of_fit = np.searchsorted(self.fits, time[self.row], side="right") - 1
        for fit in np.unique(of_fit[of_fit >= 0]):
            queries = np.flatnonzero(of_fit == fit)
            start, asked = np.unique(since[self.row[queries]], return_inverse=True)
            size = start - begin[start]
            owner = np.repeat(np.arange(len(start)), size)
            known = np.arange(size.sum()) + np.repeat(start - np.cumsum(size), size)
            age = (time[start][owner] - time[known]) / DAY
            shape = len(start), events.shape[1]
            rows = Events(owner, item[known], task[known], age, shape, events.tasks)
            others = _known_at(int(self.fits[fit]), self.log, events.shape, events.tasks)
            yield queries, asked, replace(others, asked=Asked(rows, user[start], time[start]))

    def lists(self, fit: Callable[[Events], Scores], n: int) -> NDArray[np.int64]:
        """Return the list of every query, see `Queries.lists`."""
        lists, nothing = np.full((len(self.row), n), -1, np.int64), np.empty(0, np.int64)
        for queries, rows, events in self.parts():
            assert events.asked is not None
            scores = partial(_of_known, fit(events), self.first, events.asked.moment)
            users = np.arange(len(events.asked.user))
            part = Queries(events, self.snapshot, users, nothing, nothing, self.hide)
            lists[queries] = make_lists(scores, part, n)[rows]
        return lists


def first_of_runs(*columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the first of the rows that are alike, of columns in which these are neighbours.

    Example:
        >>> first_of_runs(np.array([4, 4, 4, 7]), np.array([1, 2, 2, 2]))
        array([0, 1, 1, 3])
    """
    new = np.any([np.diff(column, prepend=column[:1] - 1) != 0 for column in columns], axis=0)
    return np.maximum.accumulate(np.where(new, np.arange(len(new)), 0))


def _known_at(moment: int, log: NDArray[np.int64], shape: tuple[int, int], tasks: int) -> Events:
    """Return the events strictly before a moment."""
    user, item, task, time = log[:, log[3] < moment]
    return Events(user, item, task, (moment - time) / DAY, shape, tasks)


def _of_known(
    scores: Scores, first: NDArray[np.int64], moment: NDArray[np.int64], rows: NDArray[np.int64]
) -> NDArray[np.floating]:
    """Return the scores of rows, -inf where nobody did the item before the row's moment."""
    return np.where(first < moment[rows][:, None], scores(rows), -np.inf)
