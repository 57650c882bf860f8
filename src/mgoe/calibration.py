"""Undoing the sampling of negatives: from the odds that a model learns to a probability that means something.

Axes: `B` pairs, `T` tasks, `I` items.
"""

import numpy as np
from numpy.typing import NDArray

from mgoe.config import NegativeSettings
from mgoe.data import Prepared


def sampling_prior(prepared: Prepared, form: str, negatives: NegativeSettings) -> NDArray[np.float32]:
    """What to add to a logit to undo the sampling of negatives, an item (ours).

    A model fitted on `r` negatives a positive, drawn from `q(i)`, estimates the odds `p(u, i) / (r n q(i))`, with `n` the positives of an
    active user in a bucket. Adding `log(r n q(i))` gives the probability that a user who is active in a bucket does the task on the
    item in it. Exposure logs hold real negatives: nothing is added.

    Returns:
        Shape (I + 1,); the last entry is for items the log never had.
    """
    items = prepared.items.size
    if form == "exposures":
        return np.zeros(items + 1, np.float32)
    seen = np.ones(items + 1)  # one each, so that no item is impossible
    if negatives.distribution == "popularity":
        for train in prepared.streamed("train").parts():
            done = (np.nan_to_num(train.labels) > 0).any(axis=1)
            seen += np.bincount(train.item[done], minlength=items + 1)[: items + 1]
    drawn = prepared.summary["negatives_per_positive"] * prepared.summary["positives_per_user_bucket"] * seen / seen.sum()
    return np.log(drawn).astype(np.float32)


def recalibrate(probabilities: NDArray[np.float32], shift: NDArray[np.float32], binary: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Shift the log-odds of binary tasks.

    Args:
        probabilities: Shape (B, T).
        shift: Shape (B,).
        binary: Which tasks are; values of regressions stay. Shape (T,).
    """
    p = np.clip(probabilities.astype(np.float64), 1e-12, 1 - 1e-12)
    shifted = 1 / (1 + (1 - p) / p * np.exp(-shift.astype(np.float64))[:, None])
    return np.where(binary, shifted, probabilities).astype(np.float32)
