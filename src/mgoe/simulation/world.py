"""Drawing a world from its settings: communities, arrivals, propensities, affinities, and intercepts for
the given rates."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from mgoe.errors import ConfigError
from mgoe.simulation.chance import looks, pair_logits, position_losses
from mgoe.simulation.draw import CALIBRATION, Day
from mgoe.simulation.settings import DEVICES, WorldSettings
from mgoe.simulation.truth import Nodes, Truth

_CALIBRATION_DAYS = 8
_CALIBRATION_ROWS = 100_000
_LIMIT = 50.0  # bound of an intercept; larger logits widen it


def make_truth(settings: WorldSettings) -> Truth:
    """Draw a world; the same settings give the same world.

    Example:
        >>> from mgoe.simulation import WorldSettings
        >>> few = {"users": 30, "items": 20, "exposures": 300, "days": 5}
        >>> small = WorldSettings(**few, user_communities=2, item_communities=2)
        >>> make_truth(small).settings == small
        True
    """
    s = settings
    parts = [*s.behaviors, s.stay]
    rng = [np.random.default_rng([s.seed, part]) for part in range(7)]
    users = _nodes(rng[0], s.users, s.user_communities, s.arriving_users, [p.user_spread for p in parts], s)
    items = _nodes(rng[1], s.items, s.item_communities, s.arriving_items, [p.item_spread for p in parts], s)
    activity = (1 - rng[2].random(s.users, np.float32)) ** np.float32(-s.activity)
    taste = rng[3].standard_normal((2, s.items), np.float32)
    cells = _scenarios(rng[4], rng[6], len(parts), s)
    correlation = np.array([1.0, *(p.correlation for p in parts[1:])], np.float32)[:, None, None, None]
    strength = np.array([p.strength for p in parts], np.float32)[:, None, None, None]
    affinity = (strength * (correlation * cells[:, :1] + np.sqrt(1 - correlation**2) * cells)).astype(
        np.float32
    )
    affinity[:, -1] = affinity[:, -1, :1]  # the stay is the same in every scenario
    device = s.device_spread * rng[5].standard_normal((len(s.behaviors), len(DEVICES)))
    intercept = np.append(np.zeros(len(s.behaviors)), np.log(s.stay.median))
    truth = Truth(s, users, items, activity, taste, affinity, device, intercept)
    return replace(truth, intercept=_calibrated(truth))


def _scenarios(
    first: np.random.Generator, others: np.random.Generator, parts: int, settings: WorldSettings
) -> NDArray[np.float32]:
    """Return normal numbers, of each further scenario with the set correlation to those of the first.

    Shape (2, parts, scenarios, user communities, item communities).
    """
    s, c = settings, np.float32(settings.scenario_correlation)
    cells = first.standard_normal((2, parts, 1, s.user_communities, s.item_communities), np.float32)
    own = others.standard_normal((2, parts, len(s.scenario_shares) - 1, *cells.shape[3:]), np.float32)
    return np.concatenate([cells, c * cells + np.sqrt(1 - c * c) * own], 2)


def _nodes(
    rng: np.random.Generator,
    n: int,
    communities: int,
    arriving: float,
    spreads: list[float],
    settings: WorldSettings,
) -> Nodes:
    share = np.arange(1, communities + 1) ** -settings.skew
    ends = np.floor(share.cumsum() / share.sum() * (n - communities) + 0.5).astype(
        np.int64
    )  # one node per community is added below
    community = np.repeat(np.arange(communities, dtype=np.int16), np.diff(ends, prepend=0) + 1)
    arrives = rng.random(n, np.float32) < arriving
    day = settings.days * rng.random(n, np.float32) ** np.float32(1 / settings.growth)
    arrival = np.where(arrives, np.minimum(day, settings.days - 1), 0).astype(np.int16)
    arrival[arrival.argmin()] = 0  # somebody must be there on the first day
    bias = rng.standard_normal((n, len(spreads)), np.float32) * np.array(spreads, np.float32)
    return Nodes(community, arrival, bias)


def _calibrated(truth: Truth) -> NDArray[np.float64]:
    """Return intercepts at which each behaviour follows its parent at its rate. Shape (T + 1,).

    The rates are measured on exposures drawn across the days.
    """
    from scipy.optimize import brentq  # slow to import, and a run needs it only to simulate its log

    s = truth.settings
    days = np.unique(np.linspace(0, s.days - 1, _CALIBRATION_DAYS).astype(int))
    share = truth.day_rows[days] + 1.0
    rows = np.ceil(share / share.sum() * _CALIBRATION_ROWS).astype(int)
    shown = [Day(truth, int(d), CALIBRATION, int(n)).exposures(0) for d, n in zip(days, rows, strict=True)]
    user, item, device, position, scenario = (
        np.concatenate([getattr(e, name) for e in shown])
        for name in ("user", "item", "device", "position", "scenario")
    )
    logits = (
        pair_logits(truth, user, item, np.repeat(days, [len(e.user) for e in shown]), scenario)[:, :-1]
        + truth.device[:, device].T
    )
    logits[:, 0] -= position_losses(truth)[position - 1]
    looked = looks(truth)[position - 1]
    intercept = truth.intercept.copy()
    reached = np.ones((len(s.behaviors) + 1, len(logits)))
    for t, (behavior, parent) in enumerate(zip(s.behaviors, s.parents, strict=True)):

        def excess(shift: float, t: int = t, parent: int = parent, rate: float = behavior.rate) -> float:
            happens = expit(logits[:, t] + shift) * (looked if t == 0 else 1)
            return float(np.average(happens, weights=reached[parent])) - rate

        limit = _LIMIT
        if not excess(-limit) <= 0 <= excess(limit):  # only then, so that all other worlds keep every bit
            limit += float(np.abs(logits[:, t]).max())
        if excess(limit) < 0:
            raise ConfigError(
                f"simulate.behaviors.{behavior.name}",
                f"its rate must be below the share of exposures that users look at, found {behavior.rate:g} "
                f"of {looked.mean():.3f}; lower its rate or `examination`",
            )
        intercept[t] = float(brentq(excess, -limit, limit, xtol=1e-9))  # pyright: ignore[reportArgumentType]
        reached[t] = reached[parent] * expit(logits[:, t] + intercept[t]) * (looked if t == 0 else 1)
    return intercept
