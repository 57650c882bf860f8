"""Ranking and scoring in steps, so that a service can answer others even while it ranks a whole catalogue.

Axes: `B` candidates, `T` tasks.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mgoe.bundle.objective import Objective, read_objective
from mgoe.config import did_you_mean
from mgoe.errors import RequestError
from mgoe.serving.events.event import Id

if TYPE_CHECKING:
    from mgoe.serving.scoring.engine import Engine

BLOCK = 2048
"""Rows of an objective that are computed in one step."""
Answer = TypeVar("Answer")
Steps = Generator[None, None, Answer]


def rank(
    engine: Engine,
    user: Id,
    candidates: Sequence[Id] | None = None,
    *,
    context: Mapping[str, Any] | None = None,
    k: int = 10,
    objective: str | None = None,
    exclude: Sequence[Id] = (),
    exclude_known: bool = False,
    at_least: Mapping[str, float] | None = None,
) -> Steps[dict[str, Any]]:
    """Rank candidates, or the whole catalogue.

    Args:
        engine: What scores.
        user: An id.
        candidates: Ids; None ranks the whole catalogue. A repeated one counts once.
        context: Context features by name.
        k: How many to return, best first.
        objective: What to rank by; None ranks by the strongest binary task.
        exclude: Ids of items to leave out.
        exclude_known: Leave out the items of the user's history.
        at_least: The least probability (or value) by task.

    Returns:
        A `RankAnswer`, whose columns are arrays.

    Raises:
        MgoeError: The objective, a filter or the context is wrong.
    """
    live, tasks, text = engine.live, engine.tasks, objective or engine.bundle.objective
    value_of = read_objective(text, tasks)
    least = {_task_number(name, tasks): value for name, value in (at_least or {}).items()}
    encoded = engine.context(context or {})
    user_index = int(live.look_up("user", [user])[0])
    if candidates is None:
        items, ids = np.arange(live.size("item")), None
    else:
        items, ids = _distinct(live.look_up("item", candidates), candidates)
    repeated = 0 if candidates is None or ids is None else len(candidates) - len(ids)
    if exclude or exclude_known:
        kept = ~_excluded(engine, items, ids, exclude)
        if exclude_known:
            kept &= ~np.isin(items, live.known_items(user_index))
        items, ids = items[kept], ids and [ids[row] for row in np.flatnonzero(kept).tolist()]
    scores = yield from engine.scorer.in_blocks(user_index, items, encoded)
    rows = _at_least(scores, least)
    values = yield from _values(value_of, scores, rows, tasks)
    best = top(values, k)
    chosen = rows[best]
    return {
        "user": user,
        "items": live.ids("item", items[chosen]) if ids is None else [ids[row] for row in chosen.tolist()],
        "scores": values[best],
        "tasks": columns(scores[chosen], tasks),
        "objective": text,
        "ranked": len(items),
        "repeated": repeated,
        "unseen_user": user_index < 0,
        "unseen_items": int((items < 0).sum()),
        "bundle": engine.name,
    }


def score(
    engine: Engine, users: Sequence[Id], items: Sequence[Id], context: Mapping[str, Any]
) -> Steps[dict[str, Any]]:
    """Score pairs, user by user.

    Args:
        engine: What scores.
        users: Ids, one per item or one for all.
        items: Ids.
        context: Context features by name.

    Returns:
        A `ScoreAnswer`, whose columns are arrays.

    Raises:
        RequestError: The lists differ in length, or the context is wrong.
    """
    n = len(items)
    if len(users) not in (1, n):
        raise RequestError("users", f"must hold one user, or one per item ({n}), found {len(users)}")
    encoded = engine.context(context)
    user_indices, item_indices = engine.live.look_up("user", users), engine.live.look_up("item", items)
    scores = np.empty((n, len(engine.tasks)), np.float32)
    each = np.broadcast_to(user_indices, n)
    order = np.argsort(each, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(each[order])) + 1):
        scores[rows] = yield from engine.scorer.in_blocks(int(each[rows[0]]), item_indices[rows], encoded)
        yield
    return {
        "tasks": columns(scores, engine.tasks),
        "unseen_users": int((user_indices < 0).sum()),
        "unseen_items": int((item_indices < 0).sum()),
        "bundle": engine.name,
    }


def columns(scores: NDArray[np.float32], tasks: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Return scores (B, T) as one column per task."""
    return {task: np.ascontiguousarray(scores[:, t]) for t, task in enumerate(tasks)}


def top(values: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """Return the rows of the k largest values, largest first, ties in their order. Shape (min(k, B),)."""
    if k * 8 < len(values):  # few enough that a partition is faster
        least = np.partition(values, len(values) - k)[len(values) - k]
        rows = np.flatnonzero(values >= least)
        return rows[np.argsort(-values[rows], kind="stable")[:k]]
    return np.argsort(-values, kind="stable")[:k]


def _task_number(name: str, tasks: tuple[str, ...]) -> int:
    if name not in tasks:
        raise RequestError("at_least", f"{name[:80]!r} is not a task{did_you_mean(name, tasks)}")
    return tasks.index(name)


def _distinct(items: NDArray[np.int64], ids: Sequence[Id]) -> tuple[NDArray[np.int64], Sequence[Id]]:
    """Return candidates without repeated ones. Unseen items all have index -1, so their ids decide."""
    rising = np.sort(items)
    if (rising[1:] != rising[:-1]).all():
        return items, ids
    items, unseen = items.copy(), dict[str, int]()
    for row in np.flatnonzero(items < 0).tolist():
        items[row] = -1 - unseen.setdefault(str(ids[row]), len(unseen))
    first = np.sort(np.unique(items, return_index=True)[1])
    return np.maximum(items[first], -1), [ids[row] for row in first.tolist()]


def _excluded(
    engine: Engine, items: NDArray[np.int64], ids: Sequence[Id] | None, exclude: Sequence[Id]
) -> NDArray[np.bool_]:
    """Return which candidates to leave out: by index, or by id if they were never seen. Shape (B,)."""
    indices = engine.live.look_up("item", exclude)
    out = np.isin(items, indices[indices >= 0])
    if ids is not None and (indices < 0).any():
        unseen = {str(id) for id, index in zip(exclude, indices.tolist(), strict=True) if index < 0}
        out |= np.fromiter((str(id) in unseen for id in ids), bool, len(ids))
    return out


def _at_least(scores: NDArray[np.float32], least: dict[int, float]) -> NDArray[np.int64]:
    """Return the rows that reach the least score of every task."""
    kept = np.ones(len(scores), bool)
    for task, value in least.items():
        kept &= scores[:, task] >= value
    return np.flatnonzero(kept)


def _values(
    objective: Objective, scores: NDArray[np.float32], rows: NDArray[np.int64], tasks: Sequence[str]
) -> Steps[NDArray[np.float64]]:
    """Compute the objective of some rows. It is the client's, and may be long: in blocks, too."""
    parts = []
    for start in range(0, max(1, len(rows)), BLOCK):
        part = scores[rows[start : start + BLOCK]]
        parts.append(objective({task: part[:, t] for t, task in enumerate(tasks)}))
        if start + BLOCK < len(rows):
            yield
    return np.concatenate(parts)
