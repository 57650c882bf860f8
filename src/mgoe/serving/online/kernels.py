"""Compiled loops over pairs that live events have changed. Slots index the arrays of `Nodes`."""

import numba
import numpy as np

from mgoe.graph.edges import find


@numba.njit(cache=True, nogil=True)
def sums(
    own, other, score, old, base, code, old_code, new, events, time, other_sums,
    total, second, done, degree, recent, last,
):  # fmt: skip  # pragma: no cover - compiled
    """Sums over one and two steps, pairs by task, pairs, events, last moment."""
    for p in range(len(own)):
        a = own[p]
        total[a] += score[p] - old[p]
        if other[p] < len(other_sums):
            second[a] += (score[p] - old[p]) * (other_sums[other[p]] - base[p])
        gained = code[p] & ~old_code[p]
        for t in range(done.shape[1]):
            done[a, t] += gained >> t & 1
        degree[a] += new[p]
        recent[a] += events[p]
        last[a] = max(last[a], time[p])


@numba.njit(cache=True, nogil=True)
def edges(own, macro, step, out):  # pragma: no cover - compiled
    """1st-order edges at one resolution."""
    for p in range(len(own)):
        out[own[p], macro[p]] += step[p]


@numba.njit(cache=True, nogil=True)
def second_own(own, other, step, base, indptr, column, score, macro, out):  # pragma: no cover - compiled
    """2nd-order edge of each node to its own macro node."""
    for p in range(len(own)):
        a = own[p]
        if other[p] < len(indptr) - 1:
            out[a] += step[p] * (np.int64(find(indptr, column, score, other[p], macro[a])) - base[p])


@numba.njit(cache=True, nogil=True)
def second_all(own, other, step, base, indptr, column, score, macro, out):  # pragma: no cover - compiled
    """2nd-order edges of each node to every macro node."""
    for p in range(len(own)):
        a = own[p]
        if other[p] < len(indptr) - 1:
            for q in range(indptr[other[p]], indptr[other[p] + 1]):
                out[a, column[q]] += step[p] * np.int64(score[q])
            if base[p]:
                out[a, macro[a]] -= step[p] * base[p]


@numba.njit(cache=True, nogil=True)
def tally(own, macro, code, sign, out):  # pragma: no cover - compiled
    """Neighbours by task and macro node."""
    for p in range(len(own)):
        for t in range(out.shape[1]):
            out[own[p], t, macro[p]] += sign * (code[p] >> t & 1)


@numba.njit(cache=True, nogil=True)
def count(indptr, other, code, macro, out):  # pragma: no cover - compiled
    """`tally` of whole rows."""
    for row in range(len(indptr) - 1):
        for e in range(indptr[row], indptr[row + 1]):
            for t in range(out.shape[1]):
                out[row, t, macro[other[e]]] += code[e] >> t & 1


@numba.njit(cache=True, nogil=True)
def times(indptr, other, time, recent, out):  # pragma: no cover - compiled
    """Moments of recent neighbours."""
    for row in range(len(recent)):
        for r in range(recent.shape[1]):
            if recent[row, r] < 0:
                break
            out[row, r] = find(indptr, other, time, row, recent[row, r])


@numba.njit(cache=True, nogil=True)
def pair_at(indptr, item, user, wanted, out):  # pragma: no cover - compiled
    """Where pairs lie in rows, -1 where they are not there."""
    for p in range(len(user)):
        out[p] = -1
        if user[p] >= len(indptr) - 1:
            continue
        low, high = indptr[user[p]], indptr[user[p] + 1]
        while low < high:
            middle = (low + high) >> 1
            if item[middle] < wanted[p]:
                low = middle + 1
            else:
                high = middle
        if low < indptr[user[p] + 1] and item[low] == wanted[p]:
            out[p] = low


@numba.njit(cache=True, nogil=True, inline="always")
def _before(time, score, node, other_time, other_score, other, known, rank):  # pragma: no cover - compiled
    """Whether a neighbour comes first: the newer, then the higher score, then the smaller number, newcomers last."""
    if time != other_time:
        return time > other_time
    if score != other_score:
        return score > other_score
    if node >= known and other >= known and rank[node - known] != rank[other - known]:
        return rank[node - known] < rank[other - known]
    return node < other


@numba.njit(cache=True, nogil=True)
def recents(
    own, other, code, time, scores, known, rank, neighbour, codes, moment
):  # pragma: no cover - compiled
    """Put neighbours where they now belong. What a pair is sorted by only ever grows, so that none comes back that has left."""
    length = neighbour.shape[1]
    for p in range(len(own)):
        a, n, at = own[p], 0, length
        while n < length and neighbour[a, n] >= 0:
            if neighbour[a, n] == other[p]:
                at = n
            n += 1
        if at == length:
            if n == length:
                last = neighbour[a, n - 1]
                if not _before(
                    time[p],
                    scores[code[p]],
                    other[p],
                    moment[a, n - 1],
                    scores[codes[a, n - 1]],
                    last,
                    known,
                    rank,
                ):
                    continue
                n -= 1
            at = n
        while at > 0 and _before(
            time[p],
            scores[code[p]],
            other[p],
            moment[a, at - 1],
            scores[codes[a, at - 1]],
            neighbour[a, at - 1],
            known,
            rank,
        ):
            neighbour[a, at], codes[a, at], moment[a, at] = (
                neighbour[a, at - 1],
                codes[a, at - 1],
                moment[a, at - 1],
            )
            at -= 1
        neighbour[a, at], codes[a, at], moment[a, at] = other[p], code[p], time[p]


@numba.njit(cache=True, nogil=True)
def table(edges, done_at, degree, out):  # pragma: no cover - compiled
    """Macro task table, by the rule of `mgoe.graph.neighbours.task_table`."""
    for row in range(len(out)):
        if degree[row] == 0:
            continue
        favourite = _largest(edges[row], edges[row])
        for t in range(out.shape[1]):
            best = _largest(done_at[row, t], edges[row])
            out[row, t] = best if done_at[row, t, best] else favourite


@numba.njit(cache=True, nogil=True, inline="always")
def _largest(values, ties):  # pragma: no cover - compiled
    best = 0
    for k in range(1, len(ties)):
        if values[k] > values[best] or (values[k] == values[best] and ties[k] > ties[best]):
            best = k
    return best


@numba.njit(cache=True, nogil=True)
def link(nodes, first, head, following):  # pragma: no cover - compiled
    """Put new pairs, numbered from `first`, at the head of their nodes' lists."""
    for p in range(len(nodes)):
        following[first + p] = head[nodes[p]]
        head[nodes[p]] = first + p


@numba.njit(cache=True, nogil=True)
def walk(nodes, head, following, indptr, out):  # pragma: no cover - compiled
    """Pairs of nodes, by their lists. Without room for them, only how many: `indptr` (n + 1,)."""
    to = 0
    for row in range(len(nodes)):
        p = head[nodes[row]]
        while p >= 0:
            if len(out):
                out[to] = p
            to += 1
            p = following[p]
        indptr[row + 1] = to
