"""What each published layout becomes, and that the log is one."""

import csv
import json
import shutil
import sys
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from mgoe._util.files import exclusive
from mgoe._util.tables import open_duckdb
from mgoe.config import load_comparison, load_settings
from mgoe.data import prepare as prepare_examples
from mgoe.datasets import DATA_SETS, PreparedLog, find, prepare
from mgoe.datasets.prepare import config
from mgoe.errors import DataError, OutputError
from mgoe.pipeline.plan import Plan
from tests.datasets import layouts
from tests.effort import SOAK

EXAMPLES = Path(__file__).parents[2] / "examples"
CONFIGS = [(name, protocol) for name in layouts.LAYOUTS for protocol in DATA_SETS[name].protocols]


def read(found: PreparedLog, name: str) -> pd.DataFrame:
    return pd.read_parquet(Path(found.path, name))


def rows_of(folder: Path, name: str) -> int:
    path = next(folder.rglob(name))
    with path.open("rb") as file:
        return sum(1 for _ in file)


@pytest.mark.parametrize(("name", "protocol"), CONFIGS)
def test_every_configuration_makes_examples(
    prepared: dict[str, PreparedLog], tmp_path: Path, name: str, protocol: str
):
    settings = load_settings(Path(prepared[name].path, f"{protocol}.yaml"))
    assert settings.form == DATA_SETS[name].form
    for file in Path(prepared[name].path, "log").iterdir():
        assert {feature.name for feature in settings.data.context} <= {*pq.read_schema(file).names}
    if not SOAK and len(settings.data.context) > 20:  # the 79 of AliExpress take ten seconds
        fewer = settings.data.model_copy(update={"context": settings.data.context[::9]})
        settings = settings.model_copy(update={"data": fewer})
    found = prepare_examples(settings, tmp_path / "data")
    for split in ("train", "valid", "test"):
        assert len(found.examples(split).labels) > 0


@pytest.mark.parametrize("name", DATA_SETS)
def test_every_data_set_has_its_configurations(name: str, tmp_path: Path):
    data = DATA_SETS[name]
    for protocol in data.protocols:
        path = tmp_path / f"{protocol}.yaml"
        path.write_text(config(data, protocol, tmp_path))
        settings = load_settings(path)
        assert settings.form == data.form
        assert set(settings.task_names) <= set(data.tasks)
        assert list(settings.task_names) == [task for task in data.tasks if task in settings.task_names]
    assert set(load_settings(tmp_path / f"{data.protocols[0]}.yaml").task_names) == set(data.tasks)


@pytest.mark.parametrize(
    ("name", "logs"),
    {
        "taobao": {"log/events.parquet": ("UserBehavior.csv", 0)},
        "tmall": {"log/events.parquet": ("user_log_format1.csv", 1)},
        "kuairand-pure": {
            "log/standard_early.parquet": ("log_standard_4_08_to_4_21_pure.csv", 1),
            "log/standard_late.parquet": ("log_standard_4_22_to_5_08_pure.csv", 1),
            "random.parquet": ("log_random_4_22_to_5_08_pure.csv", 1),
        },
        "aliexpress-nl": {
            "log/train.parquet": ("nl_item_train.csv", 0),
            "log/test.parquet": ("nl_item_test.csv", 0),
        },
        "ali-ccp": {
            "log/train.parquet": ("sample_skeleton_train.csv", 0),
            "log/test.parquet": ("sample_skeleton_test.csv", 0),
        },
        "movielens-1m": {"log/exposures.parquet": ("ratings.dat", 0)},
        "movielens-10m": {"log/exposures.parquet": ("ratings.dat", 0)},
        "kuairec": {"log/big.parquet": ("big_matrix.csv", 1), "log/small.parquet": ("small_matrix.csv", 1)},
    }.items(),
)
def test_no_row_is_lost_unsaid(
    published: dict[str, Path], prepared: dict[str, PreparedLog], name: str, logs: dict[str, tuple[str, int]]
):
    found = prepared[name]
    there = sum(rows_of(published[name], file) - header for file, header in logs.values())
    assert sum(found.rows[log] for log in logs) + sum(found.left_out.values()) == there
    assert {log: len(read(found, log)) for log in logs} == {log: found.rows[log] for log in logs}
    assert found.left_out == {
        "taobao": {"outside the nine days": 3},
        "tmall": {"without a day of the year, or of another action": 2},
        "aliexpress-nl": {"of no page, or without a label": 4},
        "ali-ccp": {"bought without a click, or without user or item": 4},
        "kuairec": {"of the big matrix that repeat another or have no time": 5},
    }.get(name, {})


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_threads_and_memory_change_nothing(
    published: dict[str, Path],
    prepared: dict[str, PreparedLog],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
):
    monkeypatch.setattr(sys.modules[config.__module__], "open_duckdb", partial(open_duckdb, threads=1))
    again = prepare(find(name), published[name], tmp_path / "out", memory=0.3)
    for file in again.rows:
        before, after = (read(found, file) for found in (prepared[name], again))
        order = list(before.columns)
        pd.testing.assert_frame_equal(
            *(frame.sort_values(order, ignore_index=True) for frame in (before, after))
        )


def test_taobao_keeps_the_nine_days_and_leaves_the_last_out(prepared: dict[str, PreparedLog]):
    events = read(prepared["taobao"], "log/events.parquet")
    assert events.timestamp.between("2017-11-24 16:00", "2017-12-03 15:59:59").all()
    by_time = events.sort_values(["user_id", "part"])
    assert by_time.groupby("user_id").timestamp.is_monotonic_increasing.all()
    day = by_time.part.dt.day
    last, before = by_time.groupby("user_id").tail(1).index, by_time.groupby("user_id").nth(-2).index
    assert (day[last] == 11).all()
    assert (day[before] == 10).all()
    assert (day.drop(last).drop(before) < 10).all()
    items = read(prepared["taobao"], "items.parquet")
    assert (items.category == items.item_id % 7).all()


def test_tmall(published: dict[str, Path], prepared: dict[str, PreparedLog]):
    raw = pd.read_csv(next(published["tmall"].rglob("user_log_format1.csv"))).iloc[2:]
    raw["timestamp"] = pd.to_datetime("2014" + raw.time_stamp.astype(str).str.zfill(4)).dt.date
    raw["behavior"] = raw.action_type.map({0: "click", 1: "cart", 2: "buy", 3: "fav"})
    events = read(prepared["tmall"], "log/events.parquet")
    columns = ["user_id", "item_id", "timestamp", "behavior"]
    found, there = (frame[columns].sort_values(columns, ignore_index=True) for frame in (events, raw))
    pd.testing.assert_frame_equal(found, there)
    last = events.sort_values(["user_id", "part"]).groupby("user_id").tail(1)
    assert (last.part.dt.day == 11).all()
    assert (last.timestamp.to_numpy() == events.groupby("user_id").timestamp.max().to_numpy()).all()
    users, items = (
        read(prepared["tmall"], f"{node}s.parquet").set_index(f"{node}_id") for node in ("user", "item")
    )
    assert users.loc[[1, 6], "age_range"].tolist() == [1, 6]
    assert users.loc[[4, 9], "age_range"].isna().all()
    assert users.loc[[1, 3], "gender"].tolist() == [1, 0]
    assert users.loc[[2, 5], "gender"].isna().all()
    assert items.loc[8].tolist() == [1, 3, 2]
    assert pd.isna(items.brand[9])


def test_the_example_of_tmall_runs_on_it(prepared: dict[str, PreparedLog], tmp_path: Path):
    folder = Path(prepared["tmall"].path)
    settings = load_settings(EXAMPLES / "tmall.yaml", [f"data.log={folder / 'log'}"])
    found = prepare_examples(settings, tmp_path / "data")
    day = read(prepared["tmall"], "log/events.parquet").timestamp.astype("datetime64[s]")
    assert found.summary["rows"] == len(day)
    assert found.summary["dropped_rows"]["outside_time"] == (day >= "2014-11-10").sum()
    assert set(found.summary["ignored_behaviors"]) == {"cart"}
    assert all(len(found.examples(split)) > 0 for split in ("train", "valid", "test"))


def test_the_examples_of_kuairand_read_what_it_wrote(prepared: dict[str, PreparedLog], tmp_path: Path):
    """With `--out kuairand`, where they look for it. What was shown at random is not in their log."""
    folder = Path(prepared["kuairand-pure"].path)
    logs = ["log/standard_early.parquet", "log/standard_late.parquet"]
    assert sorted(file.relative_to(folder).as_posix() for file in (folder / "log").iterdir()) == logs
    arena = Plan(load_comparison(EXAMPLES / "arena-kuairand.yaml"), tmp_path).logs.values()
    for settings in [load_settings(EXAMPLES / "kuairand.yaml"), *(log.settings(0) for log in arena)]:
        data = settings.data
        assert data.log == ["kuairand/log"]
        labels = {task.label for task in settings.tasks}
        read_from_log = {data.user, data.item, data.time, *labels, *(one.name for one in data.context)}
        assert all(read_from_log <= {*pq.read_schema(folder / log).names} for log in logs)
        for name, side in (("users.parquet", data.users), ("items.parquet", data.items)):
            assert side is not None
            assert side.path == f"kuairand/{name}"
            columns = {side.id, *(feature.name for feature in side.features)}
            assert columns <= {*pq.read_schema(folder / name).names}


def test_kuairand(published: dict[str, Path], prepared: dict[str, PreparedLog]):
    raw = pd.read_csv(next(published["kuairand-pure"].rglob("log_random*.csv")))
    shown = read(prepared["kuairand-pure"], "random.parquet")
    in_beijing = pd.to_datetime(raw.time_ms, unit="ms") + pd.Timedelta(hours=8)
    assert (shown.timestamp == in_beijing).all()
    assert (shown.forward == raw.is_forward).all()
    assert (shown.profile_enter == raw.is_profile_enter).all()
    assert (shown.hour == raw.hourmin // 100).all()
    assert shown.play.to_numpy() == pytest.approx(raw.play_time_ms / 1000)
    users, items = (read(prepared["kuairand-pure"], f"{node}s.parquet") for node in ("user", "item"))
    assert users.loc[0, ["follow_user_num_range", "fans_user_num_range"]].tolist() == ["(0,10]", "[100,1k)"]
    assert pd.isna(users.onehot_feat17[0])
    assert items.loc[0, ["tag", "video_duration"]].tolist() == ["12,65", 17_200.0]


def test_kuairec_puts_the_small_matrix_last(prepared: dict[str, PreparedLog]):
    big, small = (read(prepared["kuairec"], f"log/{name}.parquet") for name in ("big", "small"))
    assert (small.part == pd.Timestamp("2000-01-11")).all()
    parts = big.groupby(big.part.dt.day).timestamp.agg(["min", "max", "size"])
    assert list(parts.index) == list(range(1, 11))
    assert (parts["max"].iloc[:-1].to_numpy() <= parts["min"].iloc[1:].to_numpy()).all()
    assert parts["size"].max() - parts["size"].min() <= 1
    assert (big.finish == (big.play >= 10)).all()
    assert (big.like == (big.play > 20)).all()
    assert read(prepared["kuairec"], "items.parquet").tags[0] == "27,1"


def test_movielens(published: dict[str, Path], prepared: dict[str, PreparedLog]):
    names = ["user", "item", "rating", "second"]
    raw = pd.read_csv(
        next(published["movielens-1m"].rglob("ratings.dat")), sep="::", engine="python", names=names
    )
    found = read(prepared["movielens-1m"], "log/exposures.parquet")
    assert (found.like == (raw.rating >= 4)).all()
    assert (found.love == (raw.rating == 5)).all()
    assert (found.timestamp == pd.to_datetime(raw.second, unit="s")).all()
    items = read(prepared["movielens-10m"], "items.parquet")
    assert items.loc[0].tolist() == [1, "Drama|Children's", 1951]
    assert items[items.genres.isna()].year.tolist() == [1999]  # the movie whose title is not in Latin-1
    assert read(prepared["movielens-1m"], "users.parquet").loc[0].tolist() == [1, "F", "25", "1"]
    assert not Path(prepared["movielens-10m"].path, "users.parquet").exists()


def test_aliexpress_is_the_same_from_both_layouts(
    published: dict[str, Path], prepared: dict[str, PreparedLog], tmp_path: Path
):
    source = shutil.copytree(published["aliexpress-nl"], tmp_path / "nl")
    layouts.aliexpress_tables(source)
    again = prepare(find("aliexpress-nl"), source / "tables", tmp_path / "out")
    for file in ("log/train.parquet", "log/test.parquet"):
        before, after = read(prepared["aliexpress-nl"], file), read(again, file)
        order = list(before.columns)
        pd.testing.assert_frame_equal(
            *(frame.sort_values(order, ignore_index=True) for frame in (before, after))
        )
    train, test = (read(again, f"log/{name}.parquet") for name in ("train", "test"))
    assert (test.part.dt.day == 11).all()
    assert set(train.part.dt.day) == set(range(1, 11))
    assert (train.click >= train.buy).all()
    assert train.user_id.str.fullmatch(r"\d+(-\d+){8}").all()
    assert train.item_id.str.fullmatch(r"\d+(-\d+){6}").all()


def test_a_missing_category_of_aliexpress_keeps_its_place(published: dict[str, Path], tmp_path: Path):
    source = shutil.copytree(published["aliexpress-nl"], tmp_path / "nl")
    path = source / "nl_item_train.csv"
    cells = [line.split(",") for line in path.read_text().splitlines()]
    for row, missing in zip(
        cells, (33, 34), strict=False
    ):  # the first two items differ in which of two categories is missing
        row[18:48] = ["1"] * 30
        row[missing] = ""
    path.write_text("".join(",".join(row) + "\n" for row in cells))
    found = prepare(find("aliexpress-nl"), source, tmp_path / "out")
    items = set(read(found, "log/train.parquet").item_id)
    assert {"1--1-1-1-1-1", "1-1--1-1-1-1"} <= items


def test_a_page_of_aliexpress_is_in_one_part(published: dict[str, Path], prepared: dict[str, PreparedLog]):
    """So that no row reads its own page."""
    train = read(prepared["aliexpress-nl"], "log/train.parquet")
    page = [f"numerical_{k}" for k in range(1, 24)]  # 23 numbers tell made-up pages apart
    assert (train.groupby(page).part.agg(lambda part: part.dt.day.nunique()) == 1).all()


def _value(features: str, field: str) -> str:
    found = {entry.split("\x02")[0]: entry.split("\x02")[1] for entry in features.split("\x01")}
    return found[field].split("\x03")[0]


def test_ali_ccp_joins_sessions_and_keeps_twins(published: dict[str, Path], prepared: dict[str, PreparedLog]):
    with next(published["ali-ccp"].rglob("sample_skeleton_train.csv")).open() as file:
        rows = list(csv.reader(file))
    with next(published["ali-ccp"].rglob("common_features_train.csv")).open() as file:
        user = {row[0]: _value(row[2], "101") for row in csv.reader(file)}
    expected = sorted(
        (user[common], _value(features, "205"), int(click), int(buy), _value(features, "301"))
        for _, click, buy, common, _, features in rows
        if click >= buy and "\x01205\x02" in features
    )
    train = read(prepared["ali-ccp"], "log/train.parquet")
    assert (
        sorted(train[["user_id", "item_id", "click", "buy", "position"]].itertuples(index=False, name=None))
        == expected
    )
    assert not train.duplicated().any()
    users, items = (read(prepared["ali-ccp"], f"{node}s.parquet") for node in ("user", "item"))
    assert (users.profile.astype(int) == users.user_id.astype(int) % 98).all()
    assert items.loc[0, ["category", "intentions", "brand"]].tolist() == ["4", "8,9", "1"]
    assert items.shop.isna().all()


OTHER_LAYOUTS = {
    "taobao": ("UserBehavior.csv", "1,2,pv,1511544070\n", "expected 5 columns (user_id, item_id"),
    "tmall": ("user_log_format1.csv", "user_id,item_id,cat_id,merchant_id,brand_id\n", "without 'seller_id'"),
    "kuairand-pure": ("log_random_4_22_to_5_08_pure.csv", "user_id,photo_id,hourmin\n", "without 'video_id'"),
    "aliexpress-nl": ("nl_user_test.csv", "1,2,3\n", "expected 33 columns"),
    "ali-ccp": (
        "common_features_test.csv",
        "a,b\n",
        "expected 3 columns (common, count, features), found 2 (a, b)",
    ),
    "movielens-1m": (
        "ratings.dat",
        "1,2,5,978300760\n",
        "expected 4 columns (user_id, item_id, rating, seconds), found 1",
    ),
    "kuairec": (
        "big_matrix.csv",
        "user_id,video_ids,play_duration,timestamp,watch_ratio\n",
        "without 'video_id'; did you mean 'video_ids'?",
    ),
}


@pytest.mark.parametrize("name", OTHER_LAYOUTS)
def test_another_layout_is_refused_by_name(published: dict[str, Path], tmp_path: Path, name: str):
    file, text, found = OTHER_LAYOUTS[name]
    source = shutil.copytree(published[name], tmp_path / "source")
    path = next(source.rglob(file))
    path.write_text(text)
    with pytest.raises(DataError) as error:
        prepare(find(name), source, tmp_path / "out")
    assert error.value.place == str(path)
    assert "another layout: expected" in error.value.message
    assert found in error.value.message
    assert f"mgoe data describe {name}" in error.value.message
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def _with_column(path: Path, name: str, first: bool) -> None:
    cells = [name, *(str(row) for row in range(1, 10_000))]
    rows = zip(cells, path.read_text().splitlines(), strict=False)
    path.write_text("".join((f"{cell},{row}" if first else f"{row},{cell}") + "\n" for cell, row in rows))


@pytest.mark.parametrize("names", [[""], ["", ""], ["User_ID"], ["Tab", "TAB"], ["other", "other"], ["it's"]])
@pytest.mark.parametrize("first", [True, False])
def test_columns_that_are_not_read_have_any_name(
    published: dict[str, Path],
    prepared: dict[str, PreparedLog],
    tmp_path: Path,
    names: list[str],
    first: bool,
):
    source = shutil.copytree(published["kuairand-pure"], tmp_path / "source")
    for name in names:
        _with_column(next(source.rglob("log_random_*.csv")), name, first)
    found = prepare(find("kuairand-pure"), source, tmp_path / "out")
    pd.testing.assert_frame_equal(
        read(found, "random.parquet"), read(prepared["kuairand-pure"], "random.parquet")
    )


def test_a_column_that_is_read_is_there_once(published: dict[str, Path], tmp_path: Path):
    source = shutil.copytree(published["kuairand-pure"], tmp_path / "source")
    path = next(source.rglob("log_random_*.csv"))
    _with_column(path, "user_id", first=False)
    with pytest.raises(
        DataError, match="another layout: expected one column 'user_id', found 2 of them in user_id, video_id"
    ) as error:
        prepare(find("kuairand-pure"), source, tmp_path / "out")
    assert error.value.place == str(path)


def test_a_header_that_is_no_line_of_names(published: dict[str, Path], tmp_path: Path):
    source = shutil.copytree(published["kuairec"], tmp_path / "source")
    next(source.rglob("big_matrix.csv")).write_text("x" * 200_000)
    with pytest.raises(
        DataError, match="another layout: expected a line of names, found a line that is none"
    ):
        prepare(find("kuairec"), source, tmp_path / "out")


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ("1,2,3,pv,yesterday", "yesterday"),
        ("1,2,3,pv", "line 2"),
        (
            "7,2,3,share,1511544071",
            "UserBehavior.csv, user 7 at 1511544071: a behavior must be pv, fav, cart or buy, found share",
        ),
    ],
)
def test_a_row_that_is_not_as_published(tmp_path: Path, row: str, found: str):
    (tmp_path / "UserBehavior.csv").write_text(f"1,2268318,2520377,pv,1511544070\n{row}\n")
    with pytest.raises(DataError, match="a row differs from the published layout") as error:
        prepare(find("taobao"), tmp_path, tmp_path / "out")
    assert found in str(error.value)


def test_missing_files(published: dict[str, Path], tmp_path: Path):
    taobao = find("taobao")
    with pytest.raises(DataError, match="found no folder"):
        prepare(taobao, tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(DataError, match="the folder is empty"):
        prepare(taobao, tmp_path, tmp_path / "out")
    (tmp_path / "UserBehaviour.csv").write_text("1")
    with pytest.raises(DataError, match=r"did you mean 'UserBehaviour\.csv'"):
        prepare(taobao, tmp_path, tmp_path / "out")
    (tmp_path / "UserBehavior.csv.zip").write_text("1")
    with pytest.raises(
        DataError, match=r"found UserBehavior.csv.zip; unpack it with `mgoe data fetch taobao --from"
    ):
        prepare(taobao, tmp_path, tmp_path / "out")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "UserBehavior.csv").write_text("1,2,3,pv,4\n")
    with pytest.raises(
        DataError, match=r"one file UserBehavior\.csv is required, found a/UserBehavior\.csv and b/"
    ):
        prepare(taobao, tmp_path, tmp_path / "out")


def test_an_empty_log_is_refused(tmp_path: Path):
    (tmp_path / "UserBehavior.csv").write_text("1,2,3,pv,4\n")
    with pytest.raises(DataError, match="must have rows, found none"):
        prepare(find("taobao"), tmp_path, tmp_path / "out")
    (tmp_path / "UserBehavior.csv").write_text("")
    with pytest.raises(DataError, match="is empty"):
        prepare(find("taobao"), tmp_path, tmp_path / "out")


def test_what_a_killed_process_left_goes_and_another_one_is_waited_for(
    published: dict[str, Path], tmp_path: Path
):
    taobao, source, out = find("taobao"), published["taobao"], tmp_path / "out[1]"
    left = tmp_path / ".out[1].12345.partial" / "log"
    left.mkdir(parents=True)
    with exclusive(out, "something"), pytest.raises(OutputError, match="another process"):
        prepare(taobao, source, out)
    assert left.exists()
    prepare(taobao, source, out)
    assert {path.name for path in tmp_path.iterdir()} == {"out[1]"}


def test_what_was_there_is_kept(published: dict[str, Path], tmp_path: Path):
    taobao, source, out = find("taobao"), published["taobao"], tmp_path / "it's"
    prepare(taobao, source, out)
    assert not [path for path in out.iterdir() if "work" in path.name]
    assert json.loads((out / "dataset.json").read_text())["rows"]["log/events.parquet"] == layouts.ROWS - 3
    assert load_settings(out / "time.yaml").data.log == [str(out / "log")]
    with pytest.raises(OutputError, match="holds a prepared data set already"):
        prepare(taobao, source, out)
    prepare(taobao, source, out, overwrite=True)
    (out / "dataset.json").unlink()
    with pytest.raises(OutputError, match="that `mgoe data prepare` did not write"):
        prepare(taobao, source, out, overwrite=True)
    assert (out / "log" / "events.parquet").exists()


@pytest.mark.parametrize("name", ["mine.yaml", "log/mine.parquet", "raw/UserBehavior.csv", "runs"])
def test_what_another_wrote_is_never_replaced(published: dict[str, Path], tmp_path: Path, name: str):
    taobao, source, out = find("taobao"), published["taobao"], tmp_path / "out"
    prepare(taobao, source, out)
    theirs = out / name
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text("precious")
    with pytest.raises(
        OutputError,
        match=r"that `mgoe data prepare` did not write: \S+; move it away or choose a new folder",
    ):
        prepare(taobao, source, out, overwrite=True)
    assert theirs.read_text() == "precious"


@pytest.mark.parametrize("below", [".", "raw"])
def test_a_source_is_never_replaced(published: dict[str, Path], tmp_path: Path, below: str):
    taobao, out = find("taobao"), tmp_path / "out"
    source = out / below
    shutil.copytree(published["taobao"], source)
    for overwrite in (False, True):
        with pytest.raises(
            OutputError, match=r"must not hold the source, found .*; choose a folder elsewhere"
        ):
            prepare(taobao, source, out, overwrite=overwrite)
    assert (source / "UserBehavior.csv").exists()


def test_another_set_takes_the_place_of_a_prepared_one(published: dict[str, Path], tmp_path: Path):
    prepare(find("ali-ccp"), published["ali-ccp"], tmp_path / "out")
    prepare(find("taobao"), published["taobao"], tmp_path / "out", overwrite=True)
    assert sorted(path.name for path in (tmp_path / "out" / "log").iterdir()) == ["events.parquet"]
