"""Tables of a comparison: who is compared with whom, and what is said of it."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.evaluation import Influence, Standings, find_leads, markdown, verdict
from mgoe.evaluation.report.sections import forest_plots
from mgoe.evaluation.tables import differences, quality

MEAN = ("all", "ranking")


def standings(values: dict[str, dict[int, float]], column: tuple[str, str] = MEAN, **about) -> Standings:
    """Return standings of models with one value per seed and equal users; the first is the reference."""
    users = np.arange(4)
    of = {
        model: {
            seed: Influence((column,), np.array([value]), users, np.zeros((4, 1), np.float32))
            for seed, value in found.items()
        }
        for model, found in values.items()
    }
    where = {"split": "test", "slice": "all", "task": column[0], "metric": column[1]}
    rows = [
        {"model": m, "seed": s, "value": v, **where} for m, found in values.items() for s, v in found.items()
    ]
    reference = next(iter(values))
    return Standings(
        "Who?",
        "log",
        reference,
        list(values),
        rows,
        leads=find_leads(reference, of[reference], of, draws=200),
        **about,
    )  # type: ignore[arg-type]


def strong(sheet) -> set[str]:
    return {name for name, cells in sheet.lines if any(cell.strong for cell in cells)}


@given(st.lists(st.lists(st.floats(0.5, 0.9), min_size=3, max_size=3), min_size=2, max_size=5))
def test_places_are_those_of_means_where_all_have_the_same_seeds(values):
    found = standings({f"m{k}": dict(enumerate(seeds)) for k, seeds in enumerate(values)})
    means = [float(np.mean(seeds)) for seeds in values]
    exact = {1 + sum(mean > means[0] + slack for mean in means[1:]) for slack in (-1e-9, 1e-9)}
    place = re.match(r"On the mean, m0 is (?:first|number (\d+)) of (\d+)\.", verdict(found))
    assert place is not None
    assert int(place[1] or 1) in exact
    assert int(place[2]) == len(values)


def test_a_model_with_fewer_seeds_is_neither_the_best_nor_beaten():
    """`b` would have the higher mean, had it only run the seed that was kind to all."""
    found = standings(
        {"a": {0: 0.760, 1: 0.740, 2: 0.741}, "b": {0: 0.755}, "c": {0: 0.70, 1: 0.69, 2: 0.68}}
    )
    assert strong(quality(found)) == {"a"}
    lines = differences(found)
    assert lines is not None
    assert strong(lines) == {"c"}
    assert {name: cells[-1].text for name, cells in lines.lines} == {"b": "1", "c": "3"}
    assert {name: cells[-2].text == "-" for name, cells in lines.lines} == {"b": True, "c": False}
    assert (
        "a is first of 2. Significantly ahead of 1 of 1 baselines (1 after Holm's correction), behind 0"
        in verdict(found)
    )
    assert verdict(found).endswith("Not counted: 1 that shares fewer seeds with it.")


def test_the_best_is_so_on_the_seeds_that_are_shared():
    """`b` has seeds of its own that are kind to it, and the reference one that was kind to nobody."""
    found = standings(
        {
            "a": {0: 0.70, 1: 0.72, 2: 0.60},
            "b": {0: 0.69, 1: 0.71, 3: 0.90},
            "c": {0: 0.68, 1: 0.70},
            "d": {2: 0.65},
        }
    )
    assert strong(quality(found)) == {"a"}
    assert "a is first of 3" in verdict(found)
    assert "Not counted: 1" in verdict(found)


def test_baselines_with_other_seeds_are_compared_on_the_seeds_they_share():
    found = standings({"a": {0: 0.60, 1: 0.80}, "b": {0: 0.61}, "c": {1: 0.79}})
    assert strong(quality(found)) == {"b"}
    assert "a is number 2 of 3" in verdict(found)


def test_without_the_reference_nobody_is_the_best():
    assert strong(quality(standings({"a": {}, "b": {0: 0.7}, "c": {0: 0.6}}))) == set()


@pytest.mark.parametrize(("values", "shown"), [({"b": 0.6}, {"b"}), ({"b": math.nan}, set())])
def test_what_is_bold_is_what_is_strong_in_drawings(values: dict[str, float], shown: set[str]):
    found = standings({"a": {0: 0.7}} | {model: {0: value} for model, value in values.items()})
    lines = differences(found)
    assert lines is not None
    assert strong(lines) == shown
    assert {mark.name for plot in forest_plots(found) for mark in plot.marks if mark.cell.strong} == shown


def test_a_name_with_a_bar_is_one_cell():
    head, line = re.findall(
        r"^\| (?:model|a\\\|b) .*$", markdown([standings({"a|b": {0: 0.7}, "c": {0: 0.6}})]), re.MULTILINE
    )[:2]
    assert line.count("|") - 1 == head.count("|")


def test_with_one_seed_the_verdict_says_so():
    assert verdict(standings({"a": {0: 0.7}, "b": {0: 0.6}})).endswith(
        "With one seed intervals are over users alone."
    )


def test_what_was_not_measured_has_no_place():
    assert verdict(standings({"a": {0: math.nan}, "b": {0: math.nan}})) == ""
    assert "a is first of 2" in verdict(standings({"a": {0: 0.7}, "b": {0: math.nan}, "c": {0: 0.6}}))


@pytest.mark.parametrize(
    ("ours", "said"),
    [(0.5, "first of 2. Significantly ahead of 1 of 1 baselines"), (0.9, "number 2 of 2")],
)
def test_errors_are_better_when_lower(ours, said):
    found = standings({"a": {0: ours, 1: ours, 2: ours}, "b": {0: 0.7, 1: 0.7, 2: 0.7}}, ("stay", "rmse"))
    assert verdict(found).startswith(f"In stay RMSE, a is {said}")
    lines = differences(found)
    assert lines is not None
    assert "p of stay RMSE, adjusted" in lines.columns


def test_tables_say_which_cells_failed():
    text = markdown(
        [
            standings(
                {"a": {0: 0.7}, "b": {0: 0.6}},
                missing={"b": "failed with seed 1: killed_by 9"},
                notes=["Made twice."],
            )
        ]
    )
    assert "b: failed with seed 1" in text
    assert "Made twice." in text
    assert "first of 2" in text


def test_models_of_which_the_same_is_said_share_a_sentence():
    waiting = "2 of 3 seeds are not run yet"
    found = standings(
        {"a": {0: 0.7}},
        missing={"b": waiting, "c": "failed with seed 1: killed_by 9", "d": waiting},
        notes=["Made twice."],
    )
    assert found.remarks == [f"b, d: {waiting}", "c: failed with seed 1: killed_by 9", "Made twice."]
