"""What tables hold of finished cells."""

import numpy as np

from mgoe.evaluation import Cost
from mgoe.pipeline.records import cost_of


def test_costs_that_a_cell_does_not_tell_are_none():
    known = {
        "parameters": 10,
        "training_seconds": 2.0,
        "cpu_seconds": 1.0,
        "scored_per_second": 5,
        "serving_ms": 3,
    }
    whole, earlier = (
        cost_of([known, known | {"cpu_seconds": 3.0}]),
        cost_of([known, {**known, "cpu_seconds": None}]),
    )
    assert whole == Cost(10, 2, 2, 5, 3)
    assert np.isnan(earlier.cpu_seconds)
    assert earlier.training_seconds == 2
    assert np.isnan(cost_of([]).parameters)


def test_one_cell_that_was_timed_is_enough():
    timed, earlier = {"cpu_seconds": 3.0, "serving_ms": 1.5}, {"cpu_seconds": 1.0}
    assert (cost_of([earlier, timed, earlier]).serving_ms, cost_of([timed, timed]).serving_ms) == (1.5, 1.5)
    assert np.isnan(cost_of([earlier]).serving_ms)
