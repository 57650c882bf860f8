"""Settings of a simulated world."""

from datetime import date
from typing import Annotated, Self

from pydantic import Field, model_validator

from mgoe.config import Settings, did_you_mean

DEVICES = ("phone", "desktop", "tablet")
"""Devices on which items are shown."""
DEVICE_SHARES = (0.65, 0.25, 0.1)


class BehaviorSettings(Settings):
    """One step of the funnel: how often it happens, and what it depends on.

    Example:
        >>> BehaviorSettings(name="buy", given="cart", rate=0.4).strength
        1.0
    """

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    """Name of the behaviour."""
    given: str | None = None
    """The earlier behaviour that this one requires; the first behaviour by default."""
    rate: float = Field(gt=0, lt=1)
    """Share of `given` that it follows, over the whole log; for the first behaviour, share of the
    exposures."""
    strength: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Standard deviation of the affinities between communities, in logits."""
    correlation: float = Field(default=0.6, ge=-1, le=1)
    """Correlation of its affinities with those of the first behaviour; negative for opposed tastes."""
    user_spread: float = Field(default=0.4, ge=0, allow_inf_nan=False)
    """Standard deviation of the propensities of users, in logits."""
    item_spread: float = Field(default=0.4, ge=0, allow_inf_nan=False)
    """Standard deviation of the qualities of items, in logits."""


class StaySettings(Settings):
    """Seconds spent on a clicked item: log-normal, with a logarithm composed like the logit of a
    behaviour.

    Example:
        >>> StaySettings(median=40.0).noise
        0.8
    """

    median: float = Field(default=25.0, gt=0, allow_inf_nan=False)
    """Median number of seconds."""
    strength: float = Field(default=0.5, ge=0, allow_inf_nan=False)
    """As `strength` of a behaviour."""
    correlation: float = Field(default=0.7, ge=-1, le=1)
    """As `correlation` of a behaviour."""
    user_spread: float = Field(default=0.3, ge=0, allow_inf_nan=False)
    """As `user_spread` of a behaviour."""
    item_spread: float = Field(default=0.3, ge=0, allow_inf_nan=False)
    """As `item_spread` of a behaviour."""
    noise: float = Field(default=0.8, ge=0, allow_inf_nan=False)
    """Standard deviation of the unexplained part."""


class WorldSettings(Settings):
    """A world of users and items with known tastes, and how many items are shown to whom.

    Example:
        >>> WorldSettings(users=1000).names
        ('click', 'favour', 'cart', 'buy')
    """

    users: int = Field(default=6_000, ge=1, le=2**31 - 1)
    """Number of users."""
    items: int = Field(default=3_000, ge=1, le=2**31 - 1)
    """Number of items."""
    exposures: int = Field(default=600_000, ge=1)
    """Items shown in all: rows of the exposure log."""
    days: int = Field(default=60, ge=1, le=10_000)
    """Number of days."""
    start: date = date(2025, 3, 1)
    """First day."""
    seed: int = Field(default=0, ge=0)
    """The same seed draws the same log."""

    user_communities: int = Field(default=16, ge=1, le=10_000)
    """Number of communities of users."""
    item_communities: int = Field(default=24, ge=1, le=10_000)
    """Number of communities of items."""
    skew: float = Field(default=0.5, ge=0, le=3)
    """The size of a community falls as its rank to this power; 0 makes all sizes equal."""
    behaviors: list[BehaviorSettings] = Field(
        default=[
            BehaviorSettings(name="click", rate=0.25, strength=1.2, correlation=1.0),
            BehaviorSettings(name="favour", rate=0.2),
            BehaviorSettings(name="cart", rate=0.2),
            BehaviorSettings(name="buy", given="cart", rate=0.45),
        ],
        min_length=1,
        max_length=16,
    )
    """The funnel, which starts with the first behaviour."""
    stay: StaySettings = StaySettings()
    """Seconds spent on a clicked item."""

    activity: float = Field(default=0.5, ge=0, le=2)
    """The exposures of a user fall as rank to this power, so that they are heavy-tailed."""
    popularity: float = Field(default=0.8, ge=0, le=2)
    """The popularity of an item falls as rank to this power (Zipf)."""
    personalized: float = Field(default=0.5, ge=0, le=1)
    """Share of exposures targeted at the community's taste; the others follow popularity alone."""
    targeting: float = Field(default=1.0, ge=0, le=5)
    """How sharply: targeted exposures follow popularity times exp(targeting x affinity of the first
    behaviour)."""
    positions: int = Field(default=10, ge=1, le=100)
    """Positions on a page, all equally frequent."""
    position_effect: float = Field(default=0.3, ge=0, le=5)
    """The first behaviour loses position_effect x ln(position) logits."""
    examination: float = Field(default=0.0, ge=0, le=5)
    """A user looks at position k with probability k^-examination, and does nothing on what is not looked at;
    0 means that everything shown is looked at."""
    popular_first: bool = False
    """Whether popular items are shown at the first positions, the least popular at the last; otherwise
    positions are random."""
    uniform: float = Field(default=0.0, ge=0, le=1)
    """Share of exposures of an item drawn uniformly at random, at a random position, which the exposure log
    marks in the column `uniform`."""
    device_spread: float = Field(default=0.15, ge=0, le=5)
    """Standard deviation of the device's effect, in logits."""
    scenarios: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(default=[], max_length=100)
    """How often each scenario (a page of an app, for instance) is the place of an exposure, relative to the
    others; empty for a single one. What is shown does not depend on it, and neither does the stay. If there
    are several, the exposure log names it in the column `scenario`: `s0`, `s1`, ..."""
    scenario_correlation: float = Field(default=0.0, ge=-1, le=1)
    """Correlation of the affinities in each further scenario with those in `s0`; negative for opposed
    tastes."""

    affinity_drift: float = Field(default=0.3, ge=0, le=1)
    """How far affinities change from the first day to the last; at 1 they end unrelated to the first day."""
    popularity_drift: float = Field(default=0.3, ge=0, le=1)
    """The same for popularity."""
    arriving_users: float = Field(default=0.2, ge=0, le=1)
    """Share of users that arrive after the first day."""
    arriving_items: float = Field(default=0.2, ge=0, le=1)
    """Share of items that arrive after the first day."""
    growth: float = Field(default=1.0, gt=0, le=20)
    """Share of arrivals within a share x of the days: x to this power. Above 1, most arrive late."""
    lives: float = Field(default=0.0, ge=0, lt=1)
    """Share of the exposures, of users of every second community, that shows new items: born at any time,
    wanted most at first, and less and less within days."""
    trends: float = Field(default=0.0, ge=0, lt=1)
    """Share of the exposures, of users of every second pair of communities, that shows items that are wanted
    now, for 12 hours, 2 days or 2 weeks."""
    repeats: float = Field(default=0.0, ge=0, lt=1)
    """Share of the exposures that shows items that their user did about 2, 4 or 8 days ago (it depends on the
    item's community), if any is due."""
    sessions: float = Field(default=0.0, ge=0, lt=1)
    """Share of the exposures, within half an hour of the user's last event, that shows one of the three items
    that follow its item. Above 0, exposures of a user come in sessions."""
    content: float | None = Field(default=None, ge=0, le=1)
    """Correlation of a taste with the best reading of it from the vectors of users and items, which are
    written if it is set; 0 writes vectors that tell nothing."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        names = self.names
        for position, behavior in enumerate(self.behaviors):
            if behavior.name in names[:position] or behavior.name in (
                "stay",
                "position",
                "device",
                "uniform",
                "scenario",
            ):
                raise ValueError(
                    f"behaviors need different names, found {behavior.name!r} twice or taken by another "
                    "column"
                )
            if behavior.given is not None and behavior.given not in names[:position]:
                raise ValueError(
                    f"behaviors.{behavior.name}.given must name a behaviour listed before, found "
                    f"{behavior.given!r}"
                    f"{did_you_mean(behavior.given, names[:position])}"
                )
        for side, nodes, communities in (
            ("user", self.users, self.user_communities),
            ("item", self.items, self.item_communities),
        ):
            if communities > nodes:
                raise ValueError(
                    f"{side}_communities must not exceed {side}s, found {communities} of {nodes}"
                )
        if self.at_moments and (self.known_on_exposures or self.user_communities < 3):
            raise ValueError(
                "lives, trends, repeats and sessions need at least 3 communities of users, and neither "
                "`uniform`, `popular_first` nor several `scenarios` (the best reachable is unknown), "
                f"found user_communities {self.user_communities}; leave out either"
            )
        return self

    @property
    def at_moments(self) -> bool:
        """Whether what a user wants depends on the moment: lives, trends, repeats or sessions are on."""
        return self.lives + self.trends + self.repeats + self.sessions > 0

    @property
    def known_on_exposures(self) -> bool:
        """Whether the best reachable is known on the exposure log alone: what happens on an exposure depends
        on why the item was shown, or on the scenario."""
        return self.popular_first or self.uniform > 0 or len(self.scenarios) > 1

    @property
    def scenario_names(self) -> tuple[str, ...]:
        """Names of the scenarios. Shape (scenarios,)."""
        return tuple(f"s{number}" for number in range(len(self.scenario_shares)))

    @property
    def scenario_shares(self) -> tuple[float, ...]:
        """Share of exposures in each scenario. Shape (scenarios,)."""
        return tuple(part / sum(self.scenarios) for part in self.scenarios) or (1.0,)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the behaviours. Shape (T,)."""
        return tuple(behavior.name for behavior in self.behaviors)

    @property
    def parents(self) -> tuple[int, ...]:
        """Behaviour that each one requires; -1 for the first. Shape (T,)."""
        return tuple(
            -1 if t == 0 else self.names.index(b.given or self.names[0]) for t, b in enumerate(self.behaviors)
        )

    @property
    def rates(self) -> tuple[float, ...]:
        """Share of exposures on which each behaviour happens. Shape (T,)."""
        rates: list[float] = []
        for behavior, parent in zip(self.behaviors, self.parents, strict=True):
            rates.append(behavior.rate * (rates[parent] if parent >= 0 else 1.0))
        return tuple(rates)
