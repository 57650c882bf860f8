import functools
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mgoe.config import RunSettings, load_settings, make_settings
from mgoe.data import draft, guess, prepare, profile
from mgoe.errors import DataError
from mgoe.models import resolve
from tests.data import logs
from tests.data.test_examples import real
from tests.effort import SOAK


def odd_log(rows: int = 4000, seed: int = 0) -> pd.DataFrame:
    """Return a pandas log as a shop may have it: unusual names, an index, a nullable column."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice(
        ["AddToCart", "view", "Purchase", "remove_from_cart"], rows, p=[0.2, 0.7, 0.0995, 0.0005]
    )
    return pd.DataFrame(
        {
            "Event Name": kinds,
            "Customer ID": [f"c-{k}" for k in rng.integers(0, 80, rows)],
            "Price: paid": rng.random(rows).round(2),
            "SKU#": rng.integers(10**6, 10**6 + 60, rows),
            "Occurred at": pd.Timestamp("2024-03-01")
            + pd.to_timedelta(rng.integers(0, 40 * 86_400, rows), unit="s"),
        },
        index=pd.Index(range(7, rows + 7), name="row"),
    )


def guessed(log: pd.DataFrame) -> RunSettings:
    with TemporaryDirectory() as folder:
        log.to_parquet(Path(folder) / "log.parquet")
        settings = make_settings(yaml.safe_load(guess(Path(folder) / "log.parquet")))
    return settings.model_copy(update={"data": settings.data.model_copy(update={"log": ("log.parquet",)})})


@functools.cache
def guessed_of(labels: tuple[str, str]) -> tuple[pd.DataFrame, RunSettings]:
    """Exposures with labels of these names, and what is guessed of them."""
    log = logs.quiet_exposures().rename(columns=dict(zip(("clicked", "bought"), labels, strict=True)))
    return log, guessed(log)


def test_a_guessed_configuration_runs_unchanged(tmp_path):
    odd_log().to_parquet(tmp_path / "my log.parquet")
    (tmp_path / "mine.yaml").write_text(text := guess(tmp_path / "my log.parquet"))
    settings = load_settings(tmp_path / "mine.yaml")
    assert settings.form == "events"
    assert (settings.data.user, settings.data.item, settings.data.time) == (
        "Customer ID",
        "SKU#",
        "Occurred at",
    )
    assert settings.data.behavior == "Event Name"
    assert [(task.name, task.behaviors) for task in settings.tasks] == [
        ("view", []),
        ("addtocart", ["AddToCart"]),
        ("purchase", ["Purchase"]),
    ]
    assert settings.data.bucket == "1d"
    assert "# left out as too rare: remove_from_cart (" in text
    assert "4,000 rows, 2024-03-01 to 2024-04-09" in text
    data = prepare(settings, tmp_path / "out")
    assert data.summary["splits"]["test"]["examples"] > 0


@given(rows=st.integers(1, 10**7), installed=st.booleans())
def test_rows_that_a_sceptic_expects_are_listed_where_they_cost_seconds(rows: int, installed: bool):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mgoe.data.draft.find_spec", lambda name: name if installed else None)
        line, why = draft.models_line(rows)
    found = yaml.safe_load(line)["models"]
    usual = RunSettings.model_fields["models"].default
    assert [name for name in found if name in usual] == usual
    quick = rows <= draft.QUICK
    simple = ["logistic+mgoe"] * quick + ["lightgbm+moment"] * (quick and installed)
    assert [name for name in found if name not in usual] == simple
    assert all(resolve(name).name == name for name in found)
    assert ("would take minutes" in why) == (not quick)
    assert ("trees read counts" in why) == (quick and installed)


def test_an_index_of_pandas_without_a_name_is_no_column(tmp_path):
    """It has most values, so the households were taken for something else."""
    rng = np.random.default_rng(0)
    times = pd.Timestamp("2024-03-01") + pd.to_timedelta(rng.integers(0, 30 * 86_400, 2000), unit="s")
    nodes = {"household": rng.integers(0, 50, 2000), "product_id": rng.integers(0, 60, 2000)}
    log = pd.DataFrame({**nodes, "at": times}).sample(frac=1, random_state=0)
    log.to_parquet(tmp_path / "log.parquet")
    assert "__index_level_0__" in pq.read_schema(tmp_path / "log.parquet").names
    text = guess(tmp_path / "log.parquet")
    assert yaml.safe_load(text)["data"]["user"] == "household"
    assert "__index" not in text


def sessions(share: float, date: bool = False, users: int = 600) -> pd.DataFrame:
    """Return a log of 30 days in which users have a session of minutes, and a share of them a second one, ten
    days later."""
    rng = np.random.default_rng(1)
    start = np.sort(rng.integers(0, 20 * 86_400, users))
    again = np.flatnonzero(rng.random(users) < share)
    user = np.repeat(np.concatenate([np.arange(users), again]), 4)
    start = np.repeat(np.concatenate([start, start[again] + 10 * 86_400]), 4)
    times = pd.Timestamp("2024-03-01") + pd.to_timedelta(start + rng.integers(0, 600, len(user)), unit="s")
    return pd.DataFrame(
        {
            "session_id": user,
            "item_id": rng.integers(0, 40, len(user)),
            "time": times.strftime("%Y-%m-%d") if date else times,
        }
    )


@pytest.mark.parametrize(
    ("log", "reads", "why"),
    [
        (sessions(0.02), "moment", "users do not return, so a row knows of its user only what came just"),
        (sessions(0.02, date=True), "bucket", "users do not return, and without times of day a row knows"),
        (sessions(0.5), "moment", "a row reads what a service would know"),
    ],
)
def test_a_log_whose_users_do_not_return_is_recognised(tmp_path, log: pd.DataFrame, reads: str, why: str):
    log.to_parquet(tmp_path / "log.parquet")
    text = guess(tmp_path / "log.parquet")
    lines = {line.split(":")[0].strip(): line for line in text.splitlines()}
    assert yaml.safe_load(text)["data"]["history"] == reads
    assert why in lines["history"]
    assert ("of whom have rows on both sides of a cut" in lines["user"]) == ("do not return" in why)


@pytest.mark.parametrize("spelling", ["fav", "favour", "favor", "favourite", "favorite"])
def test_favourite_is_a_task_in_any_spelling(tmp_path, spelling):
    rng = np.random.default_rng(0)
    labels = {name: rng.integers(0, 2, 2000) for name in ("click", spelling, "buy")}
    times = pd.Timestamp("2024-03-01") + pd.to_timedelta(
        np.sort(rng.integers(0, 30 * 86_400, 2000)), unit="s"
    )
    nodes = {"user_id": rng.integers(0, 50, 2000), "item_id": rng.integers(0, 60, 2000), "timestamp": times}
    pd.DataFrame(nodes | labels).to_parquet(tmp_path / "log.parquet")
    tasks = make_settings(yaml.safe_load(guess(tmp_path / "log.parquet"))).tasks
    assert [task.label for task in tasks] == ["click", spelling, "buy"]


def test_an_exposure_log_is_recognised_by_its_labels(tmp_path):
    rng = np.random.default_rng(1)
    log = pd.DataFrame(
        {
            "user_id": rng.integers(0, 50, 3000),
            "video_id": rng.integers(0, 90, 3000),
            "user_active_degree": rng.choice(["full", "low", "new"], 3000),
            "time_ms": 1_650_000_000_000 + rng.integers(0, 5 * 86_400_000, 3000),
            "is_follow": rng.random(3000) < 0.05,
            "is_click": (rng.random(3000) < 0.4).astype(int),
            "position": rng.integers(0, 10, 3000),
            "is_rand": (rng.random(3000) < 0.1).astype(int),
            "request_id": np.arange(3000) // 3,
            "play_time_ms": rng.exponential(9000, 3000),
        }
    )
    log.to_csv(tmp_path / "log.csv", index=False)
    text = guess(str(tmp_path / "log.csv"))
    settings = make_settings(yaml.safe_load(text))
    assert settings.form == "exposures"
    assert (settings.data.user, settings.data.item, settings.data.time, settings.data.position) == (
        "user_id",
        "video_id",
        "time_ms",
        "position",
    )
    assert (settings.data.uniform, settings.data.request) == ("is_rand", "request_id")
    assert [(task.name, task.label) for task in settings.tasks] == [
        ("click", "is_click"),
        ("follow", "is_follow"),
    ]
    assert settings.data.bucket == "1h"
    training = settings.training  # which has few rows
    assert (training.epochs, training.batch_size, training.learning_rate) == (8, 256, 0.002)
    assert re.search("some 1,[78][0-9]{2} training rows", text)
    assert "#   - {name: user_active_degree, kind: categorical}" in text
    assert "play_time_ms" not in text  # which is known afterwards alone
    uncommented = text.replace("  # context:", "  context:").replace("  #   - {name", "    - {name")
    assert prepare(make_settings(yaml.safe_load(uncommented)), tmp_path / "out").context_features.sizes == {
        "user_active_degree": 4
    }


def test_a_date_in_a_csv_is_neither_behaviour_nor_item(tmp_path):
    log = odd_log()[["Event Name", "Customer ID", "SKU#", "Occurred at"]]
    log.insert(0, "last event", log["Occurred at"].dt.strftime("%Y-%m-%d"))
    log.rename(columns={"SKU#": "thing"}).to_csv(tmp_path / "log.csv", index=False)
    data = make_settings(yaml.safe_load(guess(tmp_path / "log.csv"))).data
    assert (data.user, data.item, data.behavior, data.time) == (
        "Customer ID",
        "thing",
        "Event Name",
        "Occurred at",
    )


HELD = {
    "uuid": lambda ids: pa.ExtensionArray.from_storage(
        pa.uuid(), pa.array([UUID(int=k).bytes for k in ids], pa.binary(16))
    ),
    "decimal": lambda ids: pa.array(ids).cast(pa.decimal128(38)),
    "decimal with places": lambda ids: pa.array(ids).cast(pa.decimal128(30)).cast(pa.decimal128(38, 10)),
    "float with a gap": lambda ids: pa.array([None, *ids[1:]], pa.float64()),
}


@pytest.mark.parametrize("held", HELD)
def test_ids_are_recognised_in_every_type(held, tmp_path):
    """A price of whole numbers is not an id."""
    log = odd_log()[["Event Name", "Occurred at"]].assign(price=np.arange(4000.0))
    table = pa.Table.from_pandas(log, preserve_index=False)
    for name, count in (("member", 50), ("thing_item", 60)):
        table = table.append_column(
            name, HELD[held](np.random.default_rng(count).integers(1, count, 4000).tolist())
        )
    pq.write_table(table, tmp_path / "log.parquet")
    data = make_settings(yaml.safe_load(guess(tmp_path / "log.parquet"))).data
    assert (data.user, data.item) == ("member", "thing_item")


def test_amounts_and_fractions_are_not_ids(tmp_path):
    log = odd_log()[["Event Name", "Occurred at", "Customer ID"]]
    log.assign(item_price=np.arange(4000.0), product=np.arange(4000) / 2).to_parquet(tmp_path / "log.parquet")
    with pytest.raises(DataError, match="a log needs a user and an item, found no column like them among"):
        guess(tmp_path / "log.parquet")


@pytest.mark.parametrize("kind", [pa.decimal128(38, 0), pa.decimal128(20, 6)])
def test_a_decimal_is_recognised_as_a_time(kind, tmp_path):
    log = odd_log()
    seconds = (
        pa.array(log.pop("Occurred at").astype("datetime64[s]").astype("int64"))
        .cast(pa.decimal128(19))
        .cast(kind)
    )
    pq.write_table(
        pa.Table.from_pandas(log, preserve_index=False).append_column("Occurred at", seconds),
        tmp_path / "log.parquet",
    )
    text = guess(tmp_path / "log.parquet")
    assert make_settings(yaml.safe_load(text)).data.time == "Occurred at"
    assert "4,000 rows, 2024-03-01 to 2024-04-09" in text


def test_an_infinite_time_is_ignored(tmp_path):
    """Postgres writes infinite times; a run names the row."""
    odd_log().to_parquet(tmp_path / "plain.parquet")
    odd = f"""SELECT * REPLACE (
            CASE "SKU#" WHEN 1000007 THEN 'infinity' ELSE "Occurred at" END::TIMESTAMP AS "Occurred at")
        FROM '{tmp_path}/plain.parquet'"""
    duckdb.connect().execute(f"COPY ({odd}) TO '{tmp_path}/log.parquet'")
    text = guess(tmp_path / "log.parquet")
    assert "4,000 rows, 2024-03-01 to 2024-04-09" in text
    with pytest.raises(DataError, match=r"a time must be given and readable .* found 'infinity' in row"):
        prepare(make_settings(yaml.safe_load(text)), tmp_path / "out")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_log_without_rows_is_refused(kind, tmp_path):
    log = odd_log()[:0]
    log.to_csv(tmp_path / "log.csv") if kind == "csv" else log.to_parquet(tmp_path / "log.parquet")
    with pytest.raises(
        DataError, match=rf"log.{kind}: the log must hold rows, found none; give a log with rows"
    ):
        guess(tmp_path / f"log.{kind}")


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (
            20_240_301 + np.arange(4000) % 30,
            r"found 20240301 to 20240330, of which most look like dates written YYYYMMDD",
        ),
        (
            np.where(np.arange(4000) == 7, 253_402_300_799, 1_709_251_200 + np.arange(4000)),
            r"must be of one unit, found 253402300799",
        ),
    ],
)
def test_numbers_that_are_not_times_give_the_same_error_as_in_a_run(times, message, tmp_path):
    odd_log().drop(columns="Occurred at").assign(at_time=times).to_parquet(tmp_path / "log.parquet")
    with pytest.raises(DataError, match=rf"log.parquet, column 'at_time': .*{message}"):
        guess(tmp_path / "log.parquet")


def test_a_column_of_missing_times_is_not_the_time(tmp_path):
    odd_log().assign(**{"Occurred at": pd.NaT}).to_parquet(tmp_path / "log.parquet")
    with pytest.raises(DataError, match=r"a log needs a time .*, found none among"):
        guess(tmp_path / "log.parquet")


def test_a_text_that_is_no_time_is_named_with_its_row(tmp_path):
    log = odd_log().rename(columns={"Occurred at": "at_time"}).astype({"at_time": str})
    log.loc[14, "at_time"] = "31.01.2026"
    log.to_parquet(tmp_path / "log.parquet")
    rule = r"column 'at_time': a time must be readable, .* found '31\.01\.2026' in row 8; fix or leave"
    with pytest.raises(DataError, match=rule):
        guess(tmp_path / "log.parquet")


def test_a_rating_is_a_regression(tmp_path):
    log = (
        logs.quiet_exposures()
        .assign(rating=np.arange(36) % 5 + 1)
        .drop(columns=["clicked", "bought", "hour"])
    )
    log.to_parquet(tmp_path / "log.parquet")
    settings = make_settings(yaml.safe_load(guess(tmp_path / "log.parquet")))
    assert [(task.name, task.label, task.kind, task.known_at) for task in settings.tasks] == [
        ("rating", "rating", "regression", settings.data.time)
    ]
    assert settings.models[-2:] == ["rates", "constant"]
    assert prepare(settings, tmp_path / "data").summary["splits"]["test"]["examples"] > 0


def test_numbered_behaviours_are_ordered_by_rarity(tmp_path):
    rng = np.random.default_rng(2)
    shown = (
        rng.random((5, 9, logs.DAYS)) < 0.5
    )  # of a log in which everybody does everything every day nothing is left for negatives
    log = logs.events([(u, i, d, "") for u, i, d in np.argwhere(shown).tolist()])
    log["behavior"] = rng.choice([3, 0, 1], len(log), p=[0.1, 0.6, 0.3])
    log.to_parquet(tmp_path / "log.parquet")
    settings = make_settings(yaml.safe_load(guess(tmp_path / "log.parquet")))
    assert [(task.name, task.behaviors) for task in settings.tasks] == [
        ("task_0", ["0"]),
        ("task_1", ["1"]),
        ("task_3", ["3"]),
    ]
    assert prepare(settings, tmp_path / "out").summary["ignored_behaviors"] == {}


@pytest.mark.parametrize(
    ("drop", "message"),
    [
        (
            ["timestamp"],
            r"log.parquet: a log needs a time .*, found none among user_id, item_id, behavior; add one",
        ),
        (
            ["user_id", "item_id"],
            r"a log needs a user and an item, found no column like them among timestamp, behavior; name",
        ),
    ],
)
def test_a_log_that_cannot_be_guessed_is_refused(drop, message, tmp_path):
    log = logs.quiet_events().assign(user_id=np.arange(24), item_id=np.arange(24) % 7)
    log.drop(columns=drop).to_parquet(tmp_path / "log.parquet")
    with pytest.raises(DataError, match=message):
        guess(tmp_path / "log.parquet")


def test_a_log_of_users_items_and_times_is_one_task(tmp_path):
    """It does not say what happened, so every row does the one task, which a caller may name."""
    logs.quiet_events().drop(columns="behavior").to_parquet(tmp_path / "log.parquet")
    settings = make_settings(yaml.safe_load(guess(tmp_path / "log.parquet")))
    assert (settings.form, settings.data.behavior, settings.task_names) == ("events", None, ("interaction",))
    text = guess(tmp_path / "log.parquet", tasks=["listen"])
    settings = make_settings(yaml.safe_load(text) | {"split": {"cuts": [0.3, 0.5, 0.7]}})
    assert settings.task_names == ("listen",)
    named = logs.quiet_events().assign(behavior="listen")
    named.to_parquet(tmp_path / "named.parquet")
    like = settings.data.model_copy(update={"log": [str(tmp_path / "named.parquet")], "behavior": "behavior"})
    prepared = prepare(settings, tmp_path / "plain").summary
    assert prepared == prepare(settings.model_copy(update={"data": like}), tmp_path / "as named").summary
    with pytest.raises(DataError, match="a task is a label column, or a value of a column of behaviours"):
        guess(tmp_path / "log.parquet", tasks=["listen", "buy"])
    odd = logs.quiet_events().rename(columns={"behavior": "op"}).assign(op=np.arange(24) % 3)
    odd.to_parquet(tmp_path / "odd.parquet")  # which may say what happened, so nothing is assumed
    for tasks in (None, ["buy"]):
        with pytest.raises(DataError, match=r"found neither|found no column 'buy' and no such values"):
            guess(tmp_path / "odd.parquet", tasks=tasks)


def test_labels_that_are_hardly_ever_done_are_left_out_and_named(tmp_path):
    rng, rows = np.random.default_rng(0), 4000
    log = pd.DataFrame(
        {
            "user_id": rng.integers(0, 50, rows),
            "item_id": rng.integers(0, 90, rows),
            "timestamp": pd.Timestamp("2024-03-01") + pd.to_timedelta(np.arange(rows) * 600, unit="s"),
            "is_click": (rng.random(rows) < 0.3).astype(int),
            "is_follow": (np.arange(rows) % 100 == 0).astype(int),
        }
    )
    log.to_parquet(tmp_path / "log.parquet")
    text = guess(tmp_path / "log.parquet")
    assert make_settings(yaml.safe_load(text)).task_names == ("click",)
    assert "# left out as too rare: is_follow (40)" in text
    assert "context" not in text  # it follows from the exposure, as every label does
    log.head(200).to_parquet(tmp_path / "log.parquet")  # where all are rare
    assert make_settings(yaml.safe_load(guess(tmp_path / "log.parquet"))).task_names == ("click", "follow")


def test_a_behaviour_of_a_single_value_is_one(tmp_path):
    logs.quiet_events().assign(behavior="play").to_parquet(tmp_path / "log.parquet")
    settings = make_settings(yaml.safe_load(guess(tmp_path / "log.parquet")))
    assert (settings.data.behavior, settings.task_names) == ("behavior", ("play",))


def test_real_logs_are_guessed():
    settings = make_settings(yaml.safe_load(guess(real("tmall.parquet"))))
    assert (settings.form, settings.task_names, settings.data.bucket) == (
        "events",
        ("click", "fav", "buy"),
        "1d",
    )
    settings = make_settings(yaml.safe_load(guess(real("zozo.parquet"))))
    assert (settings.form, settings.task_names, settings.data.position) == (
        "exposures",
        ("click",),
        "position",
    )


def test_a_profile_counts_events(tmp_path):
    rows = [
        (0, 0, 0, "click"),
        (0, 0, 1, "buy"),
        (0, 1, 2, "click"),
        (1, 1, 4, "click"),
        (1, 1, 4, "click"),
        (2, 2, 9, "cart"),
    ]
    log = logs.events(rows).astype({"user_id": "Int64"})
    wrong = log[:2].assign(
        user_id=pd.array([None, 5], "Int64"), timestamp=[logs.START, logs.START - 10 * logs.DAY]
    )
    pd.concat([log, wrong]).to_parquet(tmp_path / "log.parquet")
    run = logs.event_settings(data={"log": str(tmp_path / "log.parquet"), "start": "2020-01-01"})
    found = profile(run)
    assert {key: found[key] for key in ("rows", "outside_time", "duplicates", "users", "items", "pairs")} == {
        "rows": 8,
        "outside_time": 1,
        "duplicates": 1,
        "users": 3,
        "items": 3,
        "pairs": 4,
    }
    assert found["nulls"] == {"user_id": 1, "item_id": 0, "timestamp": 0, "behavior": 0}
    assert found["density"] == pytest.approx(4 / 9)
    assert found["span"] == {
        "first": "2020-01-01",
        "last": "2020-01-10",
        "bucket": "1d",
        "buckets": 5,
        "empty_buckets": 5,
        "busiest": {"bucket": "2020-01-05", "share": 2 / 6},
    }
    assert found["behaviors"]["click"] == {"rows": 4, "users": 2, "items": 2}
    assert found["tasks"]["click"] == {"done": 4, "pairs": 3, "rate": pytest.approx(4 / 6)}
    assert found["funnel"] == [{"task": "click", "next": "buy", "share": pytest.approx(1 / 3)}]
    assert found["activity"]["user"]["max"] == 3
    drift = found["drift"]
    assert drift["first"] == {"upto": "2020-01-02", "rates": {"click": 1.0, "buy": 0.0}}
    assert drift["last"] == {"since": "2020-01-10", "rates": {"click": 0.0, "buy": 0.0}}
    assert (drift["popularity_shift"], drift["new_users"], drift["new_items"], drift["new_pairs"]) == (
        1.0,
        1.0,
        1.0,
        1.0,
    )


def test_a_profile_of_tasks_named_like_columns(tmp_path):
    log = logs.quiet_exposures()
    log.to_parquet(tmp_path / "log.parquet")
    tasks = [{"name": name, "label": label} for name, label in (("user", "clicked"), ("item", "bought"))]
    found = profile(logs.exposure_settings(tasks=tasks, data={"log": str(tmp_path / "log.parquet")}))
    assert {name: task["pairs"] for name, task in found["tasks"].items()} == {"user": 2, "item": 2}
    assert found["funnel"] == [{"task": "user", "next": "item", "share": 1.0}]


def test_a_profile_of_exposures_counts_labels(tmp_path):
    log = logs.quiet_exposures()
    log.loc[0, "clicked"] = None
    log.to_csv(tmp_path / "log.csv", index=False)
    found = profile(logs.exposure_settings(data={"log": str(tmp_path / "log.csv")}))
    assert found["nulls"]["clicked"] == 1
    assert found["tasks"]["click"] == {"done": 23, "pairs": 2, "rate": pytest.approx(23 / 35)}
    assert found["behaviors"] == {}
    assert found["drift"]["new_users"] == 0


def test_an_empty_profile_is_refused(tmp_path):
    logs.quiet_events()[:0].to_parquet(tmp_path / "log.parquet")
    with pytest.raises(DataError, match="some row must have a user, an item and a time"):
        profile(logs.event_settings(data={"log": str(tmp_path / "log.parquet")}))


@settings(max_examples=12 if SOAK else 3)
@given(
    name=st.sampled_from(["device_type", "page_type", "user_type", "event_source", "type"]),
    values=st.lists(
        st.sampled_from(["ios", "android", "web", "home", "search", "new"]), min_size=2, unique=True
    )
    | st.just([1, 2, 3]),
    labels=st.sampled_from([("clicked", "bought"), ("is_click", "is_like"), ("click", "label")]),
)
def test_a_type_beside_labels_is_not_a_behaviour(name, values, labels):
    log, expected = guessed_of(labels)
    assert guessed(log.assign(**{name: np.resize(values, len(log))})) == expected


def test_values_of_a_type_are_behaviours_without_named_labels():
    log = (
        logs.quiet_exposures()
        .rename(columns={"clicked": "is_new", "bought": "is_mobile"})
        .assign(type=np.resize([1, 2, 3], 36))
    )
    assert guessed(log).data.behavior == "type"


@settings(max_examples=12 if SOAK else 3)
@given(
    user=st.sampled_from(["user_id", "uid", "userId", "Customer ID", "member", "visitor_key"]),
    item=st.sampled_from(["item_id", "sku", "productId", "video"]),
    other=st.sampled_from(["session_id", "sessionId", "merchant_id", "ad_id", "business_id"]),
    values=st.integers(2, 4000),
)
def test_session_and_merchant_are_not_user_and_item_beside_better_names(user, item, other, values):
    log = odd_log().rename(columns={"Customer ID": user, "SKU#": item})
    found = guessed(log.assign(**{other: np.arange(4000) % values}))
    assert (found.data.user, found.data.item) == (user, item)


def test_session_is_the_user_and_merchant_the_item_without_better_names():
    log = (
        odd_log()
        .rename(columns={"Customer ID": "session_id", "SKU#": "merchant_id"})
        .assign(user_age=np.arange(4000) % 70)
    )
    found = guessed(log)
    assert (found.data.user, found.data.item) == ("session_id", "merchant_id")


@pytest.mark.parametrize(
    ("times", "history"),
    [
        (lambda log: log["Occurred at"], "moment"),
        (lambda log: log["Occurred at"].dt.date, "bucket"),
        (lambda log: log["Occurred at"].dt.strftime("%Y-%m-%d"), "bucket"),
        (lambda log: log["Occurred at"].dt.normalize().dt.tz_localize("Asia/Shanghai"), "bucket"),
        (lambda log: log["Occurred at"].where(np.arange(len(log)) % 40 < 1, pd.Timestamp(0)), "bucket"),
    ],
    ids=["seconds", "dates", "text", "midnights elsewhere", "most at one time"],
)
def test_rows_read_up_to_their_time_if_times_are_finer_than_buckets(times, history, tmp_path):
    odd_log().assign(**{"Occurred at": times}).to_parquet(tmp_path / "log.parquet")
    text = guess(tmp_path / "log.parquet")
    assert make_settings(yaml.safe_load(text)).data.history == history
    assert re.search(f"  history: {history} +# a row reads ", text)
