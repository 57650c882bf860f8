"""What a bundle's lists would have earned is what they earn when they are shown."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mgoe.abtest.policy import PolicyEstimate, estimate_policy
from mgoe.abtest.samples import read_answers
from mgoe.bundle import Bundle
from mgoe.config.experiment import ExploreSettings
from mgoe.errors import DataError
from tests.abtest.lists import AFTER, LISTS, USERS, logged, outcomes, ranked, rate
from tests.bundle.test_ranking import Half

MANY = 2_700
"""Lists of which an estimate has small errors."""
WIDE, NARROW = ExploreSettings(temperature=0.3), ExploreSettings(temperature=0.1)
LAST = ExploreSettings(epsilon=0.5, last=2)


@pytest.fixture(scope="module")
def bundle(shown: Path) -> Bundle:
    return Bundle.open(shown / "bundle")


def by_method(found: PolicyEstimate, task: str = "click") -> dict[str, Any]:
    return {one.method: one for one in found.estimates if one.task == task}


@pytest.mark.parametrize("how", [WIDE, LAST])
@pytest.mark.parametrize("retrieves", [False, True])
def test_the_policy_that_was_logged_earns_what_was_logged(
    shown: Path, how: ExploreSettings, retrieves: bool
) -> None:
    bundle: Any = Bundle.open(shown / "bundle")
    bundle.retrieval = Half() if retrieves else None
    answers = logged(bundle, how)
    found = estimate_policy(bundle, answers, outcomes(answers), how)
    assert (found.lists, found.users, found.left_out) == (LISTS, USERS, 0)
    assert (found.effective, found.support) == (pytest.approx(LISTS), pytest.approx(1))
    assert found.bundle == bundle.name
    for task in bundle.tasks:
        methods = by_method(found, task)
        assert methods["IPS"].value == pytest.approx(methods["logged"].value)
        assert methods["self-normalised"].value == pytest.approx(methods["logged"].value)
    rows = outcomes(answers)
    assert by_method(found)["logged"].value == pytest.approx(rows["click"].sum() / LISTS)
    assert by_method(found, "buy")["logged"].value == pytest.approx(rows["buy"].sum() / LISTS)
    assert by_method(found, "stay")["logged"].value == pytest.approx(rows["stay"].sum() / LISTS)


def test_another_policy_earns_what_it_earns_when_it_is_shown(bundle: Bundle) -> None:
    answers, shown = (logged(bundle, how, MANY, from_one_ranking=True) for how in (WIDE, NARROW))
    truth = np.mean([rate(items).sum() for items in shown["items"].map(np.int64)])
    found = by_method(estimate_policy(bundle, answers, outcomes(answers), NARROW))
    for method in ("IPS", "self-normalised", "doubly robust"):
        low, high = found[method].interval
        error = (high - low) / (2 * 1.96)
        assert abs(found[method].value - truth) < 4 * error < 0.5, method


def test_lists_that_are_drawn_from_one_ranking_are_those_of_a_service(bundle: Bundle) -> None:
    for how in (WIDE, LAST):
        fast, real = (logged(bundle, how, 20, from_one_ranking=quick) for quick in (True, False))
        pd.testing.assert_frame_equal(fast, real)


def test_steps_are_those_of_a_loop_over_places(bundle: Bundle) -> None:
    answers = logged(bundle, WIDE, 120, from_one_ranking=True)
    rows = outcomes(answers)
    found = by_method(estimate_policy(bundle, answers, rows, NARROW))
    ips, robust, tasks = 0.0, 0.0, list(bundle.tasks)
    for one in answers.to_dict("records"):
        every = ranked(bundle, one["user"], bundle.n_items)
        names = [str(item) for item in bundle.ids("item", every.items)]
        click, weight, left = every.scores[:, tasks.index("click")], 1.0, list(range(len(names)))
        own = rows[rows["request"] == one["request"]]
        clicks = dict(zip(own["item_id"].astype(str), own["click"], strict=True))
        for item, propensity in zip(one["items"], one["propensities"], strict=True):
            odds = np.exp((every.values[left] - every.values[left].max()) / 0.1)
            odds /= odds.sum()
            at = names.index(item)
            robust += weight * float(odds @ click[left])
            weight *= odds[left.index(at)] / propensity
            ips += weight * clicks[item]
            robust += weight * (clicks[item] - click[at])
            left.remove(at)
    assert found["IPS"].value == pytest.approx(ips / 120)
    assert found["doubly robust"].value == pytest.approx(robust / 120, rel=1e-5)


def test_rows_without_a_request_count_for_the_list_before_them(bundle: Bundle) -> None:
    answers = logged(bundle, LAST, 100, from_one_ranking=True)
    rows = outcomes(answers)
    joined = estimate_policy(bundle, answers, rows, LAST)
    assert estimate_policy(bundle, answers, rows.drop(columns="request"), LAST) == joined


def change_propensity(value: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def changed(answers: pd.DataFrame) -> pd.DataFrame:
        lists = answers["propensities"].map(list)
        lists[5][1] = value
        return answers.assign(propensities=lists)

    return changed


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (change_propensity(0.0), "must be above 0 and at most 1, found 0 in 1 of 300 places"),
        (change_propensity(1.2), "must be above 0 and at most 1, found 1.2 in 1 of 300 places"),
        (change_propensity(np.nan), "must be above 0 and at most 1, found nan in 1 of 300 places"),
        (lambda a: a.assign(propensities=None), "must be in answers of /v1/recommend, found none in 100"),
        (lambda a: a.assign(route="rank"), "must be in answers of /v1/recommend, found none in 100"),
        (lambda a: a.assign(propensities=a["propensities"].str[:2]), "must have one value per item"),
        (
            lambda a: a.assign(time=a["time"] - AFTER),
            "must be later than what the bundle has learned, until 20",
        ),
        (lambda a: a.assign(time=a["time"] + 10_000), "and not later than the log, until 2096-"),
        (lambda a: a.assign(items=[["5", "6", "7"]] * 100), "must support the lists of the bundle"),
    ],
)
def test_answers_that_say_nothing_of_a_bundle_are_refused(
    bundle: Bundle, change: Callable[[pd.DataFrame], pd.DataFrame], sentence: str
) -> None:
    answers = logged(bundle, LAST, 100, from_one_ranking=True)
    rows = outcomes(answers)
    with pytest.raises(DataError) as caught:
        estimate_policy(bundle, change(answers), rows, LAST)
    assert sentence in str(caught.value)


def test_lists_that_the_bundle_has_learned_and_that_are_newer_than_the_log_are_left_out(
    bundle: Bundle, tmp_path: Path
) -> None:
    answers = logged(bundle, LAST, 100, from_one_ranking=True)
    rows = outcomes(answers)
    answers.loc[:9, "time"] = 1
    answers.loc[95:, "time"] = AFTER + 10_000
    answers.to_parquet(tmp_path / "answers.parquet")
    found = estimate_policy(bundle, read_answers(tmp_path / "answers.parquet"), rows, LAST)
    assert (found.lists, found.left_out) == (85, 15)
