"""The best possible predictions for examples of a simulated log."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mgoe.config import RunSettings, TaskSettings, did_you_mean
from mgoe.errors import ConfigError
from mgoe.simulation.settings import WorldSettings
from mgoe.simulation.truth import Truth


def reachable(
    truth: Truth,
    settings: RunSettings,
    users: ArrayLike,
    items: ArrayLike,
    times: ArrayLike,
    device: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Return the predictions of a model that knows the world: Bayes-optimal probabilities, and expected
    seconds of stay.

    On an event log negatives are sampled, so a probability is that of an example's label, before
    recalibration.

    Args:
        truth: The world.
        settings: Settings of the run: tasks, form of log and negatives.
        users: User ids. Shape (N,).
        items: Item ids. Shape (N,).
        times: Times (or starts of buckets), as `datetime64`. Shape (N,).
        device: Names of devices, if models see them. Shape (N,).

    Returns:
        Shape (N, T), tasks in the order of the settings.

    Raises:
        ConfigError: A task is not a single behaviour of the world, or the distribution of negatives is not
            known.
        DataError: An id or a device is not of this world.
    """
    names = check_reachable(truth.settings, settings)
    if settings.form == "exposures":
        chance = truth.probability(users, items, times, device)
    else:
        chance = truth.scores(users, items, times, settings.negatives.ratio)
    column = {name: chance[:, t] for t, name in enumerate(truth.settings.names)}
    given = {
        task.name: column.get(name, np.ones(len(chance)))
        for task, name in zip(settings.tasks, names, strict=True)
    }
    best = []
    for task, name in zip(settings.tasks, names, strict=True):
        if name == "stay":
            best.append(truth.stay(users, items, times))
        else:
            best.append(column[name] / (given[task.given] if task.given else 1))
    return np.stack(best, 1)


def check_reachable(world: WorldSettings, settings: RunSettings) -> list[str]:
    """Refuse settings for which the best possible predictions are not known.

    Args:
        world: Settings of the world, which need not have been drawn.
        settings: Settings of the run.

    Returns:
        The behaviour, or `stay`, of each task.

    Raises:
        ConfigError: A task is not a single behaviour of the world, or the distribution of negatives is not
            known.
    """
    names = [_behaviour(task, world) for task in settings.tasks]
    if settings.form == "events" and settings.negatives.distribution != "popularity":
        raise ConfigError(
            "negatives.distribution",
            "the best reachable is known for negatives drawn by popularity; choose `popularity`",
        )
    if settings.form == "events" and world.names[0] not in names:
        raise ConfigError("tasks", f"the best reachable is known where {world.names[0]!r} is a task; add it")
    return names


def _behaviour(task: TaskSettings, world: WorldSettings) -> str:
    """Return the behaviour of the world that a task predicts."""
    names = [task.label] if task.label else task.done_by
    known = [*world.names, "stay"]
    if len(names) > 1:
        raise ConfigError(
            f"tasks.{task.name}",
            f"the best reachable is known for tasks of one behaviour, found {len(names)}; name one",
        )
    if names[0] not in known:
        raise ConfigError(
            f"tasks.{task.name}",
            f"{names[0]!r} is not a behaviour of the simulated world{did_you_mean(names[0], known)}",
        )
    if (names[0] == "stay") != (task.kind == "regression"):
        raise ConfigError(
            f"tasks.{task.name}.kind",
            f"must be {'regression' if names[0] == 'stay' else 'binary'} for {names[0]!r}",
        )
    return names[0]
