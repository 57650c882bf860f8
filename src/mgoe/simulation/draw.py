"""Drawing exposures and the behaviours that follow, each chunk of each day independently.

For each exposure: a user, by activity among those who have arrived; an item community, by how the day's
exposures of the user's community are targeted; one of its items, by the day's popularity; device, scenario
and position; then each behaviour with a parent that happened. A share of the exposures shows any item that
has arrived, all equally often, at a random position. A chunk is drawn user after user, so that the data of 20
M users stream through the cache, and then shuffled into its time slots. Where wishes depend on the moment
(`moments.py`), it is shuffled first and drawn in the order of time, and an item may be any that its user
wants.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgoe._util.kernels import kernel
from mgoe.simulation.alias import alias_table, pick, uniform
from mgoe.simulation.moments import WANTED, Moments, make_moments, remember, want
from mgoe.simulation.settings import DEVICE_SHARES
from mgoe.simulation.truth import Truth, looks, position_losses

LOG, CALIBRATION, CHECK = range(3)
"""Streams of random numbers: for the log, and for measurements of the world."""

CHUNK = 1 << 20
"""Rows drawn together."""

MS_PER_DAY = 86_400_000
_DRAWS = np.uint64(32)  # uniform numbers reserved for a row: device, position, 16 behaviours, stay, scenario
_SCENARIO, _WISH = np.uint64(20), np.uint64(21)  # those that draw the scenario, and what the user wants

SESSION, PAUSE = 8, 120_000
"""Rows of a session, and milliseconds between them on average."""


@dataclass(frozen=True)
class Exposures:
    """Rows of an exposure log, with indices in place of ids.

    Attributes:
        user: Shape (N,).
        item: Shape (N,).
        position: From 1. Shape (N,).
        uniform: Whether the item was drawn uniformly at random. Shape (N,).
        task_mask: Bit t is set if behaviour t happened. Shape (N,).
        device: Shape (N,).
        stay: Seconds; NaN without the first behaviour. Shape (N,).
        scenario: Shape (N,).
        time: Milliseconds since the epoch, rising. Shape (N,).
    """

    user: NDArray[np.int32]
    item: NDArray[np.int32]
    position: NDArray[np.int8]
    uniform: NDArray[np.bool_]
    task_mask: NDArray[np.uint16]
    device: NDArray[np.int8]
    stay: NDArray[np.float32]
    scenario: NDArray[np.int8]
    time: NDArray[np.int64]

    def done(self, behavior: int) -> NDArray[np.int8]:
        """Return whether a behaviour happened. Shape (N,)."""
        return (self.task_mask >> behavior & 1).astype(np.int8)


class Day:
    """Tables from which one day is drawn.

    Args:
        truth: The world.
        day: Number of the day.
        stream: Stream of random numbers.
        rows: Exposures of the day, in place of the log's own number.
        moments: What users did before and want now; drawing adds to it. None if the policy decides alone.

    Attributes:
        aims: Alias table of item communities for each user community. Shape (user communities x item
            communities,).
        items: Alias table of items for each item community. Shape (I,).
        arrived: Items that may be drawn uniformly. Shape (n,).
        pages: Part of a page that each item takes, see `Truth.pages`. Shape (2, I), or (2, 0) if positions
            are random.
        offsets: Where each item community starts. Shape (item communities + 1,).
        logits: Shape (scenarios, user communities, item communities, T + 1).
        reached: Summed activity of all present users up to each one. Shape (U,).
    """

    def __init__(
        self,
        truth: Truth,
        day: int,
        stream: int = LOG,
        rows: int | None = None,
        moments: Moments | None = None,
    ):
        popularity = truth.popularity(day)
        aim = truth.aim(day, popularity)
        self.truth, self.day, self.stream, self.moments = truth, day, stream, moments
        self.rows = int(truth.day_rows[day]) if rows is None else rows
        self.offsets = truth.items.offsets(aim.shape[1])
        self.aims = alias_table(aim.ravel(), np.arange(len(aim) + 1) * aim.shape[1])
        self.items = alias_table(popularity, self.offsets)
        self.arrived = np.flatnonzero(popularity) if truth.settings.uniform else np.zeros(0, np.int64)
        self.pages = truth.pages(popularity) if truth.settings.popular_first else np.zeros((2, 0))
        self.logits = truth.logits(day)
        self.reached = np.cumsum(np.where(truth.users.arrival <= day, truth.activity, 0), dtype=np.float64)

    @property
    def chunks(self) -> range:
        """Numbers of the chunks that the day is drawn in."""
        return range(-(-self.rows // CHUNK))

    def exposures(self, chunk: int) -> Exposures:
        """Return everything shown in a chunk, in the order of time.

        Rows are drawn user after user and then shuffled.
        """
        truth, settings = self.truth, self.truth.settings
        n = min(CHUNK, self.rows - chunk * CHUNK)
        keys = np.random.SeedSequence([settings.seed, self.stream, self.day, chunk]).generate_state(
            6, np.uint64
        )
        runs = SESSION if self.moments is not None and self.moments.sessions else 1
        user = np.repeat(_draw_users(keys[0], -(-n // runs), self.reached), runs)[:n]
        item, flags = _draw_items(
            keys[[1, 5]],
            user,
            truth.users.community,
            self.aims,
            self.offsets,
            self.items,
            settings.uniform,
            self.arrived,
        )
        start = int(np.datetime64(settings.start, "ms").astype(np.int64)) + self.day * MS_PER_DAY
        order, time = _draw_order(keys[3], n), _times(keys[4], n, start, chunk * CHUNK, self.rows)
        if runs > 1:
            rng, span, sessions = np.random.default_rng(keys[4]), time[-1] + 1 - time[0], -(-n // SESSION)
            pauses = np.c_[rng.uniform(0, span, sessions), rng.exponential(PAUSE, (sessions, SESSION - 1))]
            moment = time[0] + pauses.cumsum(1).astype(np.int64).ravel()[:n] % span
            order, time = np.argsort(moment, kind="stable"), np.sort(moment)
        if self.moments is not None:
            user, item, flags, order = user[order], item[order], flags[order], np.arange(n)
        position = _draw_positions(keys[2], item, flags, self.pages, settings.positions)
        outcomes = _draw_outcomes(
            keys[2],
            (user, item, time),
            (truth.users.community, truth.items.community),
            (truth.users.bias, truth.items.bias),
            self.logits,
            (np.cumsum(DEVICE_SHARES), truth.device.astype(np.float32)),
            np.cumsum(settings.scenario_shares),
            (position, position_losses(truth).astype(np.float32), looks(truth)),
            np.array(settings.parents),
            settings.stay.noise,
            self.moments,
        )
        columns: list[NDArray[Any]] = [user, item, position, flags, *outcomes]
        return Exposures(*(column[order] for column in columns), time=time)


def draw_log(truth: Truth) -> Iterator[tuple[int, Exposures]]:
    """Yield the log of a world, chunk after chunk, each with its day."""
    moments = make_moments(truth)
    for number in range(truth.settings.days):
        day = Day(truth, number, moments=moments)
        yield from ((number, day.exposures(chunk)) for chunk in day.chunks)


def _draw_users(key: np.uint64, n: int, reached: NDArray[np.float64]) -> NDArray[np.int32]:
    """Return the users of n exposures, rising: sorted uniform numbers, looked up in the summed activity."""
    targets = np.minimum(_rising(key, n, reached[-1]), np.nextafter(reached[-1], 0))
    return np.searchsorted(reached, targets, side="right").astype(np.int32)


@kernel()
def _rising(key, n, end):
    """Return n sorted uniform numbers below `end`: sums of exponential gaps."""
    gaps, total, sorted_ = np.empty(n + 1), 0.0, 0.0
    for k in range(n + 1):
        gaps[k] = -np.log(1 - uniform(key, np.uint64(k)))
        total += gaps[k]
    for k in range(n):
        sorted_ += gaps[k] * (end / total)
        gaps[k] = sorted_
    return gaps[:n]


@kernel()
def _draw_items(keys, user, community, aims, offsets, items, share, arrived):
    """Return items, a share of which is any that has arrived, and which these are."""
    item, flags = np.empty(len(user), np.int32), np.zeros(len(user), np.bool_)
    communities = len(offsets) - 1
    for n in range(len(user)):
        first, second = np.uint64(2 * n), np.uint64(2 * n + 1)
        if share > 0 and uniform(keys[1], first) < share:
            flags[n] = True
            item[n] = arrived[int(uniform(keys[1], second) * len(arrived))]
        else:
            cell = community[user[n]] * communities
            chosen = pick(uniform(keys[0], first), cell, cell + communities, aims) - cell
            item[n] = pick(uniform(keys[0], second), offsets[chosen], offsets[chosen + 1], items)
    return item, flags


@kernel()
def _draw_positions(key, item, flags, pages, positions):
    """Return a random position, within the item's part of the page unless the item was drawn uniformly."""
    position = np.empty(len(item), np.int8)
    for n in range(len(item)):
        place = uniform(key, np.uint64(n) * _DRAWS + np.uint64(1))
        if pages.shape[1] > 0 and not flags[n]:
            place = pages[0, item[n]] + place * pages[1, item[n]]
        position[n] = min(int(place * positions), positions - 1) + 1
    return position


@kernel()
def _draw_order(key, n):
    order = np.arange(n, dtype=np.int32)
    for k in range(n - 1, 0, -1):
        j = int(uniform(key, np.uint64(k)) * (k + 1))
        order[k], order[j] = order[j], order[k]
    return order


@kernel()
def _times(key, n, day_start, first, rows):
    """Return a moment in each of n of the day's `rows` equal slots."""
    time = np.empty(n, np.int64)
    for slot in range(n):
        part = (first + slot + uniform(key, np.uint64(slot))) / rows
        time[slot] = day_start + int(part * MS_PER_DAY)
    return time


@kernel(inner=True)
def _kind(u, ends):
    """Return the kind, of those whose shares end at `ends`, that a uniform number u selects."""
    kind = 0
    while kind < len(ends) - 1 and u >= ends[kind]:
        kind += 1
    return kind


@kernel("pairs", "moments")
def _draw_outcomes(
    key, pairs, communities, biases, logits, devices, scenarios, positions, parents, noise, moments
):
    """Return task mask, device, stay and scenario of each row.

    If wishes depend on the moment, put what a user wants in place of a share of the items.
    """
    device_ends, device_effect = devices
    position, losses, look = positions
    rows, tasks = len(position), len(parents)
    task_mask, device = np.zeros(rows, np.uint16), np.empty(rows, np.int8)
    stay, x = np.full(rows, np.nan, np.float32), np.empty(tasks + 1, np.float32)
    scenario = np.empty(rows, np.int8)
    wishes, weights = np.empty(WANTED, np.int64), np.empty(WANTED)
    for n in range(rows):
        u, counter = pairs[0][n], np.uint64(n) * _DRAWS
        if moments is not None:  # otherwise what it calls is not compiled
            want(moments, u, communities[0][u], pairs[2][n], wishes, weights)
            pairs[1][n] = np.append(wishes, pairs[1][n])[
                _kind(uniform(key, counter + _WISH), np.append(weights.cumsum(), 1))
            ]
        i = pairs[1][n]
        s = _kind(uniform(key, counter + _SCENARIO), scenarios)
        d = _kind(uniform(key, counter), device_ends)
        for t in range(tasks + 1):
            x[t] = logits[s, communities[0][u], communities[1][i], t] + biases[0][u, t] + biases[1][i, t]
        scenario[n], device[n], p = s, d, position[n] - 1
        done = 0
        for t in range(tasks):
            if t == 0 or done >> parents[t] & 1:
                q = 1 / (1 + np.exp(-(x[t] + device_effect[t, d] - (losses[p] if t == 0 else 0))))
                if t == 0:
                    q *= look[p]
                if uniform(key, counter + np.uint64(2 + t)) < q:
                    done |= 1 << t
        task_mask[n] = done
        if done:
            radius = np.sqrt(-2 * np.log(1 - uniform(key, counter + np.uint64(2 + tasks))))
            turn = 2 * np.pi * uniform(key, counter + np.uint64(3 + tasks))
            stay[n] = np.exp(x[tasks] + noise * radius * np.cos(turn))
        if moments is not None and done:
            remember(moments, u, i, pairs[2][n])
    return task_mask, device, stay, scenario
