"""What is guessed of public logs, in their published columns, or what is asked."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from mgoe.config import make_settings
from mgoe.data import guess, prepare
from mgoe.errors import DataError
from tests.data import layouts

PLAIN = ["interaction"]
GUESSED: list[tuple[str, str | None, str, str, str | None, list[str], str, list[str]]] = [
    # log, user, item, time, column of behaviours, tasks (a regression with ~), shape, what comments say
    (
        "online_retail", "Customer ID", "StockCode", "InvoiceDate", None, PLAIN, "orders",
        ["`Invoice` is an order", "40 rows have one like 'C536473'", "40 rows have a negative `Quantity`",
         "# where: Quantity > 0", "missing_ids: drop", "no tasks unless you ask: `Price`"],
    ),
    ("retailrocket", "visitorid", "itemid", "timestamp", "event", ["view", "addtocart", "transaction"],
     "returning users", []),
    ("rees46", "user_id", "product_id", "event_time", "event_type", ["view", "cart", "purchase"],
     "returning users", []),
    ("movielens", "userId", "movieId", "timestamp", None, ["rating~"], "ratings", []),
    ("lastfm_1k", "userid", "musicbrainz-track-id", "timestamp", None, PLAIN, "returning users",
     ["missing_ids: drop"]),
    ("yelp", "user_id", "business_id", "date", None, ["stars~"], "ratings", []),
    ("mind", "user_id", "news_id", "time", None, ["clicked"], "exposures in lists",
     ["request: impression_id"]),
    ("yoochoose", "session_id", "item_id", "timestamp", None, PLAIN, "sessions",
     ["No behaviours but properties, of users, items, clicks or times: `category`"]),
    ("hm", "customer_id", "article_id", "t_dat", None, PLAIN, "orders",
     ["unless you ask: `price`", "properties, of users, items, clicks or times: `sales_channel_id`"]),
    ("goodreads", "user_id", "book_id", "date_added", None, ["is_read"], "exposures",
     ["`rating` could be a task too"]),
    ("taobao", "user_id", "item_id", "timestamp", "behavior_type", ["pv", "fav", "cart", "buy"],
     "returning users", []),
    ("diginetica", "sessionId", "itemId", "eventdate", None, PLAIN, "sessions", []),
    ("amazon", "user_id", "asin", "timestamp", None, ["rating~"], "ratings", []),
    ("gowalla", "user", "location id", "check-in time", None, PLAIN, "returning users", []),
    ("globo", "user_id", "click_article_id", "click_timestamp", None, PLAIN, "returning users",
     ["`click_os`", "`click_referrer_type`"]),
    ("complete_journey", "household_id", "product_id", "transaction_timestamp", None, PLAIN, "orders",
     ["`basket_id` is an order"]),
    ("kuairand", "user_id", "video_id", "time_ms", None, ["long_view", "is_click"], "exposures",
     ["uniform: is_rand"]),
    ("movietweetings", "user_id", "movie_id", "rating_timestamp", None, ["rating~"], "ratings", []),
    ("dressipi", "session_id", "item_id", "date", None, PLAIN, "sessions", []),
    ("beeradvocate", "review_profilename", "beer_beerid", "review_time", None, ["review_overall~"],
     "ratings", []),
    ("jdata", "user_id", "sku_id", "time", "type", ["6", "1", "2", "4"], "returning users",
     ["321 rows, after 6 on 291 pairs of user and item, before it on 0"]),
    ("open_bandit", None, "item_id", "timestamp", None, ["click"], "exposures",
     ["user: null  ", "# How likely each item was to be shown (`propensity_score`) is not read.",
      "#   - {name: user_feature_0, kind: categorical}", "popularity, constant]"]),
    ("olist", "customer_unique_id", "product_id", "order_purchase_timestamp", None, PLAIN, "orders",
     ["`order_id` is an order"]),
]  # fmt: skip
ASKED = [
    ("instacart", "a log needs a time .*, found none among order_id, user_id"),
    ("criteo_attribution", "a log needs a time .*, found none among timestamp, uid"),
    ("mind_published", "a log needs a time .* none like 31.01.2026"),
    ("steam", "a log needs a time .*, found none among user-id"),
    ("book_crossing", "a log needs a time .*, found none among User-ID"),
    ("tenrec", "a log needs a time .*, found none among user_id"),
    ("tmall_published", "a log needs a time .*, found none among user_id"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "user", "item", "time", "behavior", "tasks", "shape", "comments"),
    GUESSED,
    ids=[row[0] for row in GUESSED],
)
def test_a_public_layout_is_guessed(
    name: str,
    user: str | None,
    item: str,
    time: str,
    behavior: str | None,
    tasks: list[str],
    shape: str,
    comments: list[str],
    tmp_path: Path,
):
    getattr(layouts, name)().to_parquet(tmp_path / "log.parquet")
    text = guess(tmp_path / "log.parquet")
    raw = yaml.safe_load(text)
    data = raw["data"]
    assert (data["user"], data["item"], data["time"], data.get("behavior")) == (user, item, time, behavior)
    assert [task_of(task) for task in raw["tasks"]] == tasks
    assert f"# Shape of the log: {shape}, " in text
    assert [comment for comment in comments if comment not in text] == []
    assert "as well" not in text  # nothing is unsure


@pytest.mark.parametrize("name", ["online_retail", "jdata"])
def test_a_guess_is_prepared_as_it_is_written(name: str, tmp_path: Path):
    getattr(layouts, name)().to_parquet(tmp_path / "log.parquet")
    settings = make_settings(yaml.safe_load(guess(tmp_path / "log.parquet")))
    summary = prepare(settings, tmp_path / "out").summary
    assert summary["splits"]["test"]["examples"] > 0
    assert summary["dropped_rows"]["missing_ids"] == (52 if name == "online_retail" else 0)


@pytest.mark.parametrize(("name", "message"), ASKED, ids=[name for name, _ in ASKED])
def test_a_public_layout_that_lacks_something_is_refused(name: str, message: str, tmp_path: Path):
    getattr(layouts, name)().to_parquet(tmp_path / "log.parquet")
    with pytest.raises(DataError, match=message):
        guess(tmp_path / "log.parquet")


def task_of(task: Any) -> str:
    """Return the behaviour or the label of a task, a regression with `~`."""
    if isinstance(task, str):
        return task
    return task["behaviors"][0] if "behaviors" in task else task["label"] + "~" * ("kind" in task)
