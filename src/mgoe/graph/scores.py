"""Merging scores: one number for everything a user did to an item, and its fixed-point form."""

import numpy as np
from numpy.typing import NDArray

from mgoe.errors import ConfigError, GraphError

FRACTION_BITS = 12
"""Scores are integers of unit 2^-12, so sums are the same in any order, on any engine, with any number of
threads.
"""
UNIT = 1 << FRACTION_BITS


def merging_score(
    task_masks: NDArray[np.integer], ranks: NDArray[np.floating], beta: float, code: str = "sum"
) -> NDArray[np.float64]:
    """Return one score per pair from the tasks done on it (MGOE eq. 6).

    g(c) = ((rho(c) + 1)^beta - 1) / beta, and ln(rho(c) + 1) at beta = 0. rho(c) is the sum of the ranks of
    the tasks in c, or c itself read as a number (`code="bits"`, POGCN). Monotone in every task; a pair with
    no task scores 0.

    Args:
        task_masks: Bit t is set if task t was done. Shape (E,).
        ranks: Rank of each task, positive, ties allowed. Shape (T,).
        beta: Curvature in [0, 1]. 1 keeps the ranks, 0 takes their logarithm.
        code: How ranks merge: `sum` or `bits`.

    Returns:
        Scores, in [0, inf). Shape (E,).

    Raises:
        ConfigError: A rank is not positive.

    Example:
        >>> merging_score(np.array([0b001, 0b110]), np.array([1.0, 2.0, 3.0]), beta=1.0)
        array([1., 5.])
    """
    if (ranks <= 0).any():
        raise ConfigError(
            "tasks.rank",
            f"every rank must be positive, found {ranks.min():g}; ranks start at 1 for the weakest task",
        )
    has_task = task_masks[:, None] >> np.arange(len(ranks)) & 1  # (E, T)
    rho = has_task @ (ranks if code == "sum" else 2.0 ** np.arange(len(ranks)))
    return np.log1p(rho) if beta == 0 else np.expm1(beta * np.log1p(rho)) / beta


def score_table(ranks: NDArray[np.floating], beta: float, code: str = "sum") -> NDArray[np.int64]:
    """Return the fixed-point score of every task mask, at least one unit if it has a task. Shape (2^T,), unit
    2^-12.

    Raises:
        GraphError: Products of two scores would overflow.
    """
    scores = np.rint(merging_score(np.arange(1 << len(ranks)), ranks, beta, code) * UNIT)
    scores[1:] = np.maximum(scores[1:], 1)
    check_overflow(scores, scores)
    return scores.astype(np.int64)


def check_overflow(one: NDArray[np.number], other: NDArray[np.number]) -> None:
    """Refuse scores if their 2nd-order sums could exceed 64 bits.

    No such sum exceeds the largest sum of one side times that of the other.

    Args:
        one, other: Fixed-point score sums of the nodes of each side. Shape (U,), (I,).
    """
    if not float(one.max(initial=0)) * float(other.max(initial=0)) < 2.0**62:
        raise GraphError(
            "graph.beta",
            "2nd-order sums of scores would overflow 64 bits; use a smaller graph.beta or smaller task ranks",
        )
