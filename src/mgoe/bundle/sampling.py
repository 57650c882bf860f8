"""Undo the sampling of negatives: from the odds that a model learns to those over the whole catalogue.

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
    """Return, per item, what to add to the log-odds to undo the sampling of negatives (ours).

    With `r` draws per positive from `q(i)`, and `n` positives of an active user in a bucket, `r n q(i) (1 -
    p(u, i))` negatives stand beside `p(u, i)` positives: a draw that the user did is dropped. So the odds
    that a model learns, times `r n q(i)`, are those that a user who is active in a bucket does something on
    the item in it. Nothing is added if there is nothing to undo: exposure logs hold real negatives, and
    training may lack positives or negatives.

    Draws by popularity follow the positives, of which `q` is counted. Uniform ones depend on how many buckets
    an item occurs in, so that they are counted themselves, the dropped ones in proportion added.

    Returns:
        Shape (I + 1,); the last entry is for items the log never had.
    """
    items = prepared.items.size
    done, kept = np.zeros(items + 1), np.zeros(items + 1)
    for train in () if form == "exposures" else prepared.streamed("train").parts():
        positive = (np.nan_to_num(train.labels) > 0).any(axis=1)
        for counted, rows in ((done, positive), (kept, ~positive)):
            counted += np.bincount(train.item[rows], minlength=items + 1)[: items + 1]
    if not (done.any() and kept.any()):
        return np.zeros(items + 1, np.float32)
    n = prepared.summary["positives_per_user_bucket"]
    if negatives.distribution == "popularity":
        return np.log(negatives.ratio * n * _share(done)).astype(np.float32)
    active = done.sum() / n  # users times the buckets in which they did anything
    not_dropped = np.maximum(active - done, 1) / active
    return np.log(prepared.summary["negatives_per_positive"] * n * _share(kept) / not_dropped).astype(
        np.float32
    )


def _share(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return shares of the total after adding one to each count, so that no item is impossible."""
    return (counts + 1) / (counts + 1).sum()


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


def undo_sampling(
    probabilities: NDArray[Floats], shift: NDArray[np.float32], shifted: NDArray[np.bool_]
) -> NDArray[Floats]:
    """Undo the sampling of negatives in the tasks of `shifted_tasks`; other values stay (ours).

    A sampled negative stands for pairs on which nothing was done. It changes the odds that anything is done,
    to whose logarithm the shift is added, and not what share of what is done each task has. The likeliest
    task stands for anything, exactly so if every positive has it, as a click.

    Args:
        probabilities: Shape (B, T).
        shift: Added to the log-odds, see `sampling_prior`. Shape (B,).
        shifted: Shape (T,).
    """
    if not shifted.any():
        return probabilities
    anything = probabilities[:, shifted].max(axis=1)
    share = 1 / (anything + (1 - anything) * np.exp(-shift))
    return np.where(shifted, probabilities * share[:, None], probabilities)
