"""The settings of an experiment: arms, of which each answers its share of the units.

A unit keeps its arm: its hash says where it falls, and each arm has a range that begins at a fixed point.
More coverage widens the ranges, which moves nobody. Changed arms or shares are another phase, with another
seed.
"""

import hashlib
import json
import math
import re
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, AwareDatetime, Field, field_validator, model_validator

from mgoe.config.base import Settings


def _name(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", text) is None:
        raise ValueError(
            "must be at most 64 letters, digits and . _ -, the first a letter or digit, "
            f"found {text[:80]!r}; write it as in daily-1"
        )
    return text


Name = Annotated[str, AfterValidator(_name)]
"""A name of an experiment or of an arm."""
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class ExploreSettings(Settings):
    """How an arm explores: by a temperature, or on the last places with a probability.

    Example:
        >>> ExploreSettings(epsilon=0.1, last=3).last
        3
    """

    temperature: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Each place draws one of the items that are left, with odds of exp(score / temperature)."""
    epsilon: float | None = Field(default=None, gt=0, le=1)
    """Probability with which each of the last places draws any item that is left."""
    last: int | None = Field(default=None, ge=1, le=1000)
    """How many places those are; needed with `epsilon`."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.temperature is None) == (self.epsilon is None):
            found = "neither" if self.epsilon is None else "both"
            raise ValueError(f"must hold a temperature or an epsilon, found {found}; give one")
        if (self.epsilon is None) != (self.last is None):
            raise ValueError("epsilon and last belong together, found one of them; give both")
        return self


class ArmSettings(Settings):
    """An arm: a policy, of which a retraining may replace the version.

    Example:
        >>> ArmSettings(name="daily", bundle="bundles/daily", share=0.5).explore is None
        True
    """

    name: Name
    bundle: Path | None = None
    """A folder, or a link to one; the bundle that is served if left out."""
    share: float = Field(gt=0, le=1)
    """Share of the units; those of all arms sum to one."""
    explore: ExploreSettings | None = None


class NamespaceSettings(Settings):
    """A part of the units, which experiments at the same time divide among them: GrowthBook's namespace.

    Example:
        >>> NamespaceSettings(id="lists", range=(0, 0.5)).range
        (0.0, 0.5)
    """

    id: Name
    """Ranges of one id divide the same units."""
    range: tuple[Share, Share]
    """From a bound up to, and without, another, of a hash of the unit from 0 to 1 in thousandths."""

    @field_validator("range")
    @classmethod
    def _rises(cls, bounds: tuple[float, float]) -> tuple[float, float]:
        if bounds[0] >= bounds[1]:
            raise ValueError(f"must rise, found {list(bounds)}; write it as in [0, 0.5]")
        return bounds


class ShadowSettings(Settings):
    """An arm whose answers nobody gets: it scores requests after they are answered.

    Example:
        >>> ShadowSettings(bundle="bundles/candidate").share
        0.05
    """

    bundle: Path
    """A folder, or a link to one, which may lead nowhere for a while."""
    share: float = Field(default=0.05, gt=0, le=1)
    """Share of the requests."""


class ExperimentSettings(Settings):
    """An experiment, as `mgoe serve --experiment FILE` reads it.

    Example:
        >>> arms = [{"name": "frozen", "share": 0.5}, {"name": "daily", "bundle": "daily", "share": 0.5}]
        >>> ExperimentSettings(id="daily-or-not", arms=arms).arms[0].name
        'frozen'
    """

    id: Name
    unit: Literal["user", "request"] = "user"
    """What keeps its arm: the user of a request, or its field `unit` (a session, a device)."""
    arms: list[ArmSettings] = Field(min_length=1, max_length=100)
    """The first one is the control, which answers for whoever is in no arm; it may be alone with a shadow."""
    shadow: ShadowSettings | None = None
    namespace: NamespaceSettings | None = None
    """The units that may be in it; all by default."""
    coverage: Share = 1.0
    """Share of these units that are in the experiment."""
    start: AwareDatetime | None = None
    end: AwareDatetime | None = None
    """Before the start, and from the end on, nobody is in it."""
    stop: bool = False
    """Whether nobody is in it, whatever else is set."""
    compare: Share = 0.0
    """Share of the requests for which another arm's list is logged too."""
    interleave: Share = 0.0
    """Share of the units in the experiment that get lists which two arms make together."""

    @field_validator("arms")
    @classmethod
    def _sum_to_one(cls, arms: list[ArmSettings]) -> list[ArmSettings]:
        if not math.isclose(total := math.fsum(arm.share for arm in arms), 1, abs_tol=1e-9):
            raise ValueError(f"the shares must sum to 1, found {total:g}; use `coverage` to ask fewer units")
        names = [arm.name for arm in arms]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"each name must be another one, found {repeated[0]!r} twice; rename one")
        return arms

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if len(self.arms) == 1 and self.shadow is None:
            raise ValueError("arms: must hold two at least, or one and `shadow`, found one; add another")
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError(f"start must be before end, found {self.start} and {self.end}; move one")
        if self.interleave and len(self.arms) != 2:
            raise ValueError(
                f"interleave takes two arms, found {len(self.arms)}; leave it out, or leave arms out"
            )
        return self

    @cached_property
    def phase(self) -> str:
        """Eight hexadecimal digits that name these arms and shares: the same on every machine."""
        assigned = [self.id, [[arm.name, arm.share] for arm in self.arms]]
        return hashlib.sha256(json.dumps(assigned).encode()).hexdigest()[:8]

    def is_apart(self, other: "ExperimentSettings") -> bool:
        """Return whether no unit can be in both this experiment and another one, by their namespaces."""
        one, two = self.namespace, other.namespace
        if one is None or two is None or (one.id, self.unit) != (two.id, other.unit):
            return False
        return one.range[1] <= two.range[0] or two.range[1] <= one.range[0]

    @property
    def seed(self) -> str:
        """What the hash of a unit begins with."""
        return f"{self.id}:{self.phase}"

    @cached_property
    def ranges(self) -> list[tuple[float, float]]:
        """The range of each arm, of a hash from 0 to 1: from a bound up to, and without, another."""
        # each sum is the former and a share, so that at full coverage a range ends where the next begins
        starts = accumulate((arm.share for arm in self.arms[:-1]), initial=0.0)
        return [
            (start, start + arm.share * self.coverage)
            for start, arm in zip(starts, self.arms, strict=True)
        ]  # fmt: skip
