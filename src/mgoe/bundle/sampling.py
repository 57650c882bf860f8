"""Undo the sampling of negatives: from the odds that a model learns to those over the whole catalogue.

Axes: `B` pairs, `T` tasks, `I` items.
"""

from collections.abc import Sequence
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import logit

from mgoe.config import NegativeSettings, Settings, TaskSettings
from mgoe.data import Prepared
from mgoe.graph import MacroGraph, Snapshot

Floats = TypeVar("Floats", bound=np.floating)
SMALLEST, LARGEST = 1e-30, 1 - 2.0**-25
"""Probabilities whose log-odds are finite; the larger one is the closest to 1 in float32."""
RIDGE = 1e-4
"""Penalty per draw on the weights of a forecast: small logs have items that all look alike."""


class Sampling(Settings):
    """How many negatives an item is expected to be, forecast from what a snapshot knows of it (ours).

    With `r` draws per positive from `q(i)`, and `n` positives of an active user in a bucket, `r n q(i) (1 -
    p(u, i))` negatives stand beside `p(u, i)` positives: a draw that the user did is dropped. So the odds
    that a model learns, times `r n q(i)`, are those that a user who is active in a bucket does something on
    the item in it. Draws follow what is popular in their bucket, which is not known beforehand. So `q` is a
    forecast, a softmax over items of `w x(i)`: `x` holds the logarithms of 1 + the pairs of an item, its
    events since the snapshot before, and the buckets since its last event.

    Attributes:
        drawn: `r n`, the negatives of an active user in a bucket.
        weights: `w`.

    Example:
        >>> sampling = Sampling.fit(prepared, graph, NegativeSettings())
        >>> prior = sampling.prior(graph.latest)
        >>> bool(np.isclose(np.exp(prior[:-1]).sum(), sampling.drawn, rtol=1e-4))
        True
    """

    drawn: float = Field(gt=0, allow_inf_nan=False)
    weights: tuple[float, float, float]

    @classmethod
    def fit(cls, prepared: Prepared, graph: MacroGraph, negatives: NegativeSettings) -> Self | None:
        """Fit the forecast to what was drawn in the training windows, each by the snapshot before it.

        Draws by popularity follow the positives, which are counted for them. Uniform ones depend on how many
        buckets an item occurs in, so that they are counted themselves, the dropped ones in proportion added.

        Returns:
            None if training lacks positives or negatives, so that nothing can be undone.
        """
        counted: dict[int, NDArray[np.float64]] = {}  # positives and negatives per item, (2, I)
        for train in prepared.streamed("train").parts():
            negative = 1 - (np.nan_to_num(train.labels) > 0).max(axis=1)
            for window in np.unique(train.snapshot).tolist():
                items = graph.snapshots[window].n_items
                rows = (train.snapshot == window) & (train.item < items)
                place = train.item[rows] + items * negative[rows]
                found = counted.setdefault(window, np.zeros((2, items)))
                found += np.bincount(place, minlength=2 * items).reshape(2, items)
        done, kept = np.sum([each.sum(axis=1) for each in counted.values()], axis=0) if counted else (0, 0)
        if not (done and kept):
            return None
        n, drawn = prepared.summary["positives_per_user_bucket"], float(negatives.ratio)
        draws = {window: positive for window, (positive, _) in counted.items()}
        if negatives.distribution == "uniform":
            active = {window: max(1.0, positive.sum() / n) for window, positive in draws.items()}
            draws = {
                window: taken * active[window] / np.maximum(active[window] - positive, 1)
                for window, (positive, taken) in counted.items()
            }
            drawn = prepared.summary["negatives_per_positive"] * sum(map(np.sum, draws.values())) / kept
        windows = [(_seen(graph.snapshots[window]), draws[window]) for window in counted]
        return cls(drawn=drawn * n, weights=_fit(windows))

    def prior(self, snapshot: Snapshot) -> NDArray[np.float32]:
        """Return what to add to the log-odds of items to undo their sampling, `log(r n q(i))`.

        Returns:
            Shape (I + 1,); the last entry is for items that the snapshot does not know.
        """
        scores = np.append(_seen(snapshot) @ self.weights, 0.0)
        total = np.logaddexp.reduce(scores[:-1]) if len(scores) > 1 else 0.0
        return (np.log(self.drawn) + scores - total).astype(np.float32)


def prior_of(sampling: Sampling | None, snapshot: Snapshot) -> NDArray[np.float32]:
    """Return what undoing the sampling adds to the log-odds of each item of a snapshot.

    Returns:
        Shape (I + 1,), zeros without sampling; the last entry is for items that the snapshot does not know.
    """
    return np.zeros(snapshot.n_items + 1, np.float32) if sampling is None else sampling.prior(snapshot)


def shift_of(prior: NDArray[np.float32], items: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the entries of `prior_of` for items by index; other indices are unknown. Shape (B,)."""
    return prior[np.where((items < 0) | (items >= len(prior)), -1, items)]


def _seen(snapshot: Snapshot) -> NDArray[np.float64]:
    """Return what a forecast reads of the items: pairs, events and idle buckets. Shape (I, 3)."""
    counts = snapshot.arrays["item_counts"]
    tasks = (counts.shape[1] - 3) // 2
    return counts[:, tasks : tasks + 3].astype(np.float64)


def _fit(windows: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> tuple[float, float, float]:
    """Return the weights under which the draws of windows, (I, 3) and (I,) each, are likeliest."""
    total = max(1.0, sum(float(draws.sum()) for _, draws in windows))

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        value, slope = RIDGE * weights @ weights, 2 * RIDGE * weights
        for seen, draws in windows:
            scores = seen @ weights
            scores -= np.logaddexp.reduce(scores)
            value -= draws @ scores / total
            slope -= (draws @ seen - draws.sum() * (np.exp(scores) @ seen)) / total
        return float(value), slope

    from scipy.optimize import minimize  # slow to import, and a service does not need it

    first, second, third = minimize(loss, np.zeros(3), jac=True, method="L-BFGS-B").x.tolist()
    return first, second, third


def shifted_tasks(tasks: Sequence[TaskSettings]) -> NDArray[np.bool_]:
    """Return the tasks that sampled negatives enter: binary ones without a sample space.

    Shape (T,).
    """
    return np.array([task.kind == "binary" and task.given is None for task in tasks])


def chain(name: str, tasks: Sequence[TaskSettings]) -> list[str]:
    """Return a task after those it is given; their product of probabilities is that of doing it at all."""
    above = next(task.given for task in tasks if task.name == name)
    return [name] if above is None else [*chain(above, tasks), name]


def in_whole_space(probabilities: NDArray[Floats], tasks: Sequence[TaskSettings]) -> NDArray[Floats]:
    """Turn probabilities (B, T) within a sample space into those over all pairs."""
    names = [task.name for task in tasks]
    return np.stack(
        [probabilities[:, [names.index(one) for one in chain(name, tasks)]].prod(axis=1) for name in names],
        axis=1,
    )


def log_odds_of_anything(
    probabilities: NDArray[np.floating], shifted: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the log-odds that anything is done: those of the likeliest task of `shifted_tasks`.

    Args:
        probabilities: Shape (B, T).
        shifted: Shape (T,); zeros are returned if it holds no task.
    """
    if not shifted.any():
        return np.zeros(len(probabilities))
    likeliest = probabilities[:, shifted].max(axis=1).astype(np.float64)
    return logit(np.clip(likeliest, SMALLEST, LARGEST))


def undo_sampling(
    probabilities: NDArray[Floats], shift: NDArray[np.floating], shifted: NDArray[np.bool_]
) -> NDArray[Floats]:
    """Undo the sampling of negatives in the tasks of `shifted_tasks`; other values stay (ours).

    A sampled negative stands for pairs on which nothing was done. It changes the odds that anything is done,
    to whose logarithm the shift is added, and not what share of what is done each task has. The likeliest
    task stands for anything, exactly so if every positive has it, as a click.

    Args:
        probabilities: Shape (B, T).
        shift: Added to the log-odds, see `shift_of`. Shape (B,).
        shifted: Shape (T,).
    """
    if not shifted.any():
        return probabilities
    anything = probabilities[:, shifted].max(axis=1)
    share = 1 / (anything + (1 - anything) * np.exp(-shift))
    return np.where(shifted, probabilities * share[:, None], probabilities)
