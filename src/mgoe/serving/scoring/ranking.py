"""Ranking and scoring, in steps: a service lets others in between two steps, so that a whole catalogue holds up nobody.

Axes: `B` candidates, `T` tasks.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mgoe.config import did_you_mean
from mgoe.errors import RequestError
from mgoe.serving.http.schemas import RankRequest, ScoreRequest
from mgoe.serving.scoring.objective import Objective, read_objective

if TYPE_CHECKING:
    from mgoe.serving.scoring.engine import Engine

BLOCK = 2048
"""Candidates a step: some five milliseconds."""
Answer = TypeVar("Answer")
Steps = Generator[None, None, Answer]


def rank(engine: Engine, request: RankRequest) -> Steps[dict[str, Any]]:
    """Rank candidates, or the whole catalogue.

    Args:
        engine: What scores.
        request: What to rank.

    Returns:
        A `RankAnswer`; columns are arrays.

    Raises:
        MgoeError: The objective, a filter or the context is wrong.
    """
    objective = read_objective(request.objective or engine.objective, engine.tasks)
    least = {
        engine.tasks.index(_known_task(name, engine)): value
        for name, value in request.filters.at_least.items()
    }
    context = engine.context(request.context)
    user = int(engine.indices("user", [request.user])[0])
    codes, given, repeated = _candidates(engine, request)
    kept = _kept(engine, request, user, codes, given)
    if kept is not None:
        codes, given = codes[kept], given if given is None else [given[row] for row in kept.tolist()]
    scores = yield from _in_blocks(engine, user, codes, context)
    rows = _at_least(scores, least)
    values = yield from _values(objective, scores, rows, engine.tasks)
    best = top(values, request.k)
    chosen = rows[best]
    return {
        "user": request.user,
        "items": engine.ids("item", codes[chosen])
        if given is None
        else [given[row] for row in chosen.tolist()],
        "scores": values[best],
        "tasks": columns(scores[chosen], engine.tasks),
        "objective": request.objective or engine.objective,
        "ranked": len(codes),
        "repeated": repeated,
        "unseen_user": user < 0,
        "unseen_items": int((codes < 0).sum()),
        "bundle": engine.name,
    }


def score(engine: Engine, request: ScoreRequest) -> Steps[dict[str, Any]]:
    """Score pairs, user by user. Returns a `ScoreAnswer`.

    Raises:
        RequestError: The lists differ in length.
    """
    n = len(request.items)
    if len(request.users) not in (1, n):
        raise RequestError("users", f"must hold one user, or one an item ({n}), found {len(request.users)}")
    context = engine.context(request.context)
    users, items = engine.indices("user", request.users), engine.indices("item", request.items)
    scores = np.empty((n, len(engine.tasks)), np.float32)
    each = np.broadcast_to(users, n)
    order = np.argsort(each, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(each[order])) + 1):
        scores[rows] = yield from _in_blocks(engine, int(each[rows[0]]), items[rows], context)
        yield
    return {
        "tasks": columns(scores, engine.tasks),
        "unseen_users": int((users < 0).sum()),
        "unseen_items": int((items < 0).sum()),
        "bundle": engine.name,
    }


def columns(scores: NDArray[np.float32], tasks: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """(B, T) as a column a task."""
    return {task: np.ascontiguousarray(scores[:, t]) for t, task in enumerate(tasks)}


def top(values: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """Rows of the k largest values, largest first; equal ones in their order. Shape (min(k, B),)."""
    if k * 8 < len(values):  # then a partition pays
        least = np.partition(values, len(values) - k)[len(values) - k]
        rows = np.flatnonzero(values >= least)
        return rows[np.argsort(-values[rows], kind="stable")[:k]]
    return np.argsort(-values, kind="stable")[:k]


def _candidates(engine: Engine, request: RankRequest) -> tuple[NDArray[np.int64], list[Any] | None, int]:
    """Codes, the ids they were given by, and how many were given again; no ids for the whole catalogue."""
    if request.candidates is None:
        return np.arange(engine.n_items), None, 0
    given = request.candidates
    codes = engine.indices("item", given)
    rising = np.sort(codes)
    if (
        rising[1:] == rising[:-1]
    ).any():  # a code given again, or several never seen, which their ids tell apart
        unseen: dict[str, int] = {}
        for row in np.flatnonzero(codes < 0).tolist():
            codes[row] = -1 - unseen.setdefault(str(given[row]), len(unseen))
        first = np.sort(np.unique(codes, return_index=True)[1])
        codes, given = np.maximum(codes[first], -1), [given[row] for row in first.tolist()]
    return codes, given, len(request.candidates) - len(given)


def _kept(
    engine: Engine, request: RankRequest, user: int, codes: NDArray[np.int64], given: list[Any] | None
) -> NDArray[np.int64] | None:
    """Rows that the filters on ids leave; None: all."""
    filters = request.filters
    if not (filters.exclude or filters.exclude_known):
        return None
    out = np.zeros(len(codes), bool)
    if filters.exclude:
        excluded = engine.indices("item", filters.exclude)
        out |= np.isin(codes, excluded[excluded >= 0])
        if given is not None and (excluded < 0).any():  # an item never seen has no code: by its id
            unseen = {
                str(one) for one, code in zip(filters.exclude, excluded.tolist(), strict=True) if code < 0
            }
            out |= np.fromiter((str(one) in unseen for one in given), bool, len(given))
    if filters.exclude_known:
        out |= np.isin(codes, engine.known_items(user))
    return np.flatnonzero(~out)


def _in_blocks(
    engine: Engine, user: int, codes: NDArray[np.int64], context: dict[str, NDArray] | None
) -> Steps[NDArray[np.float32]]:
    if len(codes) <= BLOCK:
        return engine.score(user, codes, context)
    out = np.empty((len(codes), len(engine.tasks)), np.float32)
    for start in range(0, len(codes), BLOCK):
        out[start : start + BLOCK] = engine.score(user, codes[start : start + BLOCK], context)
        yield
    return out


def _values(
    objective: Objective, scores: NDArray[np.float32], rows: NDArray[np.int64], tasks: Sequence[str]
) -> Steps[NDArray[np.float64]]:
    """The objective of some rows, in blocks too: it is the client's, and may be long."""
    parts = []
    for start in range(0, max(1, len(rows)), BLOCK):
        part = scores[rows[start : start + BLOCK]]
        parts.append(objective({task: part[:, t] for t, task in enumerate(tasks)}))
        if start + BLOCK < len(rows):
            yield
    return np.concatenate(parts)


def _at_least(scores: NDArray[np.float32], least: dict[int, float]) -> NDArray[np.int64]:
    kept = np.ones(len(scores), bool)
    for task, value in least.items():
        kept &= scores[:, task] >= value
    return np.flatnonzero(kept)


def _known_task(name: str, engine: Engine) -> str:
    if name not in engine.tasks:
        raise RequestError("filters.at_least", f"{name[:80]!r} is no task{did_you_mean(name, engine.tasks)}")
    return name
