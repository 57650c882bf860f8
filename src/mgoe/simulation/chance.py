"""True probabilities of behaviours in a world, and the best possible prediction for an example."""

import itertools

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from mgoe.config import RunSettings, TaskSettings, did_you_mean
from mgoe.errors import ConfigError, DataError
from mgoe.simulation.draw import MS_PER_DAY, draw_log
from mgoe.simulation.moments import STEP, follow, make_moments
from mgoe.simulation.settings import DEVICE_SHARES, DEVICES, WorldSettings
from mgoe.simulation.truth import Truth, looks, position_losses

_GRID = 0.5
"""Step of the tables over biases, in standard deviations; errors stay below .002 in the default world."""


def reachable(
    truth: Truth,
    settings: RunSettings,
    users: ArrayLike,
    items: ArrayLike,
    times: ArrayLike,
    device: ArrayLike | None = None,
    uniform: bool | None = None,
    scenario: ArrayLike | None = None,
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
        times: Times (or starts of buckets), as `datetime64`; of an event log of a world with lives, trends,
            repeats or sessions, the moments that rows read up to. Shape (N,).
        device: Names of devices, if models see them. Shape (N,).
        uniform: Whether all items were shown uniformly at random, or none; None where that is not known.
        scenario: Names of scenarios, if models see them. Shape (N,).

    Returns:
        Shape (N, T), tasks in the order of the settings.

    Raises:
        ConfigError: A task is not a single behaviour of the world, or the distribution of negatives or of
            positives is not known.
        DataError: An id, a device or a scenario is not of this world.

    Example:
        >>> from mgoe.config import make_settings
        >>> from mgoe.simulation import Truth
        >>> tasks = [{"name": "click", "label": "click"}]
        >>> settings = make_settings({"data": {"log": "log/exposures"}, "tasks": tasks})
        >>> truth = Truth.open(log.parent / "truth")
        >>> users, items = (ids.of(np.arange(2)) for ids in (truth.user_ids, truth.item_ids))
        >>> times = np.full(2, np.datetime64("2025-03-20"))
        >>> reachable(truth, settings, users, items, times).shape
        (2, 1)
    """
    names = check_reachable(truth.settings, settings)
    user, item = truth.indices(users, items)
    day = truth.days(times)
    devices = _indices("device", DEVICES, device)
    scenarios = _indices("scenario", truth.settings.scenario_names, scenario)
    chance = (
        chances(truth, user, item, day, devices, uniform, scenarios)
        if settings.form == "exposures"
        else moment_chances(truth, user, item, times, settings.negatives.ratio)
        if truth.settings.at_moments
        else label_chances(truth, user, item, day, settings.negatives.ratio)
    )
    column = {name: chance[:, t] for t, name in enumerate(truth.settings.names)}
    given = {
        task.name: column.get(name, np.ones(len(chance)))
        for task, name in zip(settings.tasks, names, strict=True)
    }
    return np.stack(
        [
            expected_stay(truth, user, item, day)
            if name == "stay"
            else column[name] / (given[task.given] if task.given else 1)
            for task, name in zip(settings.tasks, names, strict=True)
        ],
        axis=1,
    )


def check_reachable(world: WorldSettings, settings: RunSettings) -> list[str]:
    """Refuse settings for which the best possible predictions are not known.

    Args:
        world: Settings of the world, which need not have been drawn.
        settings: Settings of the run.

    Returns:
        The behaviour, or `stay`, of each task.

    Raises:
        ConfigError: A task is not a single behaviour of the world, or the distribution of negatives or of
            positives is not known.

    Example:
        >>> from mgoe.simulation import WorldSettings
        >>> check_reachable(WorldSettings(), settings)
        ['click', 'buy']
    """
    names = [_behavior(task, world) for task in settings.tasks]
    if settings.data.timezone != "UTC":
        raise ConfigError(
            "data.timezone",
            f"the times of a simulated log are UTC, found {settings.data.timezone}; leave it out",
        )
    if settings.form == "events" and settings.negatives.distribution != "popularity":
        raise ConfigError(
            "negatives.distribution",
            "the best reachable is known for negatives drawn by popularity; choose `popularity`",
        )
    if settings.form == "events" and world.known_on_exposures:
        raise ConfigError(
            "data.form",
            "the best reachable of a world with `uniform`, `popular_first` or several `scenarios` is known "
            "on its exposure log; set `exposures`",
        )
    if settings.form == "events" and world.at_moments and settings.data.history != "moment":
        raise ConfigError(
            "data.history",
            "the best reachable of a world with lives, trends, repeats or sessions is known for rows that "
            f"read up to their moment, found {settings.data.history}; set `moment`",
        )
    if settings.form == "events" and world.names[0] not in names:
        raise ConfigError("tasks", f"the best reachable is known where {world.names[0]!r} is a task; add it")
    return names


def _behavior(task: TaskSettings, world: WorldSettings) -> str:
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


def _indices(place: str, known: tuple[str, ...], asked: ArrayLike | None) -> NDArray[np.int64] | None:
    if asked is None:
        return None
    names = np.asarray(asked, object)
    indices = pd.Index(known).get_indexer(names)
    strange = names[(indices < 0) & ~pd.isna(names)]
    if len(strange):
        raise DataError(
            place, f"must be one of {', '.join(known)}, or null where it is unknown, found {strange[0]!r}"
        )
    return indices


def pair_logits(
    truth: Truth, user: NDArray, item: NDArray, day: NDArray, scenario: NDArray | int
) -> NDArray[np.float64]:
    """Return the logit of each behaviour without device and position, and the mean log stay. Shape (N, T +
    1)."""
    cells = scenario, truth.users.community[user], truth.items.community[item]
    first, last = truth.phases(truth.settings.affinity_drift, day)
    affinity = [first * a[cells] + last * b[cells] for a, b in zip(*truth.affinity, strict=True)]
    return truth.intercept + np.stack(affinity, 1) + truth.users.bias[user] + truth.items.bias[item]


def expected_stay(truth: Truth, user: NDArray, item: NDArray, day: NDArray) -> NDArray[np.float64]:
    """Return the expected seconds spent on a clicked item. Shape (N,)."""
    log_stay = pair_logits(truth, user, item, day, 0)[:, -1]  # as in every scenario
    return np.exp(log_stay + truth.settings.stay.noise**2 / 2)  # the mean of a log-normal


def chances(
    truth: Truth,
    user: NDArray,
    item: NDArray,
    day: NDArray,
    device: NDArray | None = None,
    uniform: bool | None = None,
    scenario: NDArray | None = None,
) -> NDArray[np.float64]:
    """Return the probability of each behaviour on an exposure. Shape (N, T).

    It is averaged over positions, and over devices and scenarios where none (-1) is given. `uniform` says
    whether all items were shown uniformly at random, or none; None where that is not known.
    """
    positions = _position_shares(truth, user, item, day, uniform)
    mean = np.zeros((len(user), len(truth.settings.names)))
    for s, of_scenario in enumerate(_weights(scenario, truth.settings.scenario_shares, len(user))):
        logits = pair_logits(truth, user, item, day, s)[:, :-1]
        for d, of_device in enumerate(_weights(device, DEVICE_SHARES, len(user))):
            weight = of_scenario * of_device
            rows = np.flatnonzero(weight)
            mean[rows] += weight[rows, None] * _funnel(
                truth, logits[rows] + truth.device[:, d], positions[rows]
            )
    return mean


def _weights(given: NDArray | None, shares: tuple[float, ...], n: int) -> NDArray[np.float64]:
    """Return the probability of each kind on n exposures: its share, or 0 and 1 where a kind is given.

    Shape (kinds, n).
    """
    kinds = np.arange(len(shares))[:, None]
    given = np.full(n, -1) if given is None else given
    return np.where(given < 0, np.array(shares)[:, None], given == kinds)


def _funnel(truth: Truth, logits: NDArray, positions: NDArray) -> NDArray[np.float64]:
    chance = expit(logits)
    chance[:, 0] = 0
    for p, (look, loss) in enumerate(zip(looks(truth), position_losses(truth), strict=True)):
        chance[:, 0] += positions[:, p] * look * expit(logits[:, 0] - loss)
    for t, parent in enumerate(truth.settings.parents[1:], start=1):
        chance[:, t] *= chance[:, parent]
    return chance


def _position_shares(
    truth: Truth, user: NDArray, item: NDArray, day: NDArray, uniform: bool | None
) -> NDArray[np.float64]:
    """Return how often each position is that of an exposure of a user and an item. Shape (N, positions).

    Bayes' rule says how likely an item was drawn uniformly, where that is not known: with the share s of such
    exposures among n items, s / n against (1 - s) times the policy's own probability of the item.
    """
    s = truth.settings
    shares = np.full((len(item), s.positions), 1 / s.positions)
    if uniform or not s.popular_first:
        return shares
    for d in np.unique(day):
        popularity = truth.popularity(int(d))
        here = popularity[item] > 0  # no policy shows an item that has not arrived
        rows = np.flatnonzero((day == d) & here)
        i, communities = item[rows], truth.items.community
        by_policy = page_shares(truth, popularity, i)
        drawn = np.zeros(len(rows))
        if s.uniform and uniform is None:
            mass = np.bincount(communities, popularity)[communities[i]]
            aim = truth.aim(int(d), popularity)[truth.users.community[user[rows]], communities[i]]
            at_random = s.uniform / np.count_nonzero(popularity)
            drawn = at_random / (at_random + (1 - s.uniform) * aim * popularity[i] / mass)
        shares[rows] = drawn[:, None] * shares[rows] + (1 - drawn[:, None]) * by_policy
    return shares


def page_shares(
    truth: Truth, popularity: NDArray[np.float64], item: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Return how often each position is that of an item if popular items come first; 0 before it arrives.

    Shape (N, positions).
    """
    edges = np.linspace(0, 1, truth.settings.positions + 1)
    start, length = truth.pages(popularity)[:, item, None]
    return np.diff(np.clip((edges - start) / np.maximum(length, 1e-300), 0, 1), axis=1) * (length > 0)


def label_chances(
    truth: Truth, user: NDArray, item: NDArray, day: NDArray, negatives: int
) -> NDArray[np.float64]:
    """Return the probability of each label of an event log's examples. Shape (N, T).

    Examples are positives, and `negatives` for each, drawn by popularity from the positives of the same day.
    Bayes' rule on the densities of a positive and of a negative gives the best possible ranking. Repeats of a
    user and an item on one day are rare and ignored.
    """
    found = np.empty((len(user), len(truth.settings.behaviors)))
    for d in np.unique(day):
        rows = np.flatnonzero(day == d)
        found[rows] = _label_chances_of_day(truth, int(d), user[rows], item[rows], negatives)
    return found


def _label_chances_of_day(
    truth: Truth, day: int, user: NDArray, item: NDArray, negatives: int
) -> NDArray[np.float64]:
    """Return the probability of each label of examples of one day. Shape (N, T).

    A positive is an exposure with the first behaviour: density e(i|u) p(u, i) / m(u) for a user u, with m the
    sum of e p over items. A negative of u is an item drawn as positives of the day are: density q(i). Within
    an item community, e and q share the item's popularity, so their ratio depends only on communities and
    biases. m of a user community and a bias, and q divided by the item's share of its community's popularity,
    are interpolated on grids of the biases.
    """
    popularity = truth.popularity(day)
    aim = truth.aim(day, popularity)  # e between communities
    present = truth.activity * (truth.users.arrival <= day)
    user_bias, item_bias = truth.users.bias[:, 0], truth.items.bias[:, 0]
    users = _histogram(truth.users.community, user_bias, present, len(aim))
    items = _histogram(truth.items.community, item_bias, popularity, aim.shape[1])
    items /= np.maximum(items.sum(1, keepdims=True), 1e-300)
    x, (grid_u, grid_i) = truth.logits(day)[0, :, :, 0], (_grid(user_bias), _grid(item_bias))
    by_user, by_item = np.empty_like(users), np.zeros_like(items)  # m and q
    for u in range(len(aim)):
        # (item communities, grid of users, grid of items)
        p = _click(truth, x[u][:, None, None] + grid_u[:, None] + grid_i)
        by_user[u] = np.einsum("c,ck,cgk->g", aim[u], items, p)
        by_item += np.einsum("g,c,cgk->ck", users[u], aim[u], p)
    by_item /= (users * by_user).sum()
    chance = chances(truth, user, item, np.full(len(user), day))
    cu, ci = truth.users.community[user], truth.items.community[item]
    m, q = _read(by_user, cu, user_bias, user), _read(by_item, ci, item_bias, item)
    ratio = aim[cu, ci] * chance[:, 0] / (m * np.maximum(q, 1e-300))
    return (ratio / (ratio + negatives) / chance[:, 0])[:, None] * chance


def moment_chances(
    truth: Truth, user: NDArray, item: NDArray, times: ArrayLike, negatives: int
) -> NDArray[np.float64]:
    """Return the probability of each label of an event log's examples that read up to their moment. Shape (N,
    T).

    Examples are positives, and `negatives` for each, of what others did next. Bayes' rule as above, with the
    density of a positive of a user who knows what all users did before, and as that of a negative its mean
    over those who use the log in the same step of time. Tastes are those of communities. It is 0 on a day
    without exposures, of which a log has no examples.
    """
    moments, day, communities = make_moments(truth), truth.days(times), truth.users.community
    time, of = np.asarray(times, "datetime64[ms]").astype(np.int64), truth.items.community
    ratio, chance = np.zeros(len(user)), chances(truth, user, item, day)
    for d, parts in itertools.groupby(draw_log(truth), lambda part: part[0]):
        rows, shown = np.flatnonzero(day == d), [chunk for _, chunk in parts]
        u, i, t, done = (
            np.concatenate([own[rows], *(part(one) for one in shown)])
            for own, part in (
                (user, lambda one: one.user),
                (item, lambda one: one.item),
                (time, lambda one: one.time),
                (np.zeros(len(user), np.int8), lambda one: one.done(0)),
            )
        )
        popularity = truth.popularity(d)
        clicks = _click(truth, truth.logits(d)[0, :, of, 0].T + truth.items.bias[:, 0])
        share = popularity / np.maximum(np.bincount(of, popularity)[of], 1e-300)
        shows = truth.aim(d, popularity)[:, of] * share  # (user communities, I), as clicks
        wants, clicked = np.zeros((len(u), 3)), np.zeros((MS_PER_DAY // STEP, len(of)))
        follow(moments, (u, i, t, done), np.argsort(t, kind="stable"), communities, clicks, wants, clicked)
        cell, step = (communities[u], i), t // STEP % len(clicked)
        clicked += np.outer(  # what the policy shows, by the users of the day
            np.bincount(step, wants[:, 0], len(clicked)) / len(u),
            np.bincount(cell[0], minlength=len(shows)) @ (shows * clicks),
        )
        density = (wants[:, 0] * shows[cell] + wants[:, 1]) * clicks[cell]
        density /= wants[:, 0] * (shows * clicks).sum(1)[cell[0]] + wants[:, 2]
        ratio[rows] = (density * clicked.sum(1)[step] / np.maximum(clicked[step, i], 1e-300))[: len(rows)]
    return (ratio / (ratio + negatives) / chance[:, 0])[:, None] * chance


def _click(truth: Truth, logits: NDArray) -> NDArray[np.float64]:
    """Return the probability of the first behaviour, averaged over devices and positions. Same shape.

    It is interpolated in a fine table.
    """
    xs = np.linspace(logits.min(), logits.max(), 4096)
    shifts = truth.device[0][:, None] - position_losses(truth)  # (devices, positions)
    table = (looks(truth) * expit(xs[:, None, None] + shifts)).mean(2) @ np.array(DEVICE_SHARES)
    return np.interp(logits, xs, table)


def _grid(bias: NDArray) -> NDArray[np.float64]:
    low, high = float(bias.min()), float(bias.max())
    steps = int(np.ceil((high - low) / max(_GRID * float(bias.std()), 1e-9)))
    return np.linspace(low, high, max(2, steps + 1))


def _place(bias: NDArray, grid: NDArray) -> tuple[NDArray, NDArray]:
    """Return the grid point below each bias, and the fraction of the way to the next."""
    x = (bias - grid[0]) / max(grid[1] - grid[0], 1e-12)
    below = np.clip(x.astype(np.int64), 0, len(grid) - 2)
    return below, np.clip(x - below, 0, 1)


def _histogram(community: NDArray, bias: NDArray, weight: NDArray, communities: int) -> NDArray[np.float64]:
    """Return the weight of each community at each grid point. Shape (communities, grid).

    Each weight is shared between the two grid points around its bias.
    """
    grid = _grid(bias)
    below, part = _place(bias, grid)
    cell, size = community.astype(np.int64) * len(grid) + below, communities * len(grid)
    total = np.bincount(cell, weight * (1 - part), size) + np.bincount(cell + 1, weight * part, size)
    return total.astype(np.float64).reshape(communities, -1)


def _read(table: NDArray, community: NDArray, bias: NDArray, node: NDArray) -> NDArray[np.float64]:
    below, part = _place(bias[node], _grid(bias))
    return table[community, below] * (1 - part) + table[community, below + 1] * part
