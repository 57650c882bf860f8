"""Worlds of a second, and what was drawn in them."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit

from mgoe.simulation import Truth, WorldSettings, make_truth
from mgoe.simulation.chance import looks, pair_logits, position_losses
from mgoe.simulation.draw import Day, Exposures

SMALL = WorldSettings(users=400, items=200, exposures=60_000, days=12, user_communities=4, item_communities=5)
RANKED = SMALL.model_copy(
    update={
        "popular_first": True,
        "examination": 0.7,
        "uniform": 0.25,
        "personalized": 0.0,
        "position_effect": 0.0,
        "device_spread": 0.0,
        "popularity_drift": 1.0,
    }
)
"""Popular items are shown first, users look at what comes first, and a quarter of the exposures is random."""
OPPOSED = SMALL.model_copy(update={"scenarios": [3.0, 2.0, 1.0], "scenario_correlation": -0.6})
"""Users like in two scenarios what they do not like in the first."""


@st.composite
def worlds(draw: st.DrawFn) -> WorldSettings:
    """Return any world small enough to draw in a tenth of a second."""
    users, items, tasks = draw(st.integers(1, 60)), draw(st.integers(1, 40)), draw(st.integers(1, 5))
    examination = draw(st.sampled_from([0.0, 0.5, 1.0]))
    highest = 0.2 if examination else 0.9  # of twelve positions the lesser half is looked at
    behaviors = [{"name": "click", "rate": draw(st.floats(0.05, highest))}]
    for t in range(1, tasks):
        given = draw(st.sampled_from([None, *(b["name"] for b in behaviors)]))
        correlation = draw(st.floats(-1, 1))
        behaviors.append(
            {
                "name": f"task{t}",
                "given": given,
                "rate": draw(st.floats(0.05, 0.9)),
                "correlation": correlation,
            }
        )
    return WorldSettings.model_validate(
        {
            "users": users,
            "items": items,
            "exposures": draw(st.integers(1, 3_000)),
            "days": draw(st.integers(1, 20)),
            "user_communities": draw(st.integers(1, min(users, 5))),
            "item_communities": draw(st.integers(1, min(items, 5))),
            "skew": draw(st.floats(0, 2)),
            "behaviors": behaviors,
            "activity": draw(st.floats(0, 1.5)),
            "popularity": draw(st.floats(0, 1.5)),
            "personalized": draw(st.floats(0, 1)),
            "positions": draw(st.integers(1, 12)),
            "examination": examination,
            "popular_first": draw(st.booleans()),
            "uniform": draw(st.sampled_from([0.0, 0.3, 1.0])),
            "scenarios": draw(st.sampled_from([[], [1.0, 1.0], [3.0, 1.0, 2.0]])),
            "scenario_correlation": draw(st.floats(-1, 1)),
            "affinity_drift": draw(st.floats(0, 1)),
            "popularity_drift": draw(st.floats(0, 1)),
            "arriving_users": draw(st.floats(0, 1)),
            "arriving_items": draw(st.floats(0, 1)),
            "growth": draw(st.floats(0.3, 5)),
            "seed": draw(st.integers(0, 2**32)),
        }
    )


@dataclass(frozen=True)
class Drawn:
    """Return all exposures of a world, and the day of each."""

    truth: Truth
    shown: Exposures
    day: NDArray[np.int64]

    @property
    def ids(self) -> tuple[NDArray, NDArray, NDArray]:
        """Users, items and times, as the truth takes them."""
        return (
            self.truth.user_ids.of(self.shown.user),
            self.truth.item_ids.of(self.shown.item),
            self.shown.time.astype("datetime64[ms]"),
        )

    @property
    def indices(self) -> tuple[NDArray, NDArray, NDArray]:
        """Users and items by index, and days, as functions of chances take them."""
        return self.shown.user, self.shown.item, self.day

    @property
    def chances(self) -> NDArray[np.float64]:
        """The probability of each behaviour where device, scenario and position are known. Shape (N, T)."""
        truth, place = self.truth, self.shown.position - 1
        logits = pair_logits(truth, *self.indices, self.shown.scenario)[:, :-1]
        logits += truth.device[:, self.shown.device].T
        logits[:, 0] -= position_losses(truth)[place]
        chance = expit(logits)
        chance[:, 0] *= looks(truth)[place]
        for t, parent in enumerate(truth.settings.parents[1:], start=1):
            chance[:, t] *= chance[:, parent]
        return chance


def drawn(settings: WorldSettings) -> Drawn:
    truth = make_truth(settings)
    days = [Day(truth, number) for number in range(settings.days)]
    parts = [(day.day, day.exposures(chunk)) for day in days for chunk in day.chunks]
    columns = {
        name: np.concatenate([getattr(shown, name) for _, shown in parts]) for name in vars(parts[0][1])
    }
    return Drawn(
        truth,
        Exposures(**columns),
        np.repeat([day for day, _ in parts], [len(shown.user) for _, shown in parts]),
    )
