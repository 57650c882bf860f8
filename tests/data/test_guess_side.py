"""Side tables that `init` is given: what may be a feature is proposed, what looks like a leak is not."""

import string
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mgoe.config import make_settings
from mgoe.data import guess, prepare
from mgoe.data.guess_side import CORRELATED
from mgoe.errors import DataError
from tests.effort import up_to

ITEMS = 200


def log_of(seed: int = 0) -> pd.DataFrame:
    """Some items have many rows, and ids are texts."""
    rng = np.random.default_rng(seed)
    popularity = rng.gamma(0.5, size=ITEMS) + 0.05
    items = np.concatenate([np.arange(ITEMS), rng.choice(ITEMS, 6000, p=popularity / popularity.sum())])
    return pd.DataFrame(
        {
            "user_id": rng.integers(0, 90, len(items)),
            "item_id": [f"i{number}" for number in items],
            "timestamp": pd.Timestamp("2024-01-01")
            + pd.to_timedelta(rng.integers(0, 60 * 86_400, len(items)), unit="s"),
        }
    )


def items_of(seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed + 1)
    return pd.DataFrame(
        {
            "sku": [f"i{number}" for number in rng.permutation(ITEMS)],
            "Title": [f"Item {number}" for number in range(ITEMS)],
            "brand": rng.choice(["a", "b", "c"], ITEMS),
            "tags": rng.choice(["x|y", "y", "x|z"], ITEMS),
            "price": rng.random(ITEMS).round(3),
            "pages": rng.permutation(ITEMS),
            "level": rng.integers(0, 4, ITEMS),
            "maker_id": rng.integers(0, 150, ITEMS),
            "about": ["".join(rng.choice([*string.ascii_letters], 40)) for _ in range(ITEMS)],
            "picture": [rng.random(4).tolist() for _ in range(ITEMS)],
            "genres": [["u", "v"][: 1 + number % 2] for number in range(ITEMS)],
            "seen": pd.Timestamp("2024-01-01"),
            "adult": rng.random(ITEMS) < 0.5,
            "n": rng.random(ITEMS),
            "id": "x",
            "AverageRating": rng.random(ITEMS),
            "num_votes": rng.random(ITEMS),
        }
    )


def written(log: pd.DataFrame, folder: Path, **sides: pd.DataFrame) -> tuple[dict[str, Any], str]:
    log.to_parquet(folder / "log.parquet")
    for node, table in sides.items():
        table.to_parquet(folder / f"{node}.parquet")
    text = guess(folder / "log.parquet", sides={node: folder / f"{node}.parquet" for node in sides})
    return yaml.safe_load(text), text


def test_features_are_proposed_and_a_run_takes_them(tmp_path: Path):
    raw, text = written(log_of(), tmp_path, item=items_of())
    items = raw["data"]["items"]
    assert (items["id"], items["name"]) == ("sku", "Title")
    assert {feature["name"]: feature["kind"] for feature in items["features"]} == {
        "brand": "categorical",
        "tags": "multi",
        "price": "numeric",
        "pages": "numeric",
        "level": "categorical",
        "maker_id": "categorical",
        "picture": "vector",
        "genres": "multi",
        "adult": "categorical",
        "n": "numeric",
        "id": "categorical",
    }
    assert "a table that holds 100% of the log's items" in text
    lines = {name: line for line in text.splitlines() for name in items_of() if f"{{name: {name}," in line}
    for name, why in (
        ("about", "text is not read"),
        ("seen", "a value of the type timestamp"),
        ("AverageRating", "looks like a leak: named like an average or a count"),
        ("num_votes", "looks like a leak: named like"),
    ):
        assert lines[name].strip().startswith("# - {name: ")
        assert why in lines[name]
    prepared = prepare(make_settings(raw), tmp_path / "data")
    assert prepared.summary["side"]["items"]["in_log"] == ITEMS


@up_to(5)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, -2.0]), st.booleans())
def test_a_number_that_follows_the_rows_per_item_is_a_leak(
    tmp_path_factory: Any, seed: int, sign: float, leaks: bool
):
    """Whatever its scale: only the order counts."""
    log, items = log_of(seed % 7), items_of(seed % 7)
    rows = np.array(log["item_id"].value_counts()[items["sku"]])
    noise = np.random.default_rng(seed).permutation(ITEMS)
    items["quality"] = sign * np.exp(rows / rows.max()) if leaks else noise / ITEMS
    raw, text = written(log, tmp_path_factory.mktemp("side"), item=items)
    [line] = [line for line in text.splitlines() if "{name: quality," in line]
    proposed = "quality" in [feature["name"] for feature in raw["data"]["items"]["features"]]
    assert proposed != leaks
    if leaks:
        assert "its rank correlation with the number of rows in the log is " in line
        assert abs(float(line.rsplit(" ", 1)[1])) > CORRELATED


@pytest.mark.parametrize(
    ("change", "most"),
    [
        (lambda items: items[:70], "35%"),
        (lambda items: pd.concat([items, items]), "0%"),
        (lambda items: items.assign(sku="z" + items["sku"]), "0%"),
        (lambda items: items[["brand"]], "0%"),
    ],
    ids=["few", "twice", "other ids", "no ids"],
)
def test_a_table_without_half_of_the_ids_is_refused_in_one_sentence(tmp_path: Path, change: Any, most: str):
    sides: dict[str, Any] = {"item": change(items_of())}
    with pytest.raises(DataError) as refused:
        written(log_of(), tmp_path, **sides)
    assert str(refused.value).endswith(
        "item.parquet: a column must hold at least half of the ids of the log's 'item_id', each in one row, "
        f"found {most} at most; name another file, or leave --items out"
    )


def test_a_table_of_which_nothing_may_be_read_is_commented_out(tmp_path: Path):
    raw, text = written(log_of(), tmp_path, item=items_of().filter(["sku", "num_votes"]))
    assert "items" not in raw["data"]
    assert "# items:" in text
    make_settings(raw)


def test_tables_of_users_and_items_at_once(tmp_path: Path):
    users = pd.DataFrame({"user_id": np.arange(90), "age": np.arange(90.0) % 9, "city": ["u", "v"] * 45})
    raw, _ = written(log_of(), tmp_path, user=users, item=items_of())
    assert raw["data"]["users"]["id"] == "user_id"
    assert [feature["name"] for feature in raw["data"]["users"]["features"]] == ["age", "city"]
    assert raw["data"]["items"]["id"] == "sku"
