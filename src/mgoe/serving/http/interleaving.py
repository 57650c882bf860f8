"""Interleaving: two rankings make a list in turns, as captains choose teams."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def team_draft(lists: Sequence[Sequence[Any]], k: int, seed: int) -> list[tuple[int, int]]:
    """Return the team and the row of each item of a list.

    In each round both teams choose the best of theirs that is not there yet, in an order that chance draws.

    Args:
        lists: Items of two teams, the best first, of at least `k` places or all that there are.
        k: Places.
        seed: The same one draws the same list.
    """
    draws, found, taken = np.random.default_rng(seed), list[tuple[int, int]](), set[Any]()
    while len(found) < k:
        first, before = int(draws.integers(2)), len(found)
        for team in (first, 1 - first):
            row = next((row for row, item in enumerate(lists[team]) if item not in taken), None)
            if row is not None and len(found) < k:
                taken.add(lists[team][row])
                found.append((team, row))
        if len(found) == before:
            break
    return found


def interleaved(
    one: Mapping[str, Any], other: Mapping[str, Any], k: int, seed: int
) -> tuple[dict[str, Any], list[int]]:
    """Return the answer that two make together, and the number of the one that brought each item."""
    both = one, other
    chosen = team_draft([body["items"] for body in both], k, seed)
    merged = dict(one)
    merged["items"] = [both[team]["items"][row] for team, row in chosen]
    merged["scores"] = np.array([both[team]["scores"][row] for team, row in chosen])
    merged["tasks"] = {
        task: np.array([both[team]["tasks"][task][row] for team, row in chosen]) for task in one["tasks"]
    }
    return merged, [team for team, _ in chosen]
