"""A world that answers: users visit a service, see the pages that it makes, and act by the truth.

A user opens sessions over days, leaves earlier if a page was poor, comes back more if it was good, and tires
of what was shown before. Random numbers are keyed by user, day, session, page and item, so two policies on
one world differ by what they show and by nothing else. What happens is reported as a shop would report it:
exposures with their labels when a page is left, later labels when they become known, some of them never.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import expit, ndtri

from mgoe.config import Settings
from mgoe.errors import ConfigError
from mgoe.simulation.alias import uniforms
from mgoe.simulation.chance import pair_logits
from mgoe.simulation.content import contents
from mgoe.simulation.settings import DEVICE_SHARES, DEVICES
from mgoe.simulation.truth import Truth, looks, position_losses

SECOND = 1_000_000
"""Microseconds."""
DAY = 86_400 * SECOND
LOOK, PAUSE = 3 * SECOND, 30 * SECOND
"""How long a user looks at an item, and on average between two pages."""
MEMORY = 0.8
"""Share of the mood of a user that outlives a page."""
BUSIEST = 8.0
"""Sessions that a user opens on a day on average, at most."""
PAGE_BYTES, SHOWN_BYTES, PAIR_BYTES = 1_200, 120, 110
"""Memory of a page until its day is over, of an item on it, and of an item that a user has ever seen."""
_DAY, _SESSION, _PAGE, _PRICE = range(4)  # streams of random numbers


class VisitSettings(Settings):
    """How users visit a service, and what they make of its pages.

    Example:
        >>> VisitSettings(fatigue=0).next_page
        0.6
    """

    seed: int = Field(default=0, ge=0)
    """The same seed draws the same visits."""
    sessions: float = Field(default=0.4, gt=0, le=BUSIEST)
    """Sessions that an average user opens on a day, before any page was good or poor."""
    next_page: float = Field(default=0.6, gt=0, lt=1)
    """Probability that a user asks for another page after one with as many clicks as is usual."""
    patience: float = Field(default=0.3, ge=0, le=5)
    """Logits of `next_page` per click more or less than usual."""
    loyalty: float = Field(default=0.1, ge=0, le=2)
    """How fast the sessions of a user grow: by exp(loyalty x clicks per page more than usual)."""
    fatigue: float = Field(default=0.5, ge=0, le=5)
    """Logits of the first behaviour that an item loses each time that the number of times it was shown to
    the user doubles."""
    lifetime: int | None = Field(default=None, ge=1)
    """Days after which an item that arrived later than the first day is withdrawn; None for never."""
    delay: float = Field(default=1.0, gt=0, le=1_000)
    """Hours until half of the behaviours after the first have happened."""
    loss: float = Field(default=0.0, ge=0, lt=1)
    """Share of reports, of pages and of later labels, that never reach the service."""
    price_spread: float = Field(default=0.7, ge=0, le=3)
    """Standard deviation of the logarithm of prices, whose median is 1; no model sees them."""


class Page(NamedTuple):
    """A request for a page.

    Attributes:
        time: Microseconds since the epoch.
        user: Index.
        day, session, number: Of the world, of the user's day, and of the session; all from 0.
        device: Number in `DEVICES`.
    """

    time: int
    user: int
    day: int
    session: int
    number: int
    device: int

    @property
    def request(self) -> str:
        """The id of the request."""
        return f"{self.day}-{self.user}-{self.session}-{self.number}"


class Report(NamedTuple):
    """What becomes known of a page: the records of a request to `/v1/events`."""

    exposures: list[dict[str, Any]]
    labels: list[dict[str, Any]]


@dataclass(frozen=True)
class Outcomes:
    """What truly happened on a page, reported or not.

    Attributes:
        page: The request.
        items: Indices. Shape (k,).
        done: Whether each behaviour happened. Shape (k, T).
        stay: Seconds; 0 without the first behaviour. Shape (k,).
        value: Price of what was done last in the funnel; 0 otherwise. Shape (k,).
    """

    page: Page
    items: NDArray[np.int64]
    done: NDArray[np.bool_]
    stay: NDArray[np.float64]
    value: NDArray[np.float64]


@dataclass
class Visits:
    """The users of a world, and what they remember.

    Args:
        truth: The world.
        settings: How they visit.

    Raises:
        ConfigError: What users of this world want depends on the moment, or on the scenario.

    Attributes:
        shown: How often each user saw each item.
        mood: Clicks per page more than usual, of late. Shape (U,).
        price: Shape (I,).

    Example:
        >>> from mgoe.simulation import WorldSettings, make_truth
        >>> few = {"users": 30, "items": 20, "exposures": 300, "days": 5}
        >>> small = WorldSettings(**few, user_communities=2, item_communities=2)
        >>> visits = Visits(make_truth(small), VisitSettings())
        >>> visits.open(day=2)
        >>> page = visits.next_page()
        >>> visits.show(page, np.arange(3)).done.shape
        (3, 4)
    """

    truth: Truth
    settings: VisitSettings
    shown: defaultdict[int, Counter[int]] = field(default_factory=lambda: defaultdict(Counter), init=False)
    mood: NDArray[np.float64] = field(init=False)
    price: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        world = self.truth.settings
        if world.at_moments or len(world.scenarios) > 1:
            raise ConfigError(
                "world",
                "users answer a service in a world without lives, trends, repeats, sessions and several "
                "scenarios, found one with them; simulate another",
            )
        self._pages = list[tuple[Page, frozenset[int]]]()
        self._reports = list[tuple[int, int, Report]]()
        self._sent = 0
        self._rate = np.minimum(
            self.settings.sessions * self.truth.activity / self.truth.activity.mean(), BUSIEST
        )
        self._usual = world.positions * world.behaviors[0].rate
        self.mood = np.zeros(len(self.truth.users))
        rng = np.random.default_rng([self.settings.seed, _PRICE])
        self.price = np.exp(self.settings.price_spread * rng.standard_normal(len(self.truth.items)))

    def start_of(self, day: int) -> int:
        """Return when a day begins, in microseconds since the epoch."""
        return int(np.datetime64(self.truth.settings.start, "us").astype(np.int64)) + day * DAY

    def date_of(self, day: int) -> date:
        """Return the date of a day."""
        return self.truth.settings.start + timedelta(days=day)

    def day_after(self, moment: str) -> int:
        """Return the number of the day after a moment in ISO 8601.

        Raises:
            ConfigError: The moment is before the world begins.
        """
        day, start = datetime.fromisoformat(moment).date(), self.truth.settings.start
        if day < start:
            raise ConfigError(
                "--serve",
                f"the bundle's newest row must be of the world, which begins on {start}, found {day}; serve "
                "a bundle that was trained on the log of this world",
            )
        return (day - start).days + 1

    def needed_memory(self, days: int) -> int:
        """Return about how many bytes days take: all that users were shown, and the pages of one day."""
        pages, positions = self._rate / (1 - self.settings.next_page), self.truth.settings.positions
        seen = np.minimum(days * pages * positions, len(self.truth.items))
        return int(pages.sum() * (PAGE_BYTES + positions * SHOWN_BYTES) + seen.sum() * PAIR_BYTES)

    def changes(self, day: int, features: Sequence[str], is_first: bool = False) -> list[dict[str, Any]]:
        """Return the records of items for `/v1/items` on a day: those that arrive, and those that go.

        Args:
            day: Number of the day.
            features: What the service knows of items. Of these the world has `content`.
            is_first: Whether nothing was said of earlier days, so that all go that are gone by now.
        """
        ids, arrival = self.truth.item_ids, self.truth.items.arrival
        new = np.flatnonzero(arrival == day) if day else np.zeros(0, np.int64)
        gone = np.flatnonzero(self._end <= day if is_first else self._end == day)
        records: list[dict[str, Any]] = [{"item": int(item)} for item in ids.of(new)]
        if "content" in features:
            vectors = contents(self.truth, "item")
            for record, item in zip(records, new, strict=True):
                record["features"] = {"content": vectors[item].astype(float).tolist()}
        return records + [{"item": int(item), "withdrawn": True} for item in ids.of(gone)]

    def alive(self, day: int) -> NDArray[np.int64]:
        """Return the items that may be shown on a day. Shape (n,)."""
        return np.flatnonzero(self._is_there(day))

    def _is_there(self, day: int) -> NDArray[np.bool_]:
        return (self.truth.items.arrival <= day) & (day < self._end)

    @cached_property
    def _end(self) -> NDArray[np.int64]:
        """Return the day on which each item goes. Shape (I,)."""
        arrival, lifetime = self.truth.items.arrival.astype(np.int64), self.settings.lifetime
        return np.where(
            (arrival > 0) & (lifetime is not None), arrival + (lifetime or 0), np.iinfo(np.int64).max
        )

    def open(self, day: int) -> None:
        """Let users begin the sessions of a day."""
        from scipy.stats import poisson  # slow to import

        u = self._uniform(_DAY, day).random(len(self.truth.users))
        rate = np.minimum(self._rate * np.exp(self.settings.loyalty * self.mood), BUSIEST)
        sessions = np.where(self.truth.users.arrival <= day, poisson.ppf(u, rate), 0).astype(int)
        for user in np.flatnonzero(sessions):
            for session in range(sessions[user]):
                rng = self._uniform(_SESSION, day, int(user), session)
                begin, device = rng.random(2)
                time = self.start_of(day) + int(begin * DAY)
                kind = int(np.searchsorted(np.cumsum(DEVICE_SHARES)[:-1], device, side="right"))
                heapq.heappush(self._pages, (Page(time, int(user), day, session, 0, kind), frozenset()))

    def next_page(self) -> Page | None:
        """Return the next request of the day; None if there is none."""
        return self._pages[0][0] if self._pages else None

    def seen(self, page: Page) -> list[int]:
        """Return the items that the session of the next request has shown, as ids."""
        assert self._pages[0][0] == page
        return self.truth.item_ids.of(np.array(sorted(self._pages[0][1]), np.int64)).tolist()

    def due(self, time: int) -> list[Report]:
        """Take the reports that reach the service before a time."""
        taken = list[Report]()
        while self._reports and self._reports[0][0] < time:
            taken.append(heapq.heappop(self._reports)[2])
        return taken

    def click_chances(self, page: Page, items: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the probability of the first behaviour at the first position. Shape (N,)."""
        return expit(self._logits(page, items)[:, 0])

    def _logits(self, page: Page, items: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the logit of each behaviour at the first position, and the mean log stay.

        Shape (N, T + 1).
        """
        user, day = np.full(len(items), page.user), np.full(len(items), page.day)
        logits = pair_logits(self.truth, user, items, day, 0)
        logits[:, :-1] += self.truth.device[:, page.device]
        seen = self.shown[page.user]
        logits[:, 0] -= self.settings.fatigue * np.log2(1 + np.array([seen[i] for i in items.tolist()]))
        return logits

    def show(self, page: Page, items: NDArray[np.int64]) -> Outcomes:
        """Show the next request's page, and let its user act.

        Args:
            page: What `next_page` returned.
            items: Indices, the first position first. Shape (k,).
        """
        taken, before = heapq.heappop(self._pages)
        assert taken == page
        world, k = self.truth.settings, len(items)
        rng = self._uniform(_PAGE, page.day, page.user, page.session, page.number)
        leaves, pause = rng.random(2)
        keys = rng.bit_generator.random_raw()
        u = _numbers(keys, items, len(world.behaviors) + 4)
        place = np.minimum(np.arange(k), world.positions - 1)
        logits = self._logits(page, items)
        logits[:, 0] -= position_losses(self.truth)[place]
        chance = expit(logits[:, :-1])
        chance[:, 0] *= looks(self.truth)[place] * self._is_there(page.day)[items]
        done = u[:, : len(world.behaviors)] < chance
        for t, parent in enumerate(world.parents):
            if t:
                done[:, t] &= done[:, parent]
        stay = np.where(done[:, 0], np.exp(logits[:, -1] + world.stay.noise * ndtri(u[:, -1])), 0)
        self.shown[page.user].update(items.tolist())
        clicks = int(done[:, 0].sum())
        self.mood[page.user] += (1 - MEMORY) * (clicks - self._usual - self.mood[page.user])
        left = page.time + LOOK * k
        self._report(page, items, done, stay, u[:, -4:-1], left)
        following = page._replace(time=left - int(np.log1p(-pause) * PAUSE), number=page.number + 1)
        odds = np.log(self.settings.next_page) - np.log1p(-self.settings.next_page)
        goes_on = leaves < expit(odds + self.settings.patience * (clicks - self._usual))
        if goes_on and k and following.time < self.start_of(page.day + 1):
            heapq.heappush(self._pages, (following, before | set(items.tolist())))
        return Outcomes(page, items, done, stay, self.price[items] * done[:, -1])

    def _report(
        self,
        page: Page,
        items: NDArray[np.int64],
        done: NDArray[np.bool_],
        stay: NDArray[np.float64],
        u: NDArray[np.float64],
        left: int,
    ) -> None:
        """Have exposures and labels reach the service when they are known, unless they are lost."""
        names, ids = self.truth.settings.names, self.truth.item_ids.of(items).tolist()
        user = int(self.truth.user_ids.of(np.array([page.user]))[0])
        common = {"request": page.request, "time": page.time}
        exposures = [
            {
                **common,
                "user": user,
                "item": item,
                "position": place,
                "context": {"device": DEVICES[page.device]},
            }
            for place, item in enumerate(ids)
        ]
        labels = [
            {
                "request": page.request, "item": item, "time": left,
                "labels": {name: int(t == 0 and done[n, 0]) for t, name in enumerate(names)}
                | ({"stay": float(stay[n])} if done[n, 0] else {}),
            }
            for n, item in enumerate(ids)
        ]  # fmt: skip
        if len(items) and u[0, 2] >= self.settings.loss:
            self._send(left, Report(exposures, labels))
        for n, t in zip(*np.nonzero(done[:, 1:]), strict=True):
            if u[n, 1] >= self.settings.loss:
                known = left + int(-np.log2(1 - u[n, 0]) * self.settings.delay * 3_600 * SECOND) + int(t)
                one = {"request": page.request, "item": ids[n], "time": known, "labels": {names[t + 1]: 1}}
                self._send(known, Report([], [one]))

    def _send(self, time: int, report: Report) -> None:
        heapq.heappush(self._reports, (time, self._sent, report))
        self._sent += 1

    def _uniform(self, *key: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([self.truth.settings.seed, self.settings.seed, *key]))


def _numbers(key: int, items: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """Return n uniform numbers of each item, whatever the others are. Shape (k, n)."""
    counter = items[:, None].astype(np.uint64) * np.uint64(n) + np.arange(n, dtype=np.uint64)
    return uniforms(np.uint64(key), counter)
