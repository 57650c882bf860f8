"""A team draft takes turns, and each team brings the best that it has left."""

from hypothesis import given
from hypothesis import strategies as st

from mgoe.serving.http.interleaving import team_draft

LISTS = st.lists(st.integers(0, 12), unique=True, max_size=8)


@given(LISTS, LISTS, st.integers(1, 8), st.integers(0, 2**64 - 1))
def test_teams_take_turns_and_bring_their_best(one: list[int], other: list[int], k: int, seed: int) -> None:
    lists = one, other
    chosen = team_draft(lists, k, seed)
    items = [lists[team][row] for team, row in chosen]
    assert len(set(items)) == len(items) == min(k, len({*one, *other}))
    assert chosen == team_draft(lists, k, seed)
    for place, (team, row) in enumerate(chosen):
        assert set(lists[team][:row]) <= set(items[:place])
    if len(one) == len(other) == k:
        for place in range(2, len(chosen) + 1, 2):
            assert sum(team for team, _ in chosen[:place]) == place // 2


def test_either_team_begins_as_often() -> None:
    first = sum(team_draft(([1, 2], [3, 4]), 2, seed)[0][0] for seed in range(4000))
    assert abs(first - 2000) < 5 * 4000**0.5 / 2
