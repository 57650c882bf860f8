"""Quality against cost: the front and its table."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.evaluation import Cost, Standings, markdown
from mgoe.evaluation.report import render_comparison
from mgoe.evaluation.standings import pareto
from mgoe.evaluation.tables import quality, tradeoff

MEAN = ("all", "ranking")
costs = st.sampled_from([1.0, 2.0, 3.0, 8.0])
values = st.sampled_from([0.5, 0.6, 0.7, 0.8])
models = st.lists(st.tuples(costs, values), min_size=1, max_size=8)


def standings(
    of: dict[str, tuple[float, dict[int, float]]], column: tuple[str, str] = MEAN, **spent: float
) -> Standings:
    """Return standings of models with a time of serving and a value per seed; the first is the reference."""
    where = {"split": "test", "slice": "all", "task": column[0], "metric": column[1]}
    rows = [
        {"model": model, "seed": seed, "value": value, **where}
        for model, (_, by_seed) in of.items()
        for seed, value in by_seed.items()
    ]
    served = {model: Cost(serving_ms=cost, **spent) for model, (cost, _) in of.items()}
    return Standings("Cost?", "log", next(iter(of)), list(of), rows, costs=served)  # type: ignore[arg-type]


@given(models)
def test_who_is_not_on_the_front_is_beaten_by_one_who_is(drawn):
    points = pareto(
        standings({f"m{k}": (cost, {0: value}) for k, (cost, value) in enumerate(drawn)}), "serving_ms"
    )
    assert len(points) == len(drawn)
    assert [point.cost for point in points] == sorted(cost for cost, _ in drawn)
    front = [point for point in points if point.on_front]
    for point in points:
        better = [
            other
            for other in front
            if other.cost <= point.cost
            and other.quality >= point.quality
            and (other.cost, other.quality) != (point.cost, point.quality)
        ]
        assert bool(better) != point.on_front


def test_models_are_compared_on_the_seeds_of_both():
    """`b` ran only the seed that was kind to all, and is behind there."""
    [b, a] = pareto(standings({"a": (2, {0: 0.80, 1: 0.70}), "b": (1, {0: 0.79})}), "serving_ms")
    assert (a.model, b.model) == ("a", "b")
    assert a.quality == pytest.approx(0.75)
    assert b.quality == pytest.approx(0.74)
    assert a.on_front
    assert b.on_front


def test_a_small_error_is_a_good_one():
    found = standings({"a": (1, {0: 0.4}), "b": (2, {0: 0.3}), "c": (3, {0: 0.5})}, ("stay", "rmse"))
    assert [point.on_front for point in pareto(found, "serving_ms")] == [True, True, False]


def test_the_table_has_the_best_first_and_marks_the_front():
    found = standings({"a": (9.6, {0: 0.7}), "b": (1.25, {0: 0.6}), "c": (math.nan, {0: 0.8})}, cpu_seconds=7)
    sheet = tradeoff(found)
    assert sheet is not None
    assert [name for name, _ in sheet.lines] == ["c", "a", "b"]
    assert [[cell.text for cell in cells] for _, cells in sheet.lines] == [
        ["0.8000", "-", "7", "-"],
        ["0.7000", "-", "7", "9.60"],
        ["0.6000", "-", "7", "1.25"],
    ]
    strong = [[cell.strong for cell in cells[2:]] for _, cells in sheet.lines]
    assert strong == [[True, False], [False, True], [False, True]]
    assert "| a | 0.7000 | 7 | 9.60 | 1 |" in markdown([found])


def test_lines_without_a_time_of_serving_make_the_tables_of_before():
    found = standings({"a": (math.nan, {0: 0.7}), "b": (math.nan, {0: 0.6})}, cpu_seconds=3)
    assert tradeoff(found) is None
    assert list(quality(found).columns)[-2:] == ["CPU s", "seeds"]
    page = render_comparison("a", [found])
    assert "quality against cost" not in page


def test_the_page_has_the_table():
    found = standings({"a": (9.6, {0: 0.7}), "b": (1.25, {0: 0.6}), "far": (2, {0: 0.1}), "c": (2, {0: 0.7})})
    page = render_comparison("a", [found])
    table = page.partition("<h3>Quality against cost</h3>")[2].partition("</table>")[0]
    rows = [re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", row)).split() for row in table.split("<tr")[2:]]
    assert [(row[1], row[-1]) for row in rows] == [
        ("c", "2.00"),
        ("a", "9.60"),
        ("b", "1.25"),
        ("far", "2.00"),
    ]
