"""Guesses that names alone get wrong, and logs that are not what they seem: one true sentence each."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mgoe.config import RunSettings
from mgoe.data import guess
from mgoe.errors import DataError
from tests.data import layouts, logs
from tests.data.layouts import epoch, funnel, of, ratings, times, visits
from tests.effort import SOAK


def guessed(log: pd.DataFrame, folder: Path) -> tuple[str, dict[str, Any]]:
    """Return the text of a guess and what it says."""
    log.to_parquet(folder / "log.parquet")
    text = guess(folder / "log.parquet")
    return text, yaml.safe_load(text)


def bare(seed: int = 0, **columns: Any) -> pd.DataFrame:
    """Users, items and times, and other columns."""
    v = visits(seed)
    return pd.DataFrame({"user_id": v.user, "item_id": v.item, "time": times(v.seconds), **columns})


@settings(max_examples=30 if SOAK else 4, deadline=None)
@given(
    seed=st.integers(0, 10**6), codes=st.permutations(range(1, 5)), name=st.sampled_from(["type", "op", "x"])
)
def test_codes_are_ordered_by_what_follows_what(
    seed: int, codes: list[int], name: str, tmp_path_factory: pytest.TempPathFactory
):
    """Also where a later step is commoner than an earlier one: here the third step is done three times."""
    v, step = funnel(visits(seed, sessions=200), [0.7, 0.7, 0.7], seed)
    again = np.repeat(np.arange(len(step)), np.where(step == 2, 3, 1))
    late = 5 * (np.arange(len(again)) - np.searchsorted(again, again))
    log = pd.DataFrame(
        {
            "user_id": v.user[again],
            "item_id": v.item[again],
            "time": epoch(v.seconds[again] + late),
            name: np.array(codes)[step[again]],
        }
    )
    text, raw = guessed(log, tmp_path_factory.mktemp("log"))
    assert raw["data"]["behavior"] == name
    assert [task["behaviors"] for task in raw["tasks"]] == [[str(code)] for code in codes]
    assert f", after {codes[0]} on " in text


@settings(max_examples=30 if SOAK else 4, deadline=None)
@given(seed=st.integers(0, 10**6), shares=st.sampled_from([(0.5, 0.5), (0.9, 0.1), (0.6, 0.3, 0.1)]))
def test_what_differs_without_an_order_is_no_behaviour(
    seed: int, shares: tuple[float, ...], tmp_path_factory: pytest.TempPathFactory
):
    """The commoner value comes first more often, but no more often than its rows explain."""
    rng = np.random.default_rng(seed)
    v = visits(seed, users=12, items=12, sessions=200)
    kinds = rng.choice(len(shares), len(v.user), p=shares)
    log = pd.DataFrame({"user_id": v.user, "item_id": v.item, "time": times(v.seconds), "kind": kinds + 3})
    text, raw = guessed(log, tmp_path_factory.mktemp("log"))
    assert (raw["data"]["behavior"], raw["tasks"]) == (None, ["interaction"])
    assert "  # behavior: kind " in text


def orders_log(seed: int = 1) -> pd.DataFrame:
    v = visits(seed, same_time=True)
    return pd.DataFrame({"a": v.session + 5000, "b": v.user, "c": v.item, "when": times(v.seconds)})


@settings(max_examples=20 if SOAK else 3, deadline=None)
@given(seed=st.integers(0, 10**6), names=st.permutations(["p", "q", "r"]))
def test_an_order_is_neither_user_nor_item_whatever_the_names(
    seed: int, names: list[str], tmp_path_factory: pytest.TempPathFactory
):
    log = orders_log(seed).rename(columns=dict(zip("abc", names, strict=True)))
    text, raw = guessed(log, tmp_path_factory.mktemp("log"))
    assert (raw["data"]["user"], raw["data"]["item"]) == (names[1], names[2])
    assert f"`{names[0]}` is an order or a session" in text


def test_an_id_of_a_place_is_an_item(tmp_path):
    """Though `place` alone is the position at which something was shown."""
    _, raw = guessed(bare().rename(columns={"item_id": "place_id"}), tmp_path)
    assert raw["data"]["item"] == "place_id"


def test_two_columns_that_could_be_the_item_are_two_lines(tmp_path):
    v = visits(3)
    text, raw = guessed(bare(3).assign(video_id=np.random.default_rng(0).permutation(v.item)), tmp_path)
    items = {raw["data"]["item"], "video_id", "item_id"}
    assert items == {"video_id", "item_id"}
    other = (items - {raw["data"]["item"]}).pop()
    line = next(line for line in text.splitlines() if line.startswith(f"  # item: {other} "))
    assert line.endswith("# could be the item as well: keep one of the lines")


def test_an_index_that_a_file_keeps_is_no_id(tmp_path):
    log = bare().rename(columns={"user_id": "who", "item_id": "what"})
    log.to_csv(tmp_path / "plain.csv", index=False)

    def lines(file: str) -> list[str]:
        text = guess(tmp_path / file).replace(file, "FILE")
        return [line.split("#")[0] for line in text.splitlines()[5:]]

    plain = lines("plain.csv")
    for name in ("Unnamed: 0", "Unnamed: 0.1", "__index_level_0__"):
        log.assign(**{name: np.arange(len(log))[::-1]}).to_csv(tmp_path / "log.csv", index=False)
        assert lines("log.csv") == plain


def test_rows_without_a_customer_after_the_sample_are_left_out(tmp_path, monkeypatch):
    log = bare().astype({"user_id": "Int64"})
    log.loc[log.index[-3:], "user_id"] = None
    monkeypatch.setattr(sys.modules["mgoe.data.guess"], "SAMPLE", 200)
    text, raw = guessed(log, tmp_path)
    assert raw["data"]["missing_ids"] == "drop"
    assert "# 3 rows without a user or an item are left out" in text


def test_behaviours_that_take_back_are_named(tmp_path):
    v, step = funnel(visits(4), [0.5, 0.5])
    names = np.array(["view", "add_to_cart", "remove_from_cart"])[step]
    log = pd.DataFrame({"user_id": v.user, "item_id": v.item, "time": times(v.seconds), "event": names})
    text, raw = guessed(log, tmp_path)
    assert raw["tasks"] == ["view", "add_to_cart"]
    assert (
        f"# Left out, because it takes back what was done: remove_from_cart ({(step == 2).sum()} rows)."
        in text
    )


@pytest.mark.parametrize("order", [True, False])
def test_negative_quantities_are_named_with_a_condition(order: bool, tmp_path):
    log = layouts.online_retail()
    log = log if order else log.drop(columns="Invoice")
    text, _ = guessed(log, tmp_path)
    assert "  # where: Quantity > 0 " in text
    assert "40 rows have a negative `Quantity`: cancellations or returns" in text
    assert ("no column says of which order" in text) is not order


def test_a_delay_is_proposed_where_labels_may_be_known_before_their_bucket_ends(tmp_path):
    """Rows that read all before their bucket miss nothing by it."""
    log = bare()
    log["clicked"] = np.random.default_rng(0).integers(0, 2, len(log))
    assert "  # delay: 5m " in guessed(log, tmp_path)[0]
    assert "delay: " not in guessed(log.assign(time=pd.to_datetime(log["time"]).dt.floor("D")), tmp_path)[0]


@pytest.mark.parametrize("name", ["Quantity", "Order Quantity", "The 'gift' count", "Prix_d_été, total"])
def test_the_condition_that_is_proposed_can_be_taken_as_it_is(name: str, tmp_path: Path):
    log = layouts.online_retail().rename(columns={"Quantity": name})
    text, _ = guessed(log, tmp_path)
    raw = yaml.safe_load(text.replace("  # where: ", "  where: "))
    settings = RunSettings.model_validate(raw)
    assert settings.data.where is not None
    kept = log.loc[log[name] > 0]
    bare = settings.model_copy(update={"data": settings.data.model_copy(update={"where": None})})
    found, wanted = (
        logs.contents(logs.prepared(rows, one, tmp_path / folder))
        for rows, one, folder in ((log, settings, "found"), (kept, bare, "wanted"))
    )
    assert len(kept) < len(log)
    assert repr(found) == repr(wanted)


PLAIN_LOG = bare()
ROWS = len(PLAIN_LOG)


@pytest.mark.parametrize(
    ("columns", "comment"),
    [
        (
            {"week": np.arange(ROWS) // 20},
            "# No behaviours but properties, of users, items, clicks or times: `week`.",
        ),
        ({"hour": PLAIN_LOG.time.dt.hour}, "properties, of users, items, clicks or times: `hour`."),
        ({"x": PLAIN_LOG.time.dt.day_of_week}, "properties, of users, items, clicks or times: `x`."),
        ({"x": of(PLAIN_LOG.item_id.to_numpy(), 6)}, "properties, of users, items, clicks or times: `x`."),
        ({"x": of(PLAIN_LOG.user_id.to_numpy(), 6)}, "properties, of users, items, clicks or times: `x`."),
        ({"price": np.arange(ROWS) % 90 + 1}, "# Of a row, and no tasks unless you ask: `price`."),
    ],
    ids=["week", "hour", "by the time", "by the item", "by the user", "price"],
)
def test_properties_are_no_tasks(columns: dict[str, Any], comment: str, tmp_path):
    text, raw = guessed(bare(**columns), tmp_path)
    assert (raw["data"]["behavior"], raw["tasks"]) == (None, ["interaction"])
    assert comment in text


PAIRS = PLAIN_LOG.drop_duplicates(["user_id", "item_id"])
BAD: dict[str, tuple[pd.DataFrame, str]] = {
    "all times equal": (
        PLAIN_LOG.assign(time=layouts.START),
        "column 'time': rows must have different times, .*, found one in all rows; name the column",
    ),
    "sums": (
        PAIRS.assign(plays=np.arange(len(PAIRS)) % 7 + 1).rename(columns={"time": "last_time"}),
        "column 'plays': a row is one event, found one row for each user and item with a column",
    ),
    "ratings as text": (
        PLAIN_LOG.assign(rating=np.resize(["good", "bad", "fair"], ROWS)),
        "column 'rating': a rating must be a number, found texts such as 'good'; convert it, or leave",
    ),
    "no user": (
        pd.DataFrame({"item_id": PLAIN_LOG.item_id, "time": PLAIN_LOG.time, "color": np.arange(ROWS) % 5}),
        "a log needs a user and an item, found no column like them among item_id, time, color; name them",
    ),
    "a table of items": (
        pd.DataFrame(
            {
                "video_id": np.arange(300),
                "author_id": np.arange(300) % 90,
                "upload_time": times(np.arange(300)),
            }
        ),
        "an item occurs in several rows, found that each of the first 300 rows has an 'video_id. of",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_log_that_is_none_is_refused_in_one_sentence(case: str, tmp_path):
    log, message = BAD[case]
    log.to_parquet(tmp_path / "log.parquet")
    with pytest.raises(DataError, match=message) as caught:
        guess(tmp_path / "log.parquet")
    assert str(caught.value).count(". ") == 0


def test_one_time_in_the_sample_alone_is_no_reason_to_refuse(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["mgoe.data.guess"], "SAMPLE", 150)
    log = bare().assign(time=times(np.repeat(np.arange(5) * 86_400, 150)[:ROWS]))
    _, raw = guessed(log, tmp_path)
    assert raw["data"]["time"] == "time"


def test_ratings_with_labels_are_named(tmp_path):
    rng = np.random.default_rng(0)
    log = bare(clicked=rng.integers(0, 2, ROWS), rating=ratings(1, 5, 1, ROWS))
    text, raw = guessed(log, tmp_path)
    assert [task["label"] for task in raw["tasks"]] == ["clicked"]
    assert "# `rating` could be a task too, of the kind regression." in text


@settings(max_examples=20 if SOAK else 2, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_clean_log_gets_no_notes(seed: int, tmp_path_factory: pytest.TempPathFactory):
    v, step = funnel(visits(seed, sessions=200), [0.4, 0.5], seed)
    names = np.array(["view", "cart", "buy"])[step]
    log = pd.DataFrame({"user_id": v.user, "item_id": v.item, "time": times(v.seconds), "event": names})
    text, _ = guessed(log, tmp_path_factory.mktemp("log"))
    head = text.split("data:")[0].splitlines()
    assert [line for line in head if line.startswith("#")][2:] == [
        "# Shape of the log: returning users, each row something that a user did."
    ]


@pytest.mark.parametrize("own", [False, True], ids=["equal numbers", "numbers of their own"])
def test_items_of_two_campaigns_with_equal_ids_are_named(own: bool, tmp_path: Path):
    log = layouts.open_bandit()
    log["campaign"] = np.where(np.arange(len(log)) % 2, "men", "women")
    if own:
        log["item_id"] = log.item_id * 2 + np.arange(len(log)) % 2
    text, raw = guessed(log, tmp_path)
    assert (raw["data"]["user"], raw["data"]["item"]) == (None, "item_id")
    assert ("Items of two campaigns (`campaign`) with equal ids count as one." in text) is not own


def test_a_table_of_users_needs_users(tmp_path: Path):
    layouts.open_bandit().to_parquet(tmp_path / "log.parquet")
    with pytest.raises(DataError, match="a table of users needs a column with their ids, found none"):
        guess(tmp_path / "log.parquet", sides={"user": tmp_path / "log.parquet"})
