"""The population that a model was last measured or trained on: histograms of its scores and inputs.

A service compares what it answers with them. They are in `population.json` of a bundle.

Axes: `N` examples, `T` tasks.
"""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mgoe.config import Settings
from mgoe.features import FeatureSpec
from mgoe.metrics import stability_index
from mgoe.training import Feed
from mgoe.training.feed import some_rows

POPULATION = "population.json"
"""File of a bundle."""
BINS = 10
ROWS = 20_000
"""Examples that are counted, at most."""


class Histogram(Settings):
    """Rows by value.

    Attributes:
        edges: Upper bounds of the bins but the last, rising.
        counts: One more than edges.

    Example:
        >>> Histogram.of(np.array([1.0, 2.0, 2.0, 3.0])).counts
        [1, 2, 1]
    """

    edges: list[float]
    counts: list[int]

    @classmethod
    def of(cls, values: NDArray) -> Self:
        """Count values in bins of equally many rows, as far as they are not tied. Shape (N,)."""
        values = values[np.isfinite(values)].astype(np.float64)
        places = np.arange(1, BINS) * len(values) // BINS
        edges = np.unique(np.sort(values)[places]) if len(values) else values
        edges = edges[edges < values.max(initial=-np.inf)].tolist()
        empty = cls(edges=edges, counts=[0] * (len(edges) + 1))
        return empty.model_copy(update={"counts": empty.count(values).tolist()})

    def count(self, values: NDArray) -> NDArray[np.int64]:
        """Return how many values are in each bin."""
        return np.bincount(np.searchsorted(self.edges, values), minlength=len(self.edges) + 1)

    def moved(self, counts: NDArray[np.int64]) -> float:
        """Return the population stability index of other rows, see `stability_index`."""
        return stability_index(self.counts, counts)


Columns = Mapping[str, NDArray]
"""Values by name, of one or several columns each. Shape (N, columns)."""


class Population(Settings):
    """Histograms of examples, one per column.

    Attributes:
        scores: By task, of what a service would have answered.
        inputs: By input group or feature, of what the model read.
    """

    scores: dict[str, list[Histogram]]
    inputs: dict[str, list[Histogram]]


def _histograms(columns: Columns) -> dict[str, list[Histogram]]:
    return {name: [Histogram.of(one) for one in values.T] for name, values in columns.items()}


def population_of(feed: Feed, scores: NDArray[np.floating]) -> Population:
    """Return the population of some examples of a feed.

    Args:
        feed: The examples. N of them.
        scores: What a service would answer. Shape (N, T).
    """
    rows = some_rows(len(feed), ROWS, seed=0)
    inputs = {name: tensor.numpy() for name, tensor in feed.block(rows).items()}
    tasks = [task.name for task in feed.spec.tasks]
    return Population(
        scores=_histograms(score_columns(scores[rows], tasks)),
        inputs=_histograms(input_columns(inputs, feed.spec)),
    )


def score_columns(scores: NDArray[np.floating], tasks: Sequence[str]) -> Columns:
    """Return scores (N, T) by task."""
    return {task: scores[:, [t]] for t, task in enumerate(tasks)}


def input_columns(inputs: Mapping[str, NDArray], spec: FeatureSpec) -> Columns:
    """Return the inputs that have a distribution: numbers, and categories with one value per row."""
    categories = (
        f"{kind}.{feature.name}"
        for kind, features in (
            ("context", spec.context), ("user_side", spec.user_side), ("item_side", spec.item_side),
        )
        for feature in features
        if not feature.multi
    )  # fmt: skip
    names = [name for name in (*spec.moments, *categories) if name in inputs]
    return {name: np.asarray(inputs[name]).reshape(len(inputs[name]), -1) for name in names}
