"""What a colleague would say: each thing that is wrong is named, and nothing is said of what is right."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mgoe._util.files import write_json
from mgoe.config import make_settings
from mgoe.data import choices, prepare
from mgoe.data.rules import USUAL
from mgoe.evaluation import Estimate, Row
from mgoe.experiments.notices import of_results
from mgoe.pipeline.notices import of_log, shape_of
from mgoe.training.progress import CURVES

ROWS = 20_000
CLICK = ({"name": "click", "label": "click"},)


def exposures(seed: int = 0) -> pd.DataFrame:
    """A stationary log of what was shown."""
    rng = np.random.default_rng(seed)
    users, items = rng.integers(0, 400, ROWS), rng.integers(0, 200, ROWS)
    rate = 0.15 + 0.2 * rng.random(400)[users] + 0.2 * rng.random(200)[items]
    seconds = np.sort(rng.integers(0, 40 * 86_400, ROWS))
    return pd.DataFrame(
        {
            "user_id": users,
            "item_id": items,
            "timestamp": pd.Timestamp("2024-03-01") + pd.to_timedelta(seconds, unit="s"),
            "device": rng.choice(["phone", "tablet", "desktop"], ROWS),
            "age": rng.random(ROWS),
            "click": (rng.random(ROWS) < rate).astype(int),
        }
    )


def said_of(log: pd.DataFrame, folder: Path, tasks: Any = CLICK, **data: Any) -> list[str]:
    folder.mkdir(exist_ok=True)
    log.to_parquet(folder / "log.parquet")
    context = [{"name": "device"}, {"name": "age", "kind": "numeric"}]
    read = {"log": str(folder / "log.parquet"), "context": context} | data
    settings = make_settings({"data": read, "tasks": tasks})
    return of_log(prepare(settings, folder / "data"), settings)


def test_a_regression_that_a_few_rows_decide_is_named(tmp_path: Path):
    rng = np.random.default_rng(0)
    log = exposures().assign(stay=rng.exponential(5e3, ROWS))
    stay = {"name": "stay", "label": "stay", "kind": "regression"}
    assert said_of(log, tmp_path / "usual", tasks=[stay]) == []
    heavy = log.assign(stay=np.where(rng.random(ROWS) < 0.004, 1e7, log["stay"]))
    [said] = said_of(heavy, tmp_path / "heavy", tasks=[stay])
    assert "1% of the labels of stay above 0 hold more than half of their sum" in said


def later_clicks(log: pd.DataFrame) -> pd.DataFrame:
    """Clicks three times as frequent from the last tenth on."""
    row = np.arange(ROWS)
    return log.assign(click=np.where(row >= 0.93 * ROWS, row % 8 != 0, log["click"] * (row % 2)).astype(int))


WRONG: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "the number of a row as a user": (
        lambda log: log.assign(user_id=np.arange(ROWS)),
        r"'user_id' has 20,000 values in 20,000 rows, .*data.user",
    ),
    "the number of a row as an item": (
        lambda log: log.assign(item_id=np.arange(ROWS) + 7),
        r"'item_id' has 20,000 values in 20,000 rows, .*data.item",
    ),
    "rows twice": (
        lambda log: pd.concat([log, log.iloc[:3000]]),
        r"3,000 of 23,000 rows repeat another .* count once",
    ),
    "rows without a user": (
        lambda log: log.assign(user_id=log["user_id"].astype("Int64").where(np.arange(ROWS) % 10 > 0)),
        r"2,000 rows without 'user_id' or 'item_id' are left out",
    ),
    "half of the times with a zone": (
        lambda log: log.assign(
            timestamp=log["timestamp"].astype(str) + np.where(np.arange(ROWS) % 2, "+02:00", "")
        ),
        "50% of the times in 'timestamp' name a zone and the others are read as UTC, .*set data.timezone",
    ),
    "a test unlike the time before": (
        later_clicks,
        r"click is \d\.\d times as frequent in test as in training",
    ),
    "a number that follows from the label": (
        lambda log: log.assign(age=log["click"] + 0.3 * np.random.default_rng(1).normal(size=ROWS)),
        r"the context 'age' alone has an AUC of 0\.9\d for click",
    ),
    "a category that follows from the label": (
        lambda log: log.assign(device=np.where(log["click"] == 1, "bought", "left")),
        r"the context 'device' alone has an AUC of 1\.00 for click",
    ),
}


def test_dates_among_times_are_named_where_rows_read_up_to_their_time(tmp_path: Path):
    log = exposures()[["user_id", "item_id", "timestamp"]].assign(behavior="click")
    days = log["timestamp"].dt.normalize()
    mixed = log.assign(timestamp=days.where(np.arange(ROWS) % 4 == 0, log["timestamp"]))
    for k, (history, rows) in enumerate([("moment", mixed), ("bucket", mixed), ("moment", log)]):
        rows.to_parquet(tmp_path / "log.parquet")
        data = {"log": str(tmp_path / "log.parquet"), "timezone": "Europe/Madrid", "history": history}
        run = make_settings({"data": data, "tasks": ["click"]})
        said = of_log(prepare(run, tmp_path / str(k)), run)
        assert len(said) == (k == 0)
        assert all("25% of the times in 'timestamp' are midnights" in sentence for sentence in said)


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_with_a_log_is_named(wrong, tmp_path: Path):
    change, sentence = WRONG[wrong]
    said = said_of(change(exposures()), tmp_path, missing_ids="drop")
    assert len(said) == 1
    assert pd.Series(said).str.contains(sentence, regex=True).all(), said


def test_history_that_a_service_would_know_better_is_named(tmp_path: Path):
    """Every item lives for four days: at the cut most are unknown, at their moment only first events are."""
    log = exposures()[["user_id", "item_id", "timestamp"]]
    day = (log["timestamp"] - log["timestamp"].min()).dt.days
    news = log.assign(item_id=log["item_id"] + 1000 * (day // 4))
    events = {"behavior": None, "context": [], "tasks": ["click"]}
    [said] = said_of(news, tmp_path / "news", **events)
    assert re.search(r"comes [12]\.\d days after .* \d+% of it is on items that are new to it, \d+% at", said)
    for quiet in ({"history": "bucket"}, {"history": "moment"}):
        assert said_of(news, tmp_path / "-".join(quiet.values()), **events, **quiet) == []
    dates = news.assign(timestamp=news["timestamp"].dt.floor("D"))
    assert said_of(dates, tmp_path / "dates", **events) == []


def test_users_who_are_known_at_their_moment_alone_are_named(tmp_path: Path):
    """Every user has one session of five events, minutes apart, so no cut and hardly a bucket knows them."""
    log = exposures()[["item_id", "timestamp"]].assign(user_id=np.arange(ROWS) // 5)
    log["timestamp"] = log.groupby("user_id")["timestamp"].transform("first")
    log["timestamp"] += pd.to_timedelta(np.arange(ROWS) % 5, unit="min")
    events = {"behavior": None, "context": [], "tasks": ["click"]}
    for history in ("cut", "bucket"):
        [said] = said_of(log, tmp_path / history, **events, history=history)
        assert re.search(r"(100|99)% of it is by users that are new to it, 20% at their moment", said)
    assert said_of(log, tmp_path / "moment", **events, history="moment") == []


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_said_of_a_stationary_log(seed, tmp_path: Path):
    assert said_of(exposures(seed), tmp_path) == []


def shape_of_log(log: pd.DataFrame, folder: Path, cuts: Any = USUAL, **data: Any) -> str:
    folder.mkdir(exist_ok=True)
    log.to_parquet(folder / "log.parquet")
    read = {"log": str(folder / "log.parquet")} | data
    settings = make_settings({"data": read, "tasks": CLICK, "split": {"cuts": cuts}})
    return shape_of(prepare(settings, folder / "data"), settings)


def in_bursts(hours: float) -> pd.DataFrame:
    """Five bursts of so many hours, a month apart."""
    log = exposures()
    since = (log["timestamp"] - log["timestamp"].min()).dt.total_seconds() / (8 * 86_400)
    burst = since.astype(int)
    at = burst * 30 * 86_400 + (since - burst) * hours * 3600
    return log.assign(timestamp=pd.Timestamp("2024-03-01") + pd.to_timedelta(at, unit="s"))


@pytest.mark.parametrize("history", ["cut", "moment"])
def test_sessions_that_never_return_explain_that_nothing_is_told(tmp_path: Path, history: str):
    log = exposures()
    sessions = log.assign(user_id=np.arange(ROWS) // 5)
    said = shape_of_log(sessions, tmp_path / "sessions", history=history)
    assert re.match(
        r"100% of the rows of test are of users who first appear in it, such as sessions: give", said
    )
    assert ("set data.history: moment" in said) == (history == "cut")
    assert shape_of_log(log, tmp_path / "users", history=history) == ""


def test_a_split_that_would_work_is_named_for_bursts(tmp_path: Path):
    said = shape_of_log(in_bursts(5), tmp_path / "days", cuts=[0.2, 0.4, 0.6])
    assert said == "only 5 buckets of 1d have rows: set data.bucket: 1h and split.cuts: auto"
    data = {"log": str(tmp_path / "days" / "log.parquet"), "bucket": "1h"}
    cuts = choices({"data": data, "tasks": [*CLICK], "split": {"cuts": "auto"}})["split.cuts"].value
    assert shape_of_log(in_bursts(5), tmp_path / "hours", cuts=cuts, bucket="1h") == ""


def test_a_log_of_few_dates_is_too_short(tmp_path: Path):
    dates = in_bursts(0)
    said = shape_of_log(dates, tmp_path / "dates", cuts=[0.2, 0.4, 0.6])
    assert said.startswith("5 buckets of 1d have rows, for 3 windows: take a longer log, or fewer split.cuts")


GOOD = Estimate("mgoe", None, "all", "ranking", 0.7, 0.68, 0.72, (0.7,), users=900)
LEAD = Estimate("mgoe", "popularity", "all", "ranking", 0.05, 0.04, 0.06, (0.05,), users=900)
CURVE = {"epoch": 2, "losses": {"click": 0.4}, "validation": {"click": {"logloss": 0.42}}}


def finished(folder: Path, best: int = 2, losses: float = 0.4) -> Any:
    """A finished cell of four epochs."""
    folder.mkdir()
    epochs = [CURVE | {"epoch": epoch, "losses": {"click": losses}} for epoch in range(1, 5)]
    write_json(folder / CURVES, {"best_epoch": best, "epochs": epochs})
    return SimpleNamespace(folder=folder, variant=SimpleNamespace(name="mgoe"))


def measured(before: float, after: float) -> list[Row]:
    where: Any = {"model": "mgoe", "seed": 0, "split": "test", "slice": "all", "task": "click"}
    losses = {"logloss": before, "logloss_after": after}
    return [Row(**where, metric=name, value=value) for name, value in losses.items()]


RESULTS: dict[str, tuple[dict[str, Any], str]] = {
    "few users": ({"own": [replace(GOOD, users=60)]}, "only 60 test users .*the interval is 0.68 to 0.72"),
    "too few for an interval": (
        {"own": [replace(GOOD, users=9, low=np.nan, high=np.nan)]},
        "only 9 test users .*no interval exists",
    ),
    "a hopeless task": (
        {"own": [GOOD, replace(GOOD, task="buy", metric="auc", value=0.51, low=0.47, high=0.55)]},
        "nothing in the log predicts buy: its AUC is between 0.47 and 0.55",
    ),
    "a hopeless task of sessions": (
        {
            "own": [replace(GOOD, task="buy", metric="auc", value=0.51, low=0.47, high=0.55)],
            "shape": "98% of the rows of test are of users who first appear in it",
        },
        "nothing in the log predicts buy: its AUC is between 0.47 and 0.55; 98% of the rows of test are of "
        "users who first appear in it$",
    ),
    "the last epoch": ({"best": 4}, "the best epoch of mgoe is the last of 4"),
    "rows learned by heart": (
        {"losses": 0.1},
        "log loss of click is 0.100 in training and 0.420 on validation",
    ),
    "calibration that makes it worse": (
        {"rows": measured(0.40, 0.45)},
        "calibration on validation makes click worse on test: its log loss is 0.4500 after and 0.4000 before",
    ),
    "popularity ahead": (
        {"leads": [replace(LEAD, value=-0.01)]},
        "popularity, which learns nothing, is ahead of mgoe by 0.0100",
    ),
}


def said_of_results(
    folder: Path, own=(GOOD,), rows=(), leads=(LEAD,), shape: str = "", **cell: Any
) -> list[str]:
    return of_results([finished(folder / "cell", **cell)], rows or measured(0.4, 0.4), own, leads, shape)


@pytest.mark.parametrize("wrong", RESULTS)
def test_what_is_odd_about_results_is_named(wrong, tmp_path: Path):
    changes, sentence = RESULTS[wrong]
    said = said_of_results(tmp_path, **changes)
    assert len(said) == 1
    assert pd.Series(said).str.contains(sentence, regex=True).all(), said


def test_nothing_is_said_of_good_results(tmp_path: Path):
    assert said_of_results(tmp_path) == []
