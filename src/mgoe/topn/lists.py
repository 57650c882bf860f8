"""Top-N lists: whose lists are measured, what is known when they are made, what these users then did, and the
best items of each, in a fixed order, with or without what the user knows.

Equal scores are ordered by popularity, most popular first, then by index. So a user about whom a recommender
knows nothing gets popular items, and a list never depends on the machine.

Axes: `E` events, `U` users, `I` items, `Q` users that are asked for, `P` relevant pairs,
`N` places of a list.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Self

import ibis
import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from mgoe.data import Prepared
from mgoe.errors import DataError, TrainingError
from mgoe.evaluation import draw_queries

DAY = 86_400_000_000
"""Microseconds."""
FORGOTTEN = 1e-6
"""Weight from which an event counts as forgotten: its pair is no entry of the matrix."""
Scores = Callable[[NDArray[np.int64]], NDArray[np.floating]]
"""Users, or rows of `Asked`, (B,) to one score per item (B, I)."""
CELLS = 1 << 23
"""Scores that are held at a time."""


@dataclass(frozen=True)
class Events:
    """What was done before lists are made, one row per event and task.

    Attributes:
        user, item, task: By index. Shape (E,).
        age: Days between the event and the latest one. Shape (E,).
        shape: Number of users, those without events included, and of items that are known, U and I.
        tasks: Number of tasks, ordered weakest to strongest.
        asked: Who gets a list, and what is known of them; by default the users, of whom the events are known.

    Example:
        >>> user, item, task = np.array([0, 0, 1]), np.array([0, 1, 1]), np.array([0, 0, 0])
        >>> events = Events(user, item, task, age=np.array([7.0, 0.0, 0.0]), shape=(2, 2), tasks=1)
        >>> events.matrix(half_life=7).toarray().round(2).tolist()
        [[0.41, 0.69], [0.0, 0.69]]
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    task: NDArray[np.int64]
    age: NDArray[np.float64]
    shape: tuple[int, int]
    tasks: int
    asked: "Asked | None" = None

    @property
    def profiles(self) -> "Events":
        """What is known of those who get a list, the rows that scores are asked for."""
        return self if self.asked is None else self.asked.events

    def matrix(self, half_life: float = np.inf, task: int | None = None) -> sp.csr_array:
        """Return `ln(1 + events)` of each user and item, where an event of age `a` counts 2^(-a / half_life).

        Args:
            half_life: Days; by default every event counts fully.
            task: Only events of this task; of all tasks by default.

        Returns:
            Shape (U, I), float32, without explicit zeros.
        """
        weight = np.exp2(-self.age / half_life)
        kept = weight > FORGOTTEN if task is None else (weight > FORGOTTEN) & (self.task == task)
        found = sp.coo_array((weight[kept], (self.user[kept], self.item[kept])), self.shape).tocsr()
        return sp.csr_array(
            (np.log1p(found.data).astype(np.float32), found.indices, found.indptr), self.shape
        )


class Asked(NamedTuple):
    """Rows that get a list as of a moment each, which may be later than all events that others are known by.

    Attributes:
        events: What is known of each row, whose number stands for the user. Ages are those at its moment.
        user: Whose row it is. Shape (R,).
        moment: Microseconds since 1970. Shape (R,).
    """

    events: Events
    user: NDArray[np.int64]
    moment: NDArray[np.int64]


@dataclass(frozen=True)
class Queries:
    """Users who get a list, and the items that are relevant to each.

    Attributes:
        events: What is known.
        snapshot: Number of the snapshot of the macro graph at which a model knows the same.
        users: Rising. Shape (Q,).
        user, item: Relevant pairs, each once, ordered by user. Shape (P,).
        hide: Whether items that a user did before leave the list.
    """

    events: Events
    snapshot: int
    users: NDArray[np.int64]
    user: NDArray[np.int64]
    item: NDArray[np.int64]
    hide: bool

    @classmethod
    def by_time(
        cls, prepared: Prepared, split: Literal["valid", "test"], tasks: Sequence[int], hide: bool
    ) -> Self:
        """Ask for every user who does something in a window; what came before its snapshot is known.

        Of several test windows, lists are made before the first. Items that nobody did before are neither in
        a list nor relevant.

        Args:
            prepared: The log.
            split: The window.
            tasks: Numbers of the tasks that make an item relevant.
            hide: Take known items out of lists. They are then not relevant either.
        """
        snapshot = prepared.valid_window + (split == "test")
        events = events_until(prepared, snapshot)
        window = prepared.examples(split)
        done = (window.labels[:, list(tasks)] > 0).any(axis=1) & (window.user >= 0)
        done &= (window.item >= 0) & (window.item < events.shape[1])
        return cls.of(events, snapshot, window.user[done], window.item[done], hide)

    @classmethod
    def held_out(
        cls, prepared: Prepared, user: NDArray[np.int64], item: NDArray[np.int64], hide: bool
    ) -> Self:
        """Ask for users whose last item is not in the log; all of the log is known.

        Args:
            prepared: The log without what is held out.
            user, item: The held-out pairs by index, -1 where the log does not know them.
            hide: Take known items out of lists.
        """
        there = (user >= 0) & (item >= 0)
        snapshot = len(prepared.cuts)
        return cls.of(events_until(prepared, snapshot), snapshot, user[there], item[there], hide)

    @classmethod
    def of(
        cls, events: Events, snapshot: int, user: NDArray[np.int64], item: NDArray[np.int64], hide: bool
    ) -> Self:
        """Return queries about the users of relevant pairs, which may repeat.

        Raises:
            DataError: No pair is relevant.
        """
        if hide:
            items = events.shape[1]
            new = ~np.isin(user * items + item, events.user * items + events.item)
            user, item = user[new], item[new]
        if not len(user):
            raise DataError(
                "topn",
                "a user must do something to be found after the snapshot, found none; move `split.cuts`"
                + (", or let known items stay with `topn.hide_known: false`" if hide else ""),
            )
        pairs = np.unique(np.stack([user, item]).astype(np.int64), axis=1)
        return cls(events, snapshot, np.unique(pairs[0]), pairs[0], pairs[1], hide)

    @property
    def whose(self) -> NDArray[np.int64]:
        """The user whose influence on measures each row of lists adds to. Shape (Q,)."""
        return self.users

    def lists(self, fit: Callable[[Events], Scores], n: int) -> NDArray[np.int64]:
        """Return the lists of a recommender, see `make_lists`.

        Args:
            fit: Fits it to events.
            n: Places of a list, N.
        """
        return make_lists(fit(self.events), self, n)

    def sample(self, users: int, seed: int) -> Self:
        """Return the queries of at most so many users, drawn at random."""
        chosen = draw_queries(self.users, users, seed)
        kept = np.isin(self.user, chosen)
        return replace(self, users=chosen, user=self.user[kept], item=self.item[kept])


def events_until(prepared: Prepared, snapshot: int) -> Events:
    """Return the events of a log that a snapshot knows."""
    columns = ["user", "item", "task", "time", "snapshot"]
    table = (
        prepared.history.filter(prepared.history["snapshot"] <= ibis.literal(snapshot))
        .select(*columns)
        .to_pyarrow()
    )
    user, item, task, time = (table[name].to_numpy().astype(np.int64) for name in columns[:-1])
    shape = int(prepared.users_at[-1]), int(prepared.items_at[snapshot])
    age = (time.max(initial=0) - time) / DAY
    return Events(user, item, task, age, shape, len(prepared.tasks))


def make_lists(scores: Scores, queries: Queries, n: int) -> NDArray[np.int64]:
    """Return the best items of every user that is asked for.

    Args:
        scores: Of a recommender.
        queries: The users.
        n: Places of a list, N.

    Returns:
        Items by index, best first, -1 where a list ends earlier. Shape (Q, N).
    """
    known, places = queries.events.profiles.matrix(), popularity_places(queries.events)
    at_once = max(1, CELLS // queries.events.shape[1])
    found = np.full((len(queries.users), n), -1, np.int64)
    for start in range(0, len(queries.users), at_once):
        users = queries.users[start : start + at_once]
        block = np.array(scores(users), np.float32)
        if queries.hide:
            block[known[users].nonzero()] = -np.inf
        for place, row in enumerate(block, start):
            best = best_items(row, places, n)
            found[place, : len(best)] = best
    return found


def best_items(scores: NDArray[np.floating], places: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return the indices of the best scores, best first; those of -inf are left out.

    Args:
        scores: Shape (I,).
        places: Orders equal scores, the smallest first. Shape (I,).
        n: How many at most.

    Raises:
        TrainingError: A score is no number.

    Example:
        >>> best_items(np.array([0.5, 0.9, 0.5, -np.inf]), places=np.array([1, 2, 0, 3]), n=3)
        array([1, 2, 0])
    """
    n = min(n, len(scores))
    if np.isnan(scores).any():
        raise TrainingError("topn", "scores must be numbers, found NaN; narrow the searched settings")
    smallest = torch.topk(torch.from_numpy(scores), n).values[-1].item()  # much faster than NumPy's partition
    least = max(smallest, np.finfo(np.float32).min)
    reached = np.flatnonzero(scores >= least)
    return reached[np.lexsort((places[reached], -scores[reached]))][:n]


def popularity_places(events: Events) -> NDArray[np.int64]:
    """Return the place of each item when all are ordered by their number of events. Shape (I,)."""
    order = np.argsort(-np.bincount(events.item, minlength=events.shape[1]), kind="stable")
    return np.argsort(order)
