"""Users who visit a service: their random numbers, their moods, and what they report."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy.special import expit

from mgoe.errors import ConfigError
from mgoe.simulation import Truth, Visits, VisitSettings, make_truth
from mgoe.simulation.chance import pair_logits
from mgoe.simulation.content import contents
from mgoe.simulation.truth import position_losses
from mgoe.simulation.visits import DAY, Outcomes, Page, Report
from tests.effort import up_to
from tests.simulation.worlds import OPPOSED, SMALL

STEADY = VisitSettings(fatigue=0, patience=0, loyalty=0)
"""Users whose visits do not depend on what they see."""
WORLD = SMALL.model_copy(update={"content": 0.5, "arriving_items": 0.6})


@pytest.fixture(scope="module")
def truth() -> Truth:
    return make_truth(WORLD)


def visited(visits: Visits, days: Sequence[int], pick: Any) -> Iterator[tuple[Outcomes, list[Report]]]:
    """Play days; `pick` chooses the items of a page."""
    for day in days:
        visits.open(day)
        while (page := visits.next_page()) is not None:
            reports = visits.due(page.time)
            yield visits.show(page, pick(visits, page)), reports


def first_alive(visits: Visits, page: Page) -> NDArray[np.int64]:
    return visits.alive(page.day)[:6]


def by_chance(visits: Visits, page: Page) -> NDArray[np.int64]:
    return np.random.default_rng([page.time, page.user]).choice(visits.alive(page.day), 6, replace=False)


@given(seed=st.integers(0, 2**32), items=st.lists(st.integers(0, 199), min_size=1, max_size=8, unique=True))
@up_to(5)
def test_what_a_user_does_with_an_item_depends_on_no_other_item(truth: Truth, seed: int, items: list[int]):
    whole = Visits(truth, STEADY.model_copy(update={"seed": seed}))
    whole.open(3)
    page = whole.next_page()
    assert page is not None
    together = whole.show(page, np.array(items))
    for place, item in enumerate(items):
        alone = Visits(truth, whole.settings)
        alone.open(3)
        # other items take the places before it
        others = [other for other in range(200) if other not in items][:place]
        shown = alone.show(page, np.array([*others, item]))
        assert_array_equal(shown.done[-1], together.done[place])
        assert shown.stay[-1] == together.stay[place]


def test_policies_differ_by_what_they_show_and_by_nothing_else(truth: Truth):
    pages = [[], []]
    for seen, pick in zip(pages, (first_alive, by_chance), strict=True):
        seen += [one.page for one, _ in visited(Visits(truth, STEADY), range(3, 6), pick)]
    assert len(pages[0]) > 500
    assert pages[0] == pages[1]
    moody = VisitSettings(patience=2, loyalty=1)
    pages = [[one.page for one, _ in visited(Visits(truth, moody), range(3, 6), pick)]
             for pick in (first_alive, by_chance)]  # fmt: skip
    assert pages[0] != pages[1]


def test_behaviours_happen_as_often_as_the_truth_says(truth: Truth):
    expected, done, stays = np.zeros(4), np.zeros(4), list[float]()
    for outcome, _ in visited(Visits(truth, STEADY), range(4, 9), by_chance):
        page, items = outcome.page, outcome.items
        users, days = np.full(6, page.user), np.full(6, page.day)
        logits = pair_logits(truth, users, items, days, 0)
        logits[:, :-1] += truth.device[:, page.device]
        logits[:, 0] -= position_losses(truth)[:6]
        chance = expit(logits[:, :-1])
        for t, parent in enumerate(WORLD.parents):
            if t:
                chance[:, t] *= chance[:, parent]
        expected += chance.sum(0)
        done += outcome.done.sum(0)
        clicked = outcome.done[:, 0]
        stays += [*((np.log(outcome.stay[clicked]) - logits[clicked, -1]) / WORLD.stay.noise)]
        assert not outcome.stay[~clicked].any()
        assert_array_equal(outcome.value > 0, outcome.done[:, -1])
    assert_allclose(done, expected, atol=4 * np.sqrt(expected).max())
    assert abs(np.mean(stays)) < 4 / np.sqrt(len(stays))
    assert_allclose(np.std(stays), 1, atol=0.1)


def test_a_user_tires_of_what_was_shown_and_leaves_earlier_after_poor_pages(truth: Truth):
    def clicks(**settings: float) -> tuple[int, int]:
        told = STEADY.model_copy(update={"sessions": 1.5, **settings})
        found = [one.done[:, 0].sum() for one, _ in visited(Visits(truth, told), range(3, 5), first_alive)]
        return len(found), int(sum(found))

    pages, fresh = clicks()
    assert clicks(fatigue=1.0)[0] == pages
    assert clicks(fatigue=1.0)[1] < 0.8 * fresh
    # the first items that are alive are of one community, which most users like less than what is usual
    assert clicks(patience=2.0)[0] != pages
    usual = WORLD.positions * WORLD.behaviors[0].rate
    assert (clicks(patience=2.0)[0] > pages) == (fresh / pages > usual)
    assert (clicks(loyalty=1.0)[0] > pages) == (fresh / pages > usual)


@given(loss=st.sampled_from([0.0, 0.3]))
def test_everything_is_reported_once_when_it_is_known_unless_it_is_lost(truth: Truth, loss: float):
    visits = Visits(truth, STEADY.model_copy(update={"loss": loss}))
    outcomes, reports = list[Outcomes](), list[Report]()
    for outcome, due in visited(visits, range(3, 5), by_chance):
        assert all(one["time"] < outcome.page.time for report in due for one in report.labels)
        outcomes.append(outcome)
        reports += due
    reports += visits.due(2**62)
    assert not visits.due(2**62)
    ids = truth.item_ids
    exposures = [(one["request"], one["item"]) for report in reports for one in report.exposures]
    shown = [(one.page.request, int(item)) for one in outcomes for item in ids.of(one.items)]
    assert len({*exposures}) == len(exposures)
    done = dict[tuple[str, int], set[str]]()
    for report in reports:
        for label in report.labels:
            assert label["time"] >= visits.start_of(3)
            happened = {name for name, value in label["labels"].items() if value and name != "stay"}
            done.setdefault((label["request"], label["item"]), set()).update(happened)
    truly = {
        (one.page.request, int(ids.of(item))): {name for t, name in enumerate(WORLD.names) if row[t]}
        for one in outcomes
        for item, row in zip(one.items, one.done, strict=True)
    }
    if loss:
        assert {*exposures} < {*shown}
        assert abs(len(exposures) / len(shown) - 0.7) < 0.05
        assert all(known <= truly[place] for place, known in done.items())
    else:
        assert sorted(exposures) == sorted(shown)
        assert done == truly


def test_items_arrive_with_their_vectors_and_go_at_the_end_of_their_lives(truth: Truth):
    visits, arrival = Visits(truth, VisitSettings(lifetime=3)), truth.items.arrival
    for day in range(1, WORLD.days):
        changes = visits.changes(day, ["content"])
        new = [one for one in changes if "features" in one]
        gone = [one["item"] for one in changes if one.get("withdrawn")]
        assert [one["item"] for one in new] == truth.item_ids.of(np.flatnonzero(arrival == day)).tolist()
        assert gone == truth.item_ids.of(np.flatnonzero((arrival > 0) & (arrival == day - 3))).tolist()
        for one in new:
            vector = contents(truth, "item")[truth.item_ids.index([one["item"]])[0]]
            assert_allclose(one["features"]["content"], vector)
        assert not [one for one in visits.changes(day, []) if "features" in one]
    alive = visits.alive(8)
    assert_array_equal(alive, np.flatnonzero((arrival == 0) | ((arrival <= 8) & (arrival > 5))))
    left = {one["item"] for one in visits.changes(8, [], is_first=True) if one.get("withdrawn")}
    assert left == {*truth.item_ids.of(np.flatnonzero((arrival > 0) & (arrival <= 5))).tolist()}
    old = np.flatnonzero(((arrival > 0) & (arrival < 5)) | (arrival > 8))
    visits.open(8)
    page = visits.next_page()
    assert page is not None
    assert not visits.show(page, old).done.any()


def test_nobody_comes_before_the_own_arrival_and_a_day_ends_at_midnight():
    truth = make_truth(WORLD.model_copy(update={"users": 40, "arriving_users": 0.9}))
    visits = Visits(truth, VisitSettings(next_page=0.95, sessions=3))
    for outcome, _ in visited(visits, range(2, 4), first_alive):
        page = outcome.page
        assert truth.users.arrival[page.user] <= page.day
        assert visits.start_of(page.day) <= page.time < visits.start_of(page.day) + DAY


def test_a_world_whose_wishes_depend_on_more_is_refused():
    for world in (SMALL.model_copy(update={"trends": 0.2}), OPPOSED):
        with pytest.raises(ConfigError, match="users answer a service in a world without lives"):
            Visits(make_truth(world), VisitSettings())
