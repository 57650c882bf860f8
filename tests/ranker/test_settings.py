"""Parameters of a ranker become settings of a run: what is given stays, and what is not is guessed."""

from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import yaml

import mgoe
from mgoe.config import RunSettings, make_settings
from mgoe.data import guess
from mgoe.errors import MgoeError
from mgoe.models import RankingModel, resolve
from mgoe.ranker.settings import settings_of_run
from mgoe.ranker.tables import stored

RNG = np.random.default_rng(0)
ROWS = 400
EVENTS = pd.DataFrame(
    {
        "user_id": RNG.integers(0, 20, ROWS),
        "item_id": RNG.integers(0, 20, ROWS),
        "timestamp": pd.Timestamp("2025-01-01") + pd.to_timedelta(RNG.integers(0, 40 * 86_400, ROWS), "s"),
        "behavior": RNG.choice(["click", "buy"], ROWS, p=[0.8, 0.2]),
    }
)
SHOWN = EVENTS.drop(columns="behavior").assign(
    click=RNG.integers(0, 2, ROWS), buy=RNG.integers(0, 2, ROWS), age=RNG.random(ROWS)
)
FRAMES: dict[str, Any] = {
    "pandas": lambda log: log,
    "nullable": lambda log: log.astype({"user_id": "Int64", "behavior": "string"}),
    "categories": lambda log: log.astype(dict.fromkeys(("user_id", "item_id", "behavior"), "category")),
    "ids in the index": lambda log: log.set_index(["user_id", "item_id"]),
    "a part of a frame": lambda log: pd.concat([log, log]).iloc[: len(log)],
    "times of several zones": lambda log: log.assign(timestamp=zoned(log["timestamp"])),
    "polars": pl.from_pandas,
    "Arrow": pa.Table.from_pandas,
    "Ibis": ibis.memtable,
}


def zoned(times: pd.Series, *zones: str | None) -> pd.Series:
    """The same moments, written in turn in each zone; None writes them without one."""
    zones = zones or ("UTC", "Asia/Tokyo")
    utc = [time.tz_localize("UTC") for time in times]
    own = [zones[n % len(zones)] for n in range(len(utc))]
    written = [t.tz_convert(zone) if zone else t.tz_localize(None) for t, zone in zip(utc, own, strict=True)]
    return pd.Series([time.to_pydatetime() for time in written], dtype=object, index=times.index)


def settings(log: pd.DataFrame, folder: Path, *args: Any, **columns: str) -> RunSettings:
    log.to_parquet(folder / "log.parquet")
    tasks, model, *sections = *args, *(None, "mgoe")[len(args) :]
    return settings_of_run({"events": folder / "log.parquet"}, tasks, columns, model, *sections)


@pytest.mark.parametrize("kind", FRAMES)
def test_every_kind_of_frame_holds_the_same_rows(kind: str, tmp_path: Path):
    frame = FRAMES[kind](EVENTS)
    found = pd.read_parquet(stored(frame, tmp_path, "events"))[[*EVENTS.columns]]
    found["timestamp"] = pd.to_datetime(found["timestamp"], utc=True).dt.tz_localize(None)
    pd.testing.assert_frame_equal(
        found.astype({"behavior": "object"}),
        EVENTS.astype({"behavior": "object"}),
        check_dtype=False,
        check_categorical=False,
    )


def test_a_path_is_read_where_it_is(tmp_path: Path):
    assert stored("logs/*.csv", tmp_path, "events") == "logs/*.csv"
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("log", [EVENTS, SHOWN], ids=["events", "exposures"])
def test_without_parameters_the_settings_are_those_of_init(log: pd.DataFrame, tmp_path: Path):
    found = settings(log, tmp_path)
    expected = make_settings(yaml.safe_load(guess(tmp_path / "log.parquet")))
    assert found == expected.model_copy(update={"models": ["mgoe"]})


def test_what_is_given_is_not_guessed(tmp_path: Path):
    odd = EVENTS.rename(columns={"user_id": "a", "item_id": "b", "timestamp": "c", "behavior": "d"})
    found = settings(odd, tmp_path, ["buy", "click"], user="b", item="a", time="c", behavior="d")
    assert (found.data.user, found.data.item, found.data.time, found.data.behavior) == ("b", "a", "c", "d")
    assert found.task_names == ("buy", "click")
    assert found.form == "events"


def test_names_of_columns_are_labels(tmp_path: Path):
    found = settings(SHOWN, tmp_path, ["buy", {"name": "years", "label": "age", "kind": "regression"}])
    assert [(task.name, task.label, task.kind) for task in found.tasks] == [
        ("buy", "buy", "binary"),
        ("years", "age", "regression"),
    ]
    assert found.form == "exposures"


BERLIN = {"data": {"timezone": "Europe/Berlin"}}


def test_settings_stand_above_guesses(tmp_path: Path):
    found = settings(EVENTS, tmp_path, None, "mmoe", {"training": {"epochs": 9}, "seeds": [5]}, BERLIN)
    assert (found.training.epochs, found.seeds, found.models) == (9, [5], ["mmoe"])
    assert found.data.timezone == "Europe/Berlin"


class Own(RankingModel):
    """A model of one's own."""


def test_a_model_may_be_a_class(tmp_path: Path):
    for given in (Own, {"name": "own", "base": Own}):
        [model] = settings(EVENTS, tmp_path, None, given).models
        assert resolve(model).base == f"{__name__}:Own"


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_the_rows_of_a_two_dimensional_array_and_lists_of_floats_are_vectors(kind: type, tmp_path: Path):
    settings(EVENTS, tmp_path)
    vectors = np.arange(6, dtype=kind).reshape(3, 2)
    for items in (
        {"item_id": [1, 2, 3], "about": vectors},
        pd.DataFrame({"item_id": [1, 2, 3], "about": [*vectors]}),
        pl.DataFrame({"item_id": [1, 2, 3], "about": vectors.astype(np.float32)}),
    ):
        files = {"events": tmp_path / "log.parquet", "items": stored(items, tmp_path, "items")}
        found = settings_of_run(files, None, {}, "mgoe").data.items
        assert found is not None
        assert [(one.name, one.kind) for one in found.features] == [("about", "vector")]
        assert pd.read_parquet(files["items"])["about"].map(list).tolist() == vectors.tolist()
    with pytest.raises(MgoeError, match=r"items: columns must be of one length, found .*'about': 3"):
        stored({"item_id": [1, 2], "about": vectors}, tmp_path, "items")


def test_a_side_table_s_columns_are_features(tmp_path: Path):
    EVENTS.to_parquet(tmp_path / "log.parquet")
    side = pl.DataFrame({"item_id": [1, 2], "brand": ["a", "b"], "price": [1.5, 2.0], "tags": [["x"], ["y"]]})
    files = {"events": tmp_path / "log.parquet", "items": stored(side, tmp_path, "items")}
    found = settings_of_run(files, None, {}, "mgoe").data.items
    assert found is not None
    assert found.id == "item_id"
    assert {feature.name: feature.kind for feature in found.features} == {
        "brand": "categorical",
        "price": "numeric",
        "tags": "multi",
    }


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (pd.concat([EVENTS, EVENTS[["user_id"]]], axis=1), "found 'user_id' twice; rename or drop one"),
        (pa.table([[1], [2]], names=["a", "a"]), "found 'a' twice; rename or drop one"),
        (EVENTS.head(0), "must hold rows, found none"),
        (pd.DataFrame(), "must have columns, found none"),
        (
            EVENTS.set_index("user_id").rename_axis(None),
            "found no column like them among item_id, .* not an index",
        ),
        (
            EVENTS.assign(user_id=[1, "a"] * (ROWS // 2)),
            "values of one type in each column, found that .* user_id with type object; convert",
        ),
        (
            EVENTS.assign(behavior=["click", 1] * (ROWS // 2)),
            "one type in each column, .* behavior",
        ),
        (
            EVENTS.assign(user_id=EVENTS["user_id"].astype("Int64").mask(EVENTS.index < 3)),
            "an id must not be",
        ),
        (EVENTS.assign(timestamp=zoned(EVENTS["timestamp"], "UTC", None)), "must have a zone, or none"),
        (EVENTS.drop(columns="behavior"), "a task is a label column, or a value"),
        (EVENTS.replace("buy", "bye"), "found none of 'buy' in column 'behavior'; did you mean 'bye'"),
        ([1, 2], "must be a table of Ibis or a frame of pandas, polars or Arrow, found a list"),
        (EVENTS["user_id"], "events: must be a table of Ibis or a frame"),
        ("no-such-file.parquet", r"no-such-file\.parquet: no such file"),
    ],
)
def test_wrong_rows_are_named_in_one_sentence(rows: Any, sentence: str):
    with pytest.raises(MgoeError, match=sentence) as caught:
        mgoe.Ranker(tasks=["click", "buy"]).fit(rows)
    assert "/mgoe-" not in str(caught.value)  # not by the file that only we wrote
    assert "--" not in str(caught.value)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"tasks": "click"}, "must be a list of names or of settings, found 'click'"),
        ({"tasks": []}, "must be a list of names"),
        ({"tasks": [{"label": "x"}]}, "each task needs a name"),
        ({"model": "mgeo"}, "did you mean 'mgoe'"),
        ({"model": int}, r"must be a mgoe\.models\.RankingModel, found int"),
        ({"model": 7}, "must be a name, settings or a class, found 7"),
        ({"settings": {"training.epoch": 1}}, "did you mean 'epochs'"),
        ({"settings": 7}, "must be a mapping, found 7"),
        ({"user": "usr"}, "did you mean 'user_id'"),
        ({"user": 7}, "user: must be the name of a column, found 7"),
        ({"seed": -1}, "greater than or equal to 0, found -1"),
        ({"memory": -1}, "greater than or equal to"),
        ({"context": "age"}, "context: must be a list of columns or settings, found 'age'"),
        ({"context": ["age"]}, "belongs to an exposure log"),
        ({"users": pd.DataFrame({"id": [1], "a": [2]})}, "users: a side table has the id column of the log"),
        ({"items": pd.DataFrame({"item_id": [1, 1], "a": [2, 3]})}, "items, .* one row per id"),
        ({"items": __file__}, r"test_settings\.py: a side table is a frame or a Parquet file"),
    ],
)
def test_wrong_parameters_are_named_in_one_sentence(parameters: dict[str, Any], sentence: str):
    with pytest.raises(MgoeError, match=sentence):
        mgoe.Ranker(**{"tasks": ["click", "buy"], **parameters}).fit(EVENTS)
