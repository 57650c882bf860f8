"""Real exposures of KuaiRand, in the published layout and as an example makes a log of them."""

import os
import runpy
import sys
from pathlib import Path

import duckdb
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from mgoe.config import make_settings
from mgoe.data import prepare as prepare_examples
from mgoe.datasets import find, prepare

REAL = Path(os.environ.get("MGOE_TEST_DATA", "no folder")) / "kuairand"
SCRIPT = Path(__file__).parents[2] / "examples" / "kuairand.py"
COLUMNS = {
    "click": "is_click",
    "long_view": "long_view",
    "like": "is_like",
    "profile_enter": "is_profile_enter",
    "comment": "is_comment",
    "follow": "is_follow",
    "forward": "is_forward",
    "tab": "tab",
    "hour": "hourmin // 100",
}
IN_BEIJING = "epoch_ms(timestamp) - 8 * 3600000 AS ms"
pytestmark = pytest.mark.skipif(
    not REAL.is_dir(), reason="needs kuairand in the folder that MGOE_TEST_DATA names"
)


def rows(query: str) -> pd.DataFrame:
    """Return what is known of each exposure, in an order that does not depend on the file's."""
    found = duckdb.sql(query).df()
    keys = ["user_id", "item_id", "ms", *COLUMNS]
    return found[keys].astype("int64").sort_values(keys, ignore_index=True)


def real_rows() -> pd.DataFrame:
    columns = ", ".join(f"{column} AS {name}" for name, column in COLUMNS.items())
    return rows(
        f"SELECT user_id, video_id AS item_id, time_ms AS ms, {columns} FROM '{REAL}/exposures.parquet'"
    )


def test_the_published_layout_is_read_row_by_row(tmp_path: Path):
    """The published files are in CSV; the early and the random log have a few of the rows here."""
    files = {
        "standard_4_22_to_5_08": "",
        "standard_4_08_to_4_21": "LIMIT 9",
        "random_4_22_to_5_08": "LIMIT 9",
    }
    for name, limit in files.items():
        found = duckdb.sql(f"FROM '{REAL}/exposures.parquet' {limit}")
        found.write_csv(str(tmp_path / f"log_{name}_pure.csv"))
    for name in ("user_features_pure.csv", "video_features_basic_pure.csv"):
        (tmp_path / name).symlink_to(REAL / name)
    log = prepare(find("kuairand-pure"), tmp_path, tmp_path / "out")
    late = Path(log.path) / "log" / "standard_late.parquet"
    assert_frame_equal(rows(f"SELECT *, {IN_BEIJING} FROM '{late}'"), real_rows())


def test_the_example_makes_a_log_of_exposures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(REAL), str(out)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert_frame_equal(rows(f"SELECT *, {IN_BEIJING} FROM '{out}/log/exposures.parquet'"), real_rows())
    tasks = [{"name": name, "label": name} for name in ("click", "long_view", "like")]
    days = [f"2022-05-0{day}" for day in (1, 2, 3, 4, 5)]
    context = [{"name": "tab"}, {"name": "hour", "kind": "numeric"}]
    data = {"log": f"{out}/log", "context": context}
    data["items"] = {"path": f"{out}/items.parquet", "id": "item_id", "features": [{"name": "author_id"}]}
    settings = make_settings({"data": data, "tasks": tasks, "split": {"cuts": days}}, "settings")
    found = prepare_examples(settings, tmp_path / "data")
    distinct = 'SELECT DISTINCT user_id, item_id, timestamp, click, long_view, "like", tab, hour'
    shown = duckdb.sql(f"{distinct} FROM '{out}/log/exposures.parquet' WHERE timestamp >= '2022-05-01'")
    assert sum(len(found.examples(split)) for split in ("train", "valid", "test")) == len(shown)
