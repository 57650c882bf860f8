"""A bundle holds how its scores and inputs were distributed."""

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mgoe
from mgoe.bundle.population import POPULATION, Histogram
from mgoe.data import Prepared
from mgoe.errors import BundleError

VALUES = st.lists(st.integers(-3, 3).map(float) | st.floats(-9, 9, width=32), min_size=1, max_size=60)


@given(VALUES, VALUES)
def test_bins_are_counted_one_by_one(values: list[float], others: list[float]):
    found = Histogram.of(np.array(values))
    assert sum(found.counts) == len(values)
    assert len(found.counts) <= 10
    assert min(found.counts) > 0
    bounds = [-np.inf, *found.edges, np.inf]
    for given_values, counts in ((values, found.counts), (others, found.count(np.array(others)).tolist())):
        naive = [sum(low < one <= high for one in given_values) for low, high in pairwise(bounds)]
        assert counts == naive


def test_values_that_are_not_finite_make_no_bins():
    assert Histogram.of(np.array([np.nan, 1.0, 2.0])).counts == [1, 1]
    assert Histogram.of(np.full(3, np.nan)) == Histogram(edges=[], counts=[0])


def test_the_histograms_are_of_the_newest_labelled_rows(shown: Path):
    """They are what the bundle itself says of these rows, as far as its later graph lets it."""
    bundle, test = mgoe.load(shown / "bundle"), Prepared.open(shown / "data").examples("test")
    population = bundle.population
    assert list(population.scores) == list(bundle.tasks)
    assert {"context.device", "user_side.community", "counts", "rates"} <= set(population.inputs)
    [device] = population.inputs["context.device"]
    assert device.counts == device.count(test.context["device"]).tolist()
    for several in (*population.scores.values(), *population.inputs.values()):
        assert all(sum(one.counts) == len(test) for one in several)
    assert len(population.inputs["counts"]) == bundle.model.spec.widths["counts"]


def test_a_damaged_file_of_them_is_refused(finished: Path, tmp_path: Path):
    path = shutil.copytree(finished / "bundle", tmp_path / "bundle")
    (path / POPULATION).write_text("{}")
    with pytest.raises(BundleError, match="does not match its checksum"):
        mgoe.load(path)
