"""What requests ask for: the best of some candidates, recommendations from the catalogue, scores of pairs.

All in steps, so that a service can answer others meanwhile.

Axes: `B` candidates, `T` tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mgoe.bundle import ranking
from mgoe.bundle.exploration import Exploration
from mgoe.bundle.manifest import iso_time
from mgoe.bundle.ranking import Query, Ranked, columns
from mgoe.bundle.request import RankingRequest
from mgoe.bundle.steps import Scores, Steps
from mgoe.errors import EventError, RequestError
from mgoe.graph.pair_rows import Side
from mgoe.serving.events.event import Id
from mgoe.serving.online.session import Done, Session
from mgoe.serving.scoring.scorer import SessionScores

if TYPE_CHECKING:
    from mgoe.serving.scoring.engine import Engine


class Pairs(NamedTuple):
    """Pairs that were scored for a request.

    Attributes:
        users: Indices. Shape (B,).
        items: Indices. Shape (B,).
        scores: Shape (B, T).
        shown: The rows that the answer holds, in its order. Shape (n,).
        context: Context features by name.
        user_ids: Ids as given, one for all or one per pair; empty for the visitor of a session.
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    scores: NDArray[np.float32]
    shown: NDArray[np.int64]
    context: Mapping[str, Any]
    user_ids: Sequence[Id]


class Visitor(NamedTuple):
    """Whom a request is for.

    Attributes:
        id: As given; None for the visitor of a session.
        user: Index; -1 for a user who was never seen, and for a session without an item that has an index.
        scores: Score items for the visitor.
        as_of: When the request came, microseconds since 1970.
    """

    id: Id | None
    user: int
    scores: Scores
    as_of: int

    @classmethod
    def of(cls, engine: Engine, user: Id | None, events: Sequence[Mapping[str, Any]] | None) -> Visitor:
        """Find a user, or read the events of a session, see `rank`."""
        as_of = engine.now()
        if user is not None and events is None:
            return cls(user, int(engine.live.look_up("user", [user])[0]), engine.scorer, as_of)
        if engine.events.nobody:
            if events:
                raise RequestError("events", "are not read, as the bundle's log has no users; leave them out")
            return cls(user, -1, engine.scorer, as_of)
        if user is not None or events is None:
            found = "none" if user is None else "both"
            raise RequestError(
                "user", f"must be given, or the events of a session instead, found {found}; give one"
            )
        session = _session(engine, events, as_of)
        if session is None:
            return cls(None, -1, engine.scorer, as_of)
        return cls(None, session.user, SessionScores(engine.scorer, session), as_of)


class Answered(NamedTuple):
    """An answer, and what a service notes of it.

    Attributes:
        body: What the client gets.
        pairs: What was scored for it.
        asked: How many ids the client named, by side.
        unseen: How many of these were never seen.
    """

    body: dict[str, Any]
    pairs: Pairs
    asked: Mapping[Side, int]
    unseen: Mapping[Side, int]


def rank(
    engine: Engine,
    user: Id | None,
    events: Sequence[Mapping[str, Any]] | None,
    candidates: Sequence[Id] | None,
    request: RankingRequest,
    explore: Exploration | None = None,
) -> Steps[Answered]:
    """Rank candidates, or what the catalogue has, for a user or for the visitor of a session.

    Args:
        engine: What scores.
        user: An id; None if there are events.
        events: What a visitor without an id has done, see `EventReader.read_in_session`.
        candidates: Ids; None recommends from the catalogue. A repeated one counts once.
        request: What is asked for.
        explore: How the list explores, if it does.

    Returns:
        A `RankAnswer`, whose columns are arrays.

    Raises:
        MgoeError: The objective, a filter, the context or an event is wrong, or both or none of user and
            events are given.
    """
    if candidates is None:
        found = yield from recommend(engine, user, events, request, explore)
        return found._replace(body=found.body | {"repeated": 0, "unseen_items": 0})
    visitor = Visitor.of(engine, user, events)
    items, ids = _distinct(engine.live.look_up("item", candidates), candidates)
    kept = ~_excluded_unseen(items, ids, request.exclude)
    ranked = yield from _rank(engine, visitor, request, items[kept], explore)
    rows, unseen = np.flatnonzero(kept)[ranked.rows].tolist(), int((items[kept] < 0).sum())
    found = _answered(engine, visitor, request, ranked, [ids[row] for row in rows])
    return found._replace(
        body=found.body | {"repeated": len(candidates) - len(ids), "unseen_items": unseen},
        asked={**found.asked, "item": int(kept.sum())},
        unseen={**found.unseen, "item": unseen},
    )


def recommend(
    engine: Engine,
    user: Id | None,
    events: Sequence[Mapping[str, Any]] | None,
    request: RankingRequest,
    explore: Exploration | None = None,
) -> Steps[Answered]:
    """Recommend items of the catalogue, see `rank`.

    Returns:
        A `RecommendAnswer`, whose columns are arrays.
    """
    visitor = Visitor.of(engine, user, events)
    ranked = yield from _rank(engine, visitor, request, None, explore)
    return _answered(engine, visitor, request, ranked, engine.live.ids("item", ranked.items))


def score(
    engine: Engine, users: Sequence[Id], items: Sequence[Id], context: Mapping[str, Any]
) -> Steps[Answered]:
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
    as_of, n = engine.now(), len(items)
    if len(users) not in (1, n):
        raise RequestError("users", f"must hold one user, or one per item ({n}), found {len(users)}")
    encoded = engine.context(context)
    user_indices, item_indices = engine.live.look_up("user", users), engine.live.look_up("item", items)
    scores = np.empty((n, len(engine.tasks)), np.float32)
    each = np.broadcast_to(user_indices, n)
    order = np.argsort(each, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(each[order])) + 1):
        scores[rows] = yield from engine.scorer.in_blocks(each[rows], item_indices[rows], encoded)
        yield
    unseen: dict[Side, int] = {"user": int((user_indices < 0).sum()), "item": int((item_indices < 0).sum())}
    body = {
        "tasks": columns(scores, engine.tasks),
        "unseen_users": unseen["user"],
        "unseen_items": unseen["item"],
        "as_of": iso_time(as_of),
        "bundle": engine.name,
    }
    pairs = Pairs(each, item_indices, scores, np.arange(n), context, users)
    return Answered(body, pairs, {"user": len(users), "item": n}, unseen)


def _rank(
    engine: Engine,
    visitor: Visitor,
    request: RankingRequest,
    candidates: NDArray[np.int64] | None,
    explore: Exploration | None,
) -> Steps[Ranked]:
    left_out = engine.live.look_up("item", request.exclude)
    query = Query.read(engine.bundle, request, request.objective or engine.bundle.objective, left_out)
    query, given = replace(query, explore=explore), engine.context(request.context)
    found = yield from ranking.rank(engine.bundle, visitor.scores, [visitor.user], query, candidates, given)
    return found[0]


def _answered(
    engine: Engine, visitor: Visitor, request: RankingRequest, ranked: Ranked, ids: Sequence[Id]
) -> Answered:
    body = {
        "user": visitor.id,
        "items": ids,
        "scores": ranked.values,
        "tasks": columns(ranked.scores, engine.tasks),
        "objective": request.objective or engine.bundle.objective,
        "ranked": len(ranked.scored),
        "exact": ranked.exact,
        "unseen_user": visitor.user < 0,
        "as_of": iso_time(visitor.as_of),
        "bundle": engine.name,
    }
    if ranked.propensities is not None:
        body["propensities"] = ranked.propensities
    named = [] if visitor.id is None else [visitor.id]
    users = np.broadcast_to(visitor.user, len(ranked.scored))
    pairs = Pairs(users, ranked.scored, ranked.all_scores, ranked.places, request.context, named)
    return Answered(body, pairs, {"user": len(named)}, {"user": int(bool(named) and visitor.user < 0)})


def _session(engine: Engine, events: Sequence[Mapping[str, Any]], now: int) -> Session | None:
    """Return the visitor of a session from its items that have an index; None without any."""
    done = []
    for number, event in enumerate(events):
        try:
            done.append(engine.events.read_in_session(event, now))
        except EventError as error:
            raise RequestError(f"events.{number}.{error.place}", error.message) from None
    items = engine.live.look_up("item", [item for item, *_ in done])
    known = [Done(int(i), mask, at) for i, (_, mask, at) in zip(items, done, strict=True) if i >= 0]
    if not known:
        return None
    with engine.scorer.reading():
        return Session.of(engine.live, known)


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


def _excluded_unseen(items: NDArray[np.int64], ids: Sequence[Id], exclude: Sequence[Id]) -> NDArray[np.bool_]:
    """Return which candidates to leave out by id, since they were never seen. Shape (B,)."""
    out, unseen = np.zeros(len(items), bool), np.flatnonzero(items < 0).tolist()
    if unseen and exclude:
        names = {str(id) for id in exclude}
        out[unseen] = [str(ids[row]) in names for row in unseen]
    return out
