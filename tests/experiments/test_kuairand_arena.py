"""The arena of KuaiRand, on made-up rows in the published columns, and on other days."""

import runpy
import shutil
import sys
from pathlib import Path

import duckdb
import pytest

from mgoe import experiments
from mgoe.config import ComparisonSettings, load_comparison
from mgoe.data import prepare
from mgoe.pipeline.plan import Plan
from tests.datasets import layouts
from tests.effort import SOAK
from tests.sharing import Shared

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def log(shared: Shared) -> Path:
    """What the example makes of a folder with all that it may hold."""
    return shared("experiments-kuairand", write_log) / "out"


def write_log(folder: Path) -> None:
    folder.mkdir()
    layouts.kuairand(folder)
    published = duckdb.read_csv(str(folder / "data" / "log_standard_4_22_to_5_08_pure.csv"))
    day = "epoch_ms(time_ms + 8 * 3600000)"
    published.filter(f"{day} < '2022-05-07'").write_parquet(str(folder / "exposures.parquet"))
    published.filter(f"{day} >= '2022-05-07'").write_parquet(str(folder / "later.parquet"))
    early = duckdb.read_csv(str(folder / "data" / "log_standard_4_08_to_4_21_pure.csv"))
    early.project("user_id, video_id, time_ms, long_view, is_like").write_parquet(
        str(folder / "earlier.parquet")
    )
    for name in ("user_features_pure.csv", "video_features_basic_pure.csv"):
        shutil.copy(folder / "data" / name, folder / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["kuairand.py", str(folder), str(folder / "out")])
        runpy.run_path(str(EXAMPLES / "kuairand.py"), run_name="__main__")


def arena(log: Path, first_test_day: str) -> ComparisonSettings:
    """Return the settings of the arena, with less to train."""
    places = {"log": "log", "users.path": "users.parquet", "items.path": "items.parquet"}
    return load_comparison(
        EXAMPLES / "arena-kuairand.yaml",
        [
            *(f"data.{key}={log / name}" for key, name in places.items()),
            f"split.cuts=[2022-04-28, 2022-05-02, {first_test_day}]",
            "tune=null",
            "serving_requests=0",
            "training={epochs: 1}",
            "graph={rank: 4, recents: 2}",
        ],
    )


@pytest.mark.parametrize("first", ["2022-05-05", *["2022-05-07"] * SOAK])
def test_both_tables_are_of_all_exposures_of_the_days_that_are_asked_for(
    log: Path, tmp_path: Path, first: str
):
    plan = Plan(arena(log, first), tmp_path)
    exposures = duckdb.read_parquet(f"{log}/log/*.parquet").filter(f"timestamp >= '{first}'").df()
    for name, tasks in (
        ("kuairand", ["click", "long_view", "like", "profile_enter"]),
        ("rare", ["comment", "follow", "forward"]),
    ):
        prepared = prepare(plan.logs[name].settings(0), tmp_path / name)
        test = prepared.examples("test")
        assert len(test) == len(exposures)
        assert test.labels.sum(0).tolist() == exposures[tasks].sum().tolist()
        assert prepared.item_side.arrays["tag"].shape == (layouts.ITEMS, 2)


def test_the_arena_runs(log: Path, tmp_path: Path, in_this_process: None):
    settings = arena(log, "2022-05-05")
    result = experiments.compare(settings, tmp_path / "out", models=["mgoe"], seeds=[0], logs=["rare"])
    assert result.failed == {}
    assert "comment AUC" in (tmp_path / "out" / "tables.md").read_text()
