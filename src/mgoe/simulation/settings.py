"""Settings of a simulated world."""

from __future__ import annotations

from datetime import date
from typing import Self

from pydantic import Field, model_validator

from mgoe.config import Settings, did_you_mean

DEVICES = ("phone", "desktop", "tablet")
DEVICE_SHARES = (0.65, 0.25, 0.1)


class BehaviourSettings(Settings):
    """One step of the funnel: how often it is taken, and what decides it."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    given: str | None = None
    """The earlier behaviour without which this one cannot happen; the first behaviour by default."""
    rate: float = Field(gt=0, lt=1)
    """How often it follows on `given`; the first one: on an exposure. Over the whole log."""
    strength: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Standard deviation of the affinities between communities, in logits."""
    correlation: float = Field(default=0.6, ge=-1, le=1)
    """Of its affinities with those of the first behaviour; negative where tastes oppose."""
    user_spread: float = Field(default=0.4, ge=0, allow_inf_nan=False)
    """Standard deviation of the users' own propensities, in logits."""
    item_spread: float = Field(default=0.4, ge=0, allow_inf_nan=False)
    """Standard deviation of the items' own qualities, in logits."""


class StaySettings(Settings):
    """Seconds spent on a clicked item: log-normal, its logarithm built like the logit of a behaviour."""

    median: float = Field(default=25.0, gt=0, allow_inf_nan=False)
    strength: float = Field(default=0.5, ge=0, allow_inf_nan=False)
    correlation: float = Field(default=0.7, ge=-1, le=1)
    user_spread: float = Field(default=0.3, ge=0, allow_inf_nan=False)
    item_spread: float = Field(default=0.3, ge=0, allow_inf_nan=False)
    noise: float = Field(default=0.8, ge=0, allow_inf_nan=False)
    """Standard deviation that nothing explains."""


class WorldSettings(Settings):
    """A world of users and items with known tastes, and how much of it is shown to whom."""

    users: int = Field(default=6_000, ge=1, le=2**31 - 1)
    items: int = Field(default=3_000, ge=1, le=2**31 - 1)
    exposures: int = Field(default=600_000, ge=1)
    """Shown items in all: rows of the exposure log."""
    days: int = Field(default=60, ge=1, le=10_000)
    start: date = date(2025, 3, 1)
    seed: int = Field(default=0, ge=0)

    user_communities: int = Field(default=16, ge=1, le=10_000)
    item_communities: int = Field(default=24, ge=1, le=10_000)
    skew: float = Field(default=0.5, ge=0, le=3)
    """Sizes of communities fall as rank to this power; 0 makes them equal."""
    behaviours: list[BehaviourSettings] = Field(
        default=[
            BehaviourSettings(name="click", rate=0.25, strength=1.2, correlation=1.0),
            BehaviourSettings(name="favour", rate=0.2),
            BehaviourSettings(name="cart", rate=0.2),
            BehaviourSettings(name="buy", given="cart", rate=0.45),
        ],
        min_length=1,
        max_length=16,
    )
    """The funnel. The first behaviour is its entrance."""
    stay: StaySettings = StaySettings()

    activity: float = Field(default=0.5, ge=0, le=2)
    """Exposures of a user fall as rank to this power: heavy-tailed."""
    popularity: float = Field(default=0.8, ge=0, le=2)
    """Popularity of an item falls as rank to this power (Zipf)."""
    personalised: float = Field(default=0.5, ge=0, le=1)
    """Share of exposures aimed at the community's taste; the others go by popularity alone."""
    targeting: float = Field(default=1.0, ge=0, le=5)
    """How sharply: aimed exposures go by popularity times exp(targeting x affinity of the first behaviour)."""
    positions: int = Field(default=10, ge=1, le=100)
    """Places on a page, filled alike."""
    position_effect: float = Field(default=0.3, ge=0, le=5)
    """The first behaviour loses position_effect x ln(position) logits."""
    device_spread: float = Field(default=0.15, ge=0, le=5)
    """Standard deviation of what the device adds, in logits."""

    affinity_drift: float = Field(default=0.3, ge=0, le=1)
    """How far affinities turn from the first day to the last: 1 leaves nothing of the first."""
    popularity_drift: float = Field(default=0.3, ge=0, le=1)
    """The same for popularity."""
    arriving_users: float = Field(default=0.2, ge=0, le=1)
    """Share of users that arrive after the first day."""
    arriving_items: float = Field(default=0.2, ge=0, le=1)
    growth: float = Field(default=1.0, gt=0, le=20)
    """Arrivals up to a share x of the days are x to this power: above 1, most arrive late."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        names = self.names
        for position, behaviour in enumerate(self.behaviours):
            if behaviour.name in names[:position] or behaviour.name in ("stay", "position", "device"):
                raise ValueError(
                    f"behaviours need names of their own, found {behaviour.name!r} twice or taken by another column"
                )
            if behaviour.given is not None and behaviour.given not in names[:position]:
                raise ValueError(
                    f"behaviours.{behaviour.name}.given must name a behaviour listed before, found {behaviour.given!r}"
                    f"{did_you_mean(behaviour.given, names[:position])}"
                )
        for side, nodes, communities in (
            ("user", self.users, self.user_communities),
            ("item", self.items, self.item_communities),
        ):
            if communities > nodes:
                raise ValueError(
                    f"{side}_communities must not exceed {side}s, found {communities} of {nodes}"
                )
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the behaviours. Shape (T,)."""
        return tuple(behaviour.name for behaviour in self.behaviours)

    @property
    def parents(self) -> tuple[int, ...]:
        """Behaviour that each one needs; -1 for the first. Shape (T,)."""
        return tuple(
            -1 if t == 0 else self.names.index(b.given or self.names[0])
            for t, b in enumerate(self.behaviours)
        )

    @property
    def rates(self) -> tuple[float, ...]:
        """How often each behaviour happens on an exposure. Shape (T,)."""
        rates: list[float] = []
        for behaviour, parent in zip(self.behaviours, self.parents, strict=True):
            rates.append(behaviour.rate * (rates[parent] if parent >= 0 else 1.0))
        return tuple(rates)
