"""What users are expected to do with items during a stretch of time."""

import itertools
from collections.abc import Iterator

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.special import expit
from scipy.stats import chi2

from mgoe.errors import ConfigError
from mgoe.simulation import Truth, WorldSettings, make_truth
from mgoe.simulation.chance import looks, position_losses
from mgoe.simulation.expected import expected_actions
from mgoe.simulation.settings import DEVICE_SHARES
from tests.effort import up_to
from tests.simulation.worlds import OPPOSED, RANKED, SMALL, Drawn, drawn, worlds

HOUR = np.timedelta64(1, "h")


def shown_at(truth: Truth, day: int, user: int, item: int) -> Iterator[tuple[int, float]]:
    """The probability that one exposure of a user shows an item at each position."""
    s, popularity = truth.settings, truth.popularity(day)
    if not popularity[item]:
        return
    mine = truth.items.community[item]
    mass = sum(popularity[i] for i in range(s.items) if truth.items.community[i] == mine)
    aim = truth.aim(day, popularity)[truth.users.community[user], mine]
    by_policy = (1 - s.uniform) * aim * popularity[item] / mass
    at_random = s.uniform / sum(one > 0 for one in popularity)
    start, length = truth.pages(popularity)[:, item]
    for position in range(s.positions):
        low, high = max(position / s.positions, start), min((position + 1) / s.positions, start + length)
        part = max(high - low, 0) / length if s.popular_first else 1 / s.positions
        yield position, by_policy * part + at_random / s.positions


def chance_of_any(
    truth: Truth, day: int, pair: tuple[int, int], scenario: int, device: int, position: int, names: set[str]
) -> float:
    """Sum the probabilities of all ways in which something wanted happens on one exposure."""
    s, total, (user, item) = truth.settings, 0.0, pair
    logits = truth.logits(day)[scenario, truth.users.community[user], truth.items.community[item]]
    logits = logits + truth.users.bias[user] + truth.items.bias[item]
    for done in itertools.product([False, True], repeat=len(s.names)):
        if names.isdisjoint(name for name, one in zip(s.names, done, strict=True) if one):
            continue
        way = 1.0
        for t, parent in enumerate(s.parents):
            chance = expit(logits[t] + truth.device[t, device] - (t == 0) * position_losses(truth)[position])
            chance *= looks(truth)[position] if t == 0 else done[parent]
            way *= chance if done[t] else 1 - chance
        total += way
    return total


def naive(truth: Truth, user: int, item: int, names: set[str], start: int, hours: int) -> float:
    """Add up what is expected hour by hour."""
    total, scenarios = 0.0, truth.settings.scenario_shares
    for day, of_day in itertools.groupby(range(start, start + hours), lambda hour: hour // 24):
        present = sum(
            truth.activity[u].astype(float) for u in range(len(truth.users)) if truth.users.arrival[u] <= day
        )
        mine = truth.activity[user] if truth.users.arrival[user] <= day else 0.0
        exposures = len(list(of_day)) / 24 * truth.day_rows[day] * mine / present
        for position, shown in shown_at(truth, day, user, item):
            for scenario, device in itertools.product(range(len(scenarios)), range(len(DEVICE_SHARES))):
                chance = chance_of_any(truth, day, (user, item), scenario, device, position, names)
                total += exposures * shown * scenarios[scenario] * DEVICE_SHARES[device] * chance
    return total


@up_to(12)
@given(settings=worlds(), data=st.data())
def test_it_is_what_loops_over_hours_positions_scenarios_devices_and_outcomes_add_up(
    settings: WorldSettings, data: st.DataObject
):
    try:
        truth = make_truth(settings)
    except ConfigError:
        assume(False)
        return
    names = data.draw(st.sets(st.sampled_from(settings.names), min_size=1))
    start = data.draw(st.integers(0, settings.days * 24 - 1))
    hours = data.draw(st.integers(1, min(60, settings.days * 24 - start)))
    some = [data.draw(st.integers(0, n - 1)) for n in (settings.users, settings.items)]
    users, items = np.array([0, some[0]]), np.array([0, some[1]])
    begin = np.datetime64(settings.start) + start * HOUR
    found = expected_actions(
        truth, truth.user_ids.of(users), truth.item_ids.of(items), sorted(names), begin, begin + hours * HOUR
    )
    wanted = [[naive(truth, u, i, names, start, hours) for i in items.tolist()] for u in users.tolist()]
    assert_allclose(found, wanted, rtol=1e-4, atol=1e-9)


def check_counts(log: Drawn, names: list[str], first: int):
    """Compare what is expected from a day on with what was drawn, in groups of users and items."""
    truth, s = log.truth, log.truth.settings
    users, items = np.arange(s.users), np.arange(s.items)
    start = np.datetime64(s.start) + np.timedelta64(first, "D")
    end = np.datetime64(s.start) + s.days
    found = expected_actions(truth, truth.user_ids.of(users), truth.item_ids.of(items), names, start, end)
    done = np.any([log.shown.done(s.names.index(name)) for name in names], axis=0) & (log.day >= first)
    group = truth.users.community[:, None] * s.item_communities + truth.items.community
    group = group * 2 + (truth.items.bias[:, 0] > 0)
    expected = np.bincount(group.ravel(), found.ravel())
    drawn_there = np.bincount(group[log.shown.user[done], log.shown.item[done]], minlength=len(expected))
    there = expected > 5
    squares = (drawn_there - expected)[there] ** 2 / expected[there]
    assert squares.sum() < chi2.ppf(1 - 1e-6, there.sum())


def test_it_is_what_is_drawn():
    for world in (SMALL, RANKED, OPPOSED):
        log = drawn(world)
        check_counts(log, ["click"], 8)
        check_counts(log, ["favour", "buy"], 2)
