"""Undoing the sampling of negatives: from the odds that a model learns to a probability that means something.

Axes: `B` pairs, `T` tasks, `I` items.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mgoe.config import NegativeSettings, TaskSettings
from mgoe.data import Prepared

Floats = TypeVar("Floats", bound=np.floating)


def sampling_prior(prepared: Prepared, form: str, negatives: NegativeSettings) -> NDArray[np.float32]:
    """What to add to the log-odds of doing anything, to undo the sampling of negatives, an item (ours).

    A model fitted on `r` negatives a positive, drawn from `q(i)`, estimates the odds `p(u, i) / (r n q(i))`, with `n` the positives of an
    active user in a bucket. Adding `log(r n q(i))` gives the probability that a user who is active in a bucket does something on the
    item in it. Exposure logs hold real negatives: nothing is added.

    Draws by popularity follow the positives, of which `q` is counted; uniform ones depend on how many buckets an item occurs in, so that
    they are counted themselves.

    Returns:
        Shape (I + 1,); the last entry is for items the log never had.
    """
    items = prepared.items.size
    if form == "exposures":
        return np.zeros(items + 1, np.float32)
    seen = np.ones(items + 1)  # one each, so that no item is impossible
    for train in prepared.streamed("train").parts():
        done = (np.nan_to_num(train.labels) > 0).any(axis=1)
        counted = done if negatives.distribution == "popularity" else ~done
        seen += np.bincount(train.item[counted], minlength=items + 1)[: items + 1]
    drawn = prepared.summary["negatives_per_positive"] * prepared.summary["positives_per_user_bucket"] * seen / seen.sum()
    return np.log(drawn).astype(np.float32)


def shifted_tasks(tasks: Sequence[TaskSettings]) -> NDArray[np.bool_]:
    """Whose probabilities are recalibrated: binary tasks, but for those within a sample space, which no sampled negative enters. (T,)."""
    return np.array([task.kind == "binary" and task.given is None for task in tasks])


def chain(name: str, tasks: Sequence[TaskSettings]) -> list[str]:
    """A task behind those that it is given: the product of their probabilities is how likely it is done at all."""
    given = {task.name: task.given for task in tasks}
    above = given[name]
    return [name] if above is None else [*chain(above, tasks), name]


def in_whole_space(probabilities: NDArray[Floats], tasks: Sequence[TaskSettings]) -> NDArray[Floats]:
    """Probabilities (B, T) of tasks within a sample space as those over all pairs: times those of the tasks that they are given."""
    names = [task.name for task in tasks]
    return np.stack([probabilities[:, [names.index(one) for one in chain(name, tasks)]].prod(axis=1) for name in names], axis=1)


def recalibrate(probabilities: NDArray[np.float32], shift: NDArray[np.float32], shifted: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Undo the sampling of negatives in the tasks that `shifted_tasks` names; probabilities and values of the others stay (ours).

    A sampled negative stands for pairs on which nothing was done. It changes the odds that anything is done, to whose logarithm the shift
    is added, and not what share of what is done each task has. The likeliest task stands for anything: exactly so where every positive
    has it, as a click.

    Args:
        probabilities: Shape (B, T).
        shift: Of the log-odds, as `sampling_prior` has it. Shape (B,).
        shifted: Shape (T,).
    """
    if not shifted.any():
        return probabilities
    anything = probabilities[:, shifted].max(axis=1)
    share = 1 / (anything + (1 - anything) * np.exp(-shift))
    return np.where(shifted, probabilities * share[:, None], probabilities)
