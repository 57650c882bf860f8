"""Next items as part of a comparison: which events are asked for, what stands in tables, what is refused."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from mgoe import experiments
from mgoe._util.files import read_json
from mgoe.data import Prepared
from mgoe.errors import ConfigError
from mgoe.pipeline.folder import FIT
from mgoe.pipeline.topn_cell import TRIALS
from mgoe.topn import NextItems
from tests.experiments.tiny import here, settings
from tests.sharing import Shared

ASKED = {"next_item": True, "k": [5, 20], "trials": 2, "tuning_users": 30}


@pytest.fixture(scope="module")
def asked(raw: dict[str, Any]) -> dict[str, Any]:
    pytest.importorskip("optuna")
    topn = ASKED | {"baselines": ["frequent", "sknn"]}
    return raw | {"models": ["constant"], "variants": {}, "seeds": [0], "topn": topn}


@pytest.fixture(scope="module")
def listed(asked: dict[str, Any], shared: Shared) -> Path:
    def make(out: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mgoe._util.processes.run_jobs", here)
            experiments.compare(settings(asked), out)

    return shared("experiments-next-item", make)


def test_baselines_and_no_models_have_lists_of_next_items(listed: Path):
    rows = pd.read_parquet(listed / "results.parquet").query("slice == 'topn'")
    assert set(rows["model"]) == {"frequent", "sknn"}  # nor is there a bound, though the truth is known
    assert rows.query("metric == 'hr@20'")["value"].between(0.05, 1).all()
    text = (listed / "tables.md").read_text()
    assert "## Top-N lists, next items, known items included: tiny" in text
    assert "constant: lists are not measured" not in text
    folder = listed / "logs" / "tiny" / "topn" / "sknn" / "0"
    about = read_json(folder / FIT)
    assert (
        f"Of {about['queries']:,} events, {about['unseen']:.1%} are on items that nobody did before" in text
    )
    assert [trial["failed"] for trial in read_json(folder / TRIALS)["trials"]] == ["", ""]


@pytest.mark.parametrize(("split", "tasks"), [("valid", [0, 1]), ("test", [0, 1]), ("test", [1])])
def test_every_event_of_the_window_is_asked_for_once(listed: Path, split: Any, tasks: list[int]):
    prepared = Prepared.open(listed / "logs" / "tiny" / "seeds" / "0" / "data")
    history: Any = prepared.history.to_pandas()
    first = prepared.valid_window + (split == "test")
    window = history[history["snapshot"] == first + 1]
    wanted = window[window["task"].isin(tasks)][["user", "time", "item"]].drop_duplicates()
    asked = NextItems.by_time(prepared, split, tasks, hide=False)
    assert_array_equal(asked.log[[0, 3, 1]][:, asked.row].T, wanted.sort_values(["user", "time", "item"]))
    assert asked.log.shape[1] == (history["snapshot"] <= first + 1).sum()
    assert asked.fits[0] == wanted["time"].min()
    assert (asked.fits < wanted["time"].max()).all()
    assert len(asked.events.user) == (history["time"] < asked.fits[0]).sum() > 0


def test_what_has_no_next_items_is_refused(asked: dict[str, Any], tmp_path: Path):
    log = asked["logs"]["tiny"]
    last = {"data": {"log": log["data"]["log"]}, "tasks": log["tasks"], "hold_out": "last"}
    with pytest.raises(ConfigError, match=r"logs\.last\.hold_out: next items are those of a test window"):
        experiments.compare(settings(asked | {"logs": {"last": last}}), tmp_path / "last")
    others = {"topn": ASKED | {"baselines": ["frequent", "cascading-rank", "lightgcn"]}}
    with pytest.raises(ConfigError, match=r"`by_profile`\), found cascading-rank, lightgcn; leave them out"):
        experiments.compare(settings(asked | others), tmp_path / "others")
