"""Small experiments: logged answers and exposures of two arms, as a service would export them."""

from typing import Any

import numpy as np
import pandas as pd

from mgoe.config import RunSettings, make_settings
from mgoe.config.experiment import ExperimentSettings

DAY = 86_400_000_000
START = 1_700_000_000_000_000
TASKS = [{"name": "click", "label": "click"}, {"name": "buy", "label": "buy", "given": "click"}]


def settings() -> RunSettings:
    data = {"log": "exposures.parquet", "form": "exposures", "request": "request", "time_unit": "us"}
    return make_settings(
        {"data": data, "tasks": TASKS, "split": {"cuts": [0.3, 0.6, 0.8]}, "models": ["mgoe"]}
    )


def experiment(**changes: Any) -> ExperimentSettings:
    arms = [{"name": "frozen", "share": 0.5}, {"name": "daily", "share": 0.5, "bundle": "daily"}]
    return ExperimentSettings.model_validate({"id": "test", "arms": arms, "compare": 1.0} | changes)


def make(
    seed: int = 0, units: int = 400, days: int = 14, lift: float = 0.0, before: int = 7
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Answers and exposures; each unit asks about once per day for three items, also before the start."""
    rng = np.random.default_rng(seed)
    arm, taste = np.arange(units) % 2, rng.gamma(4, 0.25, units)
    asked = rng.poisson(1.0, (units, before + days))
    unit, day = (np.repeat(axis, asked.ravel()) for axis in map(np.ravel, np.indices(asked.shape)))
    time = START + (day - before) * DAY + rng.integers(0, DAY, len(unit))
    own, inside = arm[unit], day >= before
    requests = np.array([f"r{number}" for number in range(len(unit))])
    lists = [rng.permutation(20)[:3].astype(str) for _ in unit]
    others = [rng.permutation(20)[:3].astype(str) for _ in unit]
    answers = pd.DataFrame(
        {
            "time": time,
            "request": requests,
            "route": "recommend",
            "user": unit.astype(str),
            "unit": unit.astype(str),
            "experiment": pd.Series("test", range(len(unit))).where(inside, None),
            "phase": pd.Series(experiment().phase, range(len(unit))).where(inside, None),
            "arm": pd.Series(np.array(["frozen", "daily"])[own]).where(inside, None),
            "brought": False,
            "use": "answer",
            "version": np.where(own == 0, "a1", "b1"),
            "status": "ok",
            "reason": None,
            "latency": rng.integers(3000, 5000, len(unit)),
            "items": lists,
            "propensities": None,
            "teams": None,
        }
    )
    compared = answers[inside].assign(
        use="compare", items=[o for o, i in zip(others, inside, strict=True) if i]
    )
    compared["arm"] = np.array(["daily", "frozen"])[own[inside]]
    rate = np.clip(0.2 * taste[unit] * (1 + lift * own * inside), 0, 1)
    click = (rng.random((len(unit), 3)) < rate[:, None]).ravel()
    exposures = pd.DataFrame(
        {
            "user_id": np.repeat(unit, 3),
            "item_id": np.concatenate(lists).astype(int),
            "timestamp": np.repeat(time, 3) + 1_000_000,
            "request": np.repeat(requests, 3),
            "click": click.astype(int),
            "buy": np.where(click, rng.random(len(click)) < 0.3, 0).astype(int),
        }
    )
    return pd.concat([answers, compared], ignore_index=True), exposures
