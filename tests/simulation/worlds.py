"""Worlds of a second, and what was drawn in them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit

from mgoe.config import RunSettings, make_settings
from mgoe.metrics import auc, gauc
from mgoe.simulation import Truth, WorldSettings, make_truth, reachable, simulate
from mgoe.simulation.chance import looks, pair_logits, position_losses
from mgoe.simulation.draw import Exposures, draw_log
from mgoe.simulation.logs import moment_examples

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
    parts = list(draw_log(truth))
    columns = {
        name: np.concatenate([getattr(shown, name) for _, shown in parts]) for name in vars(parts[0][1])
    }
    return Drawn(
        truth,
        Exposures(**columns),
        np.repeat([day for day, _ in parts], [len(shown.user) for _, shown in parts]),
    )


class MomentWorld(NamedTuple):
    """A world with one effect.

    Attributes:
        log: Folder of its event log, with the truth in a folder beside it.
        settings: Settings of a run whose rows read up to their moment.
        best: Best reachable `auc` and `gauc` after the first fifth of the days, and of each row (`chance`).
        rows: The rows of all days that are measured, of `moment_examples`, and which are `late`.
    """

    log: Path
    settings: RunSettings
    best: dict[str, Any]
    rows: dict[str, NDArray]


MOMENTS = WorldSettings.model_validate(
    {
        "users": 1_000,
        "items": 300,
        "exposures": 40_000,
        "days": 30,
        "user_communities": 4,
        "item_communities": 5,
        "skew": 0,
        "behaviors": [{"name": "click", "rate": 0.9, "strength": 0, "user_spread": 0, "item_spread": 0}],
        "popularity": 0.5,
        "personalized": 0,
        "position_effect": 0,
        "device_spread": 0,
        "affinity_drift": 0,
        "popularity_drift": 0,
        "arriving_items": 0.5,
    }
)
"""Nothing tells what a user wants unless an effect is on."""


def moment_world(effect: str | None, folder: Path, share: float = 0.5, **changes: Any) -> MomentWorld:
    """Draw a world in which one effect decides a share of the exposures, or none, and nothing else matters.

    Args:
        effect: `lives`, `trends`, `repeats` or `sessions`; None for a null world.
        folder: A new folder.
        share: How strong it is.
        changes: Other settings of the world, such as `seed` and `exposures`.
    """
    world = MOMENTS.model_copy(update={**({effect: share} if effect else {}), **changes})
    simulate(world, folder, form="events")
    data = {"log": str(folder / "events"), "truth": str(folder / "truth"), "history": "moment"}
    settings = make_settings({"data": data, "tasks": [{"name": "click"}]})
    truth = Truth.open(folder)
    examples = moment_examples(truth, settings.negatives.ratio)
    rows = {name: examples[name].to_numpy() for name in examples}
    ids = truth.user_ids.of(rows["user"]), truth.item_ids.of(rows["item"])
    rows |= {"late": rows["day"] >= world.days // 5}
    chance = reachable(truth, settings, *ids, rows["time"].astype("datetime64[ms]"))[:, 0]
    return MomentWorld(folder / "events", settings, {"chance": chance, **areas(rows, chance)}, rows)


def areas(rows: dict[str, NDArray], scores: NDArray) -> dict[str, float]:
    """Return AUC and GAUC on late rows."""
    label, score, user = (one[rows["late"]] for one in (rows["task_mask"], scores, rows["user"]))
    return {"auc": auc(label, score), "gauc": gauc(label, score, user).value}
