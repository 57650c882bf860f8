"""Rates against what user, item and context alone would give.

A user's rate says as much about what was shown to the user as about the user. The adjusted rate compares
what was done with what was to be expected: for every label, the rate of all labels and the plain rates of the
other nodes and categories of that exposure, added up as log-odds.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mgoe._util.kernels import kernel
from mgoe.graph.arithmetic import exp_of, log
from mgoe.graph.pair_rows import available_threads
from mgoe.graph.rates import RateGroup, RateTable

STEPS = 1.0, 0.5
"""How far means are corrected by what others explain, in each pass over the records."""


class Labels(NamedTuple):
    """Records of exposures with labels of binary tasks, as the kernel reads them.

    Attributes:
        values: Value of each record on the axis of each group. Shape (n, G).
        labelled: Bit t is set if task t is labelled. Shape (n,).
    """

    values: NDArray[np.int64]
    labelled: NDArray[np.int32]


def is_adjusted(group: RateGroup) -> bool:
    """Return whether a group has adjusted rates, over all history: users, items and categories of the
    context of which an exposure has one."""
    axis = group.axes[0]
    alone = len(group.axes) == 1 and group.last is None and not axis.several
    return alone and (axis.kind == "node" or axis.side == "context")


def split_adjusted(
    groups: Sequence[RateGroup], tables: Sequence[RateTable], stored: NDArray[np.float32]
) -> tuple[NDArray[np.float32] | None, ...]:
    """Return the adjusted rates of each group, None where it has none, from those of all stored together."""
    rows = [
        len(table.indptr) - 1 if is_adjusted(group) else 0
        for group, table in zip(groups, tables, strict=True)
    ]
    ends = np.cumsum([0, *rows])
    return tuple(
        stored[ends[g] : ends[g + 1]] if is_adjusted(group) else None for g, group in enumerate(groups)
    )


def adjusted_rates(
    tables: Sequence[RateTable], regressions: NDArray[np.bool_], records: Callable[[], Iterable[Labels]]
) -> list[NDArray[np.float32]]:
    """Return the adjusted rates of groups of one axis (ours).

    With `d` done of `l` labels of a cell, `e` expected of them, and the prior's rate `p` and weight `a`,

        adjusted = ln((d + a p) / (l - d + a (1 - p))) - ln((e + a p) / (l - e + a (1 - p)))

    Where every task is a regression, it is what the others explain of the cell's mean: with `e` the sum of
    their means, centred and shrunk, over its labels, `-e / (l + a)`. These means are corrected likewise, step
    by step (Jacobi's method), so that those of all groups are nearly fitted jointly.

    What is expected is summed in millionths, so the result does not depend on the order of records.

    Args:
        tables: Of the groups that are adjusted to each other.
        regressions: Whether each task is a regression, whose columns are 0 unless all are. Shape (T,).
        records: Returns all records, in parts.

    Returns:
        Shape (values of the axis, T) for each group.
    """
    tasks, means = len(regressions), bool(regressions.all())
    counts = [_dense(table, table.counts) for table in tables]
    starts = np.cumsum([0, *(len(one) for one in counts)])
    labelled = np.concatenate([one[:, 1 : 1 + tasks] for one in counts]).astype(np.float64)
    done = np.concatenate([one[:, 1 + tasks :] for one in counts]).astype(np.float64)
    prior = np.concatenate(
        [np.tile(table.prior, (len(one), 1, 1)) for table, one in zip(tables, counts, strict=True)]
    )
    weighed = labelled + prior[:, :, 1]
    if means:
        sums = np.concatenate([_dense(table, table.values) for table in tables]) * 1e-6
        own, base = (sums - labelled * prior[:, :, 0]) / weighed, np.zeros(tasks)
        rates = own
    else:
        prior[:, regressions] = 0.5, 1.0
        own = _log_odds(done, labelled, prior)
        base = log(prior[0, :, 0] / (1 - prior[0, :, 0]))
        rates = own - log(prior[:, :, 0] / (1 - prior[:, :, 0]))
    with ThreadPoolExecutor(available_threads()) as pool:
        for step in STEPS if means else (1.0,):
            by_task, expected = np.ascontiguousarray(rates.T), np.zeros((tasks, len(own)), np.int64)
            for part in records():
                add = partial(_expect, part, starts, by_task, base, means, expected)
                deque(pool.map(add, range(tasks)), maxlen=0)
            if means:
                rates = rates + step * (own - expected.T * 1e-6 / weighed - rates)
            else:
                rates = own - _log_odds(np.minimum(expected.T * 1e-6, labelled), labelled, prior)
    rates = rates - own if means else np.where(regressions, 0.0, rates)
    return [rates[low:high].astype(np.float32) for low, high in itertools.pairwise(starts)]


def _dense(table: RateTable, column: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the counts, or the sums, of every value of the only axis. Shape (values, columns)."""
    out = np.zeros((len(table.indptr) - 1, column.shape[1]), np.int64)
    there = np.flatnonzero(np.diff(table.indptr))
    out[there] = column[table.indptr[there]]
    return out


def _log_odds(
    done: NDArray[np.float64], labelled: NDArray[np.float64], prior: NDArray[np.float64]
) -> NDArray[np.float64]:
    rate, weight = prior[:, :, 0], prior[:, :, 1]
    return log((done + weight * rate) / (labelled - done + weight * (1 - rate)))


@kernel("out")
def _expect(records, starts, rates, base, means, out, t):  # pragma: no cover - compiled
    """Add what is expected of the labels of task t to the cells of each record, in millionths."""
    values, labelled = records
    groups = values.shape[1]
    for row in range(len(labelled)):
        if not labelled[row] >> t & 1:
            continue
        logit = base[t]
        for g in range(groups):
            logit += rates[t, starts[g] + values[row, g]]
        for g in range(groups):
            cell = starts[g] + values[row, g]
            others = logit - rates[t, cell]
            out[t, cell] += np.int64(round(1e6 * others if means else 1e6 / (1 + exp_of(-others))))
