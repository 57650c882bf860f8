"""Made-up days: every split they stand for is the split that was meant, for every length of sequence."""

import duckdb
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mgoe.datasets.reading import LAST_OUT, PARTS, TEST, anywhere, drawn, in_order, moment


def values(expression: str, rows: int) -> np.ndarray:
    """An expression of `place` and `n`, for places 1 to `rows`."""
    places = f"SELECT range + 1 AS place, {rows}::BIGINT AS n FROM range({rows})"
    query = f"SELECT {expression} AS value FROM ({places}) ORDER BY place"
    return duckdb.sql(query).fetchnumpy()["value"]


@given(st.integers(1, 300))
def test_the_last_is_test_the_one_before_valid_and_the_others_in_order(rows: int):
    part = values(LAST_OUT, rows)
    assert (part == TEST).sum() == 1
    assert part[-1] == TEST
    assert (part == PARTS).sum() == min(rows - 1, 1)
    assert (np.diff(part) >= 0).all()
    assert part.min() >= 1
    sizes = np.bincount(part[:-2], minlength=PARTS)[1:PARTS] if rows > 2 else np.zeros(1)
    assert sizes.max() - sizes.min() <= 1


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), min_size=1, max_size=40))
def test_places_are_those_of_each_user_s_rows_in_order(rows: list[tuple[int, int]]):
    listed = ", ".join(f"({user}, {day}, {number})" for number, (user, day) in enumerate(rows))
    table = f"(VALUES {listed}) AS t(user_id, day, number)"
    query = f"SELECT user_id, number, {in_order('user_id', 'day, number')} FROM {table}"
    for user, number, place, n in duckdb.sql(query).fetchall():
        own = sorted((day, k) for k, (other, day) in enumerate(rows) if other == user)
        assert own[place - 1][1] == number
        assert n == len(own)


def test_draws_go_by_the_key_alone():
    rows = 20_000
    part = values(drawn("place::VARCHAR"), rows)
    assert (values(drawn("(n - place + 1)::VARCHAR"), rows) == part[::-1]).all()
    assert np.abs(np.bincount(part)[1:] / rows - 1 / PARTS).max() < 0.01
    place = values(anywhere("place::VARCHAR"), rows)
    assert ((place >= 0) & (place < 86_400)).all()
    assert abs(np.corrcoef(part, place)[0, 1]) < 0.03


@given(st.integers(1, TEST), st.integers(0, 10**7))
def test_a_moment_lies_on_the_day_of_its_part(part: int, place: int):
    day = duckdb.sql(f"SELECT ({moment(str(part), str(place))})::DATE - DATE '2000-01-01'").fetchall()[0][0]
    assert day == part - 1
