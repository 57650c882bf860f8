"""A log of exposures without users: prepared, trained on, measured, updated and served."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mgoe import experiments
from mgoe.batch import measure_pairs, score_pairs
from mgoe.bundle import Bundle
from mgoe.config import RunSettings, load_settings, make_settings
from mgoe.data import Prepared, prepare
from mgoe.errors import ConfigError, DataError
from mgoe.evaluation import read_rows
from mgoe.experiments.incumbent import read_incumbent, rows, write_incumbent
from mgoe.lifecycle import Sources, update
from mgoe.lifecycle.bundle_update import Weights
from tests.serving.served import served
from tests.sharing import Shared


def log_of(world: Path) -> pd.DataFrame:
    """Return the simulated exposures without their users."""
    log = pd.read_parquet(world / "exposures").head(6000)
    return log.drop(columns="user_id").sort_values("timestamp", ignore_index=True)


def settings_of(exposures: RunSettings, log: Path, **data: object) -> RunSettings:
    raw = exposures.model_dump(mode="json", exclude_unset=True)
    about = {"log": str(log), "user": None, "users": None, "history": "moment"} | data
    return make_settings(raw | {"data": raw["data"] | about, "tasks": raw["tasks"][:1]})


@pytest.fixture(scope="module")
def nobody(exposures: RunSettings, world: Path, shared: Shared) -> Path:
    """The folder of a finished run on the first nine tenths of the log."""

    def make(path: Path) -> None:
        log, rows = path.with_suffix(".parquet"), log_of(world)
        rows[: len(rows) * 9 // 10].to_parquet(log)
        experiments.run(settings_of(exposures, log), path, reuse=True)

    return shared("nobody", make)


@pytest.mark.parametrize("request_column", [None, "request"])
def test_every_request_or_row_has_an_unknown_user(
    exposures: RunSettings, world: Path, request_column: str | None, tmp_path: Path
):
    log = log_of(world).head(3000)
    log["request"] = np.random.default_rng(0).permutation(np.arange(len(log)) // 3)
    settings = settings_of(exposures, tmp_path / "unused", request=request_column)
    found, again = (
        prepare(settings, tmp_path / name, rows) for name, rows in (("one", log), ("other", log[::-1]))
    )
    rows = found.examples("train")
    assert found.users.size == 1
    assert (rows.user < 0).all()
    most = np.unique(rows.user, return_counts=True)[1].max()
    assert most == 1 if request_column is None else 1 < most <= 3
    assert np.array_equal(again.examples("train").user, rows.user)


def test_nothing_is_measured_of_users(nobody: Path):
    rows = read_rows(nobody / "metrics.json")
    of_test = [row for row in rows if row["split"] == "test"]
    values = {
        row["metric"]: row["value"] for row in of_test if (row["slice"], row["task"]) == ("all", "click")
    }
    assert 0.4 < values["auc"] < 1
    assert [row for row in rows if row["metric"] == "gauc" and np.isfinite(row["value"])] == []
    assert not {"new-pairs", "unseen-users", "activity-none"} & {row["slice"] for row in of_test}


def test_a_service_ranks_for_nobody_and_takes_exposures_of_nobody(nobody: Path, tmp_path: Path):
    bundle, items, context = Bundle.open(nobody / "bundle"), [3, 4, 5, 6], {"device": "phone"}
    with served(nobody / "bundle", tmp_path / "state") as service:
        found = service.rank(candidates=items, context=context)
        assert (found["user"], found["unseen_user"]) == (None, True)
        wanted = bundle.predict(["anybody"] * 4, items, {"device": ["phone"] * 4}).set_index("item")["click"]
        assert dict(zip(found["items"], found["tasks"]["click"], strict=True)) == pytest.approx(
            wanted.to_dict(), rel=1e-5
        )
        refused = service.client.post("/v1/rank", json={"events": [{"item": 3, "behavior": "click"}]})
        assert refused.status_code == 422
        assert "are not read, as the bundle's log has no users; leave them out" in refused.text
        shown = [{"item": 3, "request": f"r{n}", "user": n} for n in range(40)]
        labels = [{"item": 3, "request": f"r{n}", "labels": {"click": 1}} for n in range(40)]
        assert service.take(exposures=shown, labels=labels)["refused"] == 0
        [unclear] = service.take(labels=[{"item": 3, "user": 1, "labels": {"click": 1}}])["outcomes"]
        assert unclear["error"].startswith("request: must be given, as the log has no users")
        assert service.rank(user=7, candidates=items, context=context)["unseen_user"]
        assert service.reloader.engine.live.size("user") == 1


def test_pairs_of_a_file_are_items(nobody: Path, world: Path, tmp_path: Path):
    log = log_of(world)
    log[len(log) * 9 // 10 :].to_parquet(tmp_path / "pairs.parquet")
    bundle = Bundle.open(nobody / "bundle")
    scored = pa.concat_tables(score_pairs(bundle, tmp_path / "pairs.parquet"))
    assert scored.column_names == ["item_id", "click"]
    assert len(scored) == len(log) - len(log) * 9 // 10
    rows = measure_pairs(bundle, tmp_path / "pairs.parquet")
    values = {row["metric"]: row["value"] for row in rows if row["task"] == "click"}
    assert 0 < values["auc"] < 1
    assert np.isnan(values["gauc"])


@pytest.mark.parametrize("numbered", [True, False])
def test_scores_of_another_ranker_name_no_user(numbered: bool, nobody: Path, tmp_path: Path):
    run = Path(shutil.copytree(nobody, tmp_path / "run"))
    found = rows(run)
    assert [*found][:4] == ["row", "item_id", "timestamp", "window"]
    scores = found[["row", "item_id", "timestamp"]].assign(score=found["mgoe.click"])
    if not numbered:
        scores = scores.drop(columns="row").assign(score=scores.item_id / 1000)
    scores.to_parquet(tmp_path / "scores.parquet")
    settings = load_settings(run / "settings.yaml")
    write_incumbent(run, settings, Prepared.open(run / "data"), tmp_path / "scores.parquet")
    (_, measured, _), *_ = read_incumbent(run, [0])
    values = {row["metric"]: row["value"] for row in measured if row["slice"] == "all"}
    assert 0 < values["auc"] < 1
    scores.head(3).to_parquet(tmp_path / "few.parquet")
    with pytest.raises(DataError, match=r"found none for item \d+, 20"):
        write_incumbent(tmp_path, settings, Prepared.open(run / "data"), tmp_path / "few.parquet")


@pytest.mark.parametrize("weights", ["keep", "continue"])
def test_a_bundle_takes_new_rows_of_nobody(weights: Weights, nobody: Path, world: Path, tmp_path: Path):
    log = log_of(world)
    log[len(log) * 9 // 10 :].to_parquet(tmp_path / "new.parquet")
    new = Sources(str(tmp_path / "new.parquet"))
    after = update(nobody / "bundle", new, tmp_path / "next", weights=weights)
    assert after.size("user") == 1
    assert np.isfinite(after.predict(["anybody"], [3])["click"]).all()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"users": {"path": "u", "id": "u", "name": "n"}}, "`users` is for a log with users"),
        ({"form": "events"}, "data.user: an event log says who did what, found null"),
    ],
)
def test_what_needs_users_is_refused(data: dict[str, object], message: str, exposures: RunSettings):
    with pytest.raises(ConfigError, match=message):
        settings_of(exposures, Path("unused"), **data)
