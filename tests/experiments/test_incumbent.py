"""The rows that a run was measured on, and another ranker's scores of them."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit

from mgoe import metrics
from mgoe.config import RunSettings
from mgoe.data import Prepared
from mgoe.errors import ConfigError, DataError, OutputError
from mgoe.evaluation import read_rows
from mgoe.experiments.incumbent import placed, rows, write_incumbent
from mgoe.experiments.runs import run

KEYS = ["row", "user_id", "item_id", "timestamp"]


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A finished run that a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture(scope="module")
def on_test(finished: Path) -> pd.DataFrame:
    return rows(finished)


def values(run_of: Path, split: str = "test") -> dict[tuple[str, str, str], float]:
    """Return what was measured of a run on all rows of a split, by model, task and metric."""
    found = read_rows(run_of / "metrics.json")
    return {
        (row["model"], row["task"], row["metric"]): row["value"]
        for row in found
        if (row["split"], row["slice"]) == (split, "all")
    }


def scores_of(found: pd.DataFrame, model: str) -> pd.DataFrame:
    return found[KEYS].assign(**{task: found[f"{model}.{task}"] for task in ("click", "buy")})


def compared(small: RunSettings, run_of: Path, scores: pd.DataFrame, folder: Path) -> pd.DataFrame:
    scores.to_parquet(folder / "scores.parquet")
    result = run(small, run_of, incumbent=folder / "scores.parquet")
    return result.leads[result.leads["baseline"] == "incumbent"].set_index(["task", "metric"])


@pytest.mark.parametrize("split", ["valid", "test"])
def test_the_rows_give_the_metrics_of_the_run(finished: Path, split):
    found, measured = rows(finished, split), values(finished, split)
    for model in ("mgoe", "shared-bottom"):
        for task in ("click", "buy"):
            area = metrics.auc(found[task].to_numpy(), found[f"{model}.{task}"].to_numpy())
            assert area == pytest.approx(measured[model, task, "auc"], abs=1e-9)
            assert found[task].notna().sum() == measured[model, task, "examples"]


def test_the_rows_are_those_of_the_log(finished: Path, world: Path, on_test: pd.DataFrame):
    log = pd.read_parquet(world / "events")
    log = log[log["behavior"] == "buy"].assign(timestamp=log["timestamp"].dt.floor("D"))
    done = on_test[on_test["buy"] == 1]
    assert len(done.merge(log[KEYS[1:]].drop_duplicates(), on=KEYS[1:])) == len(done) > 0


@pytest.mark.parametrize("without", [False, True])
def test_a_ranker_with_the_scores_of_the_model_is_level_with_it(
    without: bool, small: RunSettings, copied: Path, on_test: pd.DataFrame, tmp_path: Path
):
    scores = scores_of(on_test, "mgoe").sample(frac=1, random_state=0).drop(columns=["row"] * without)
    leads = compared(small, copied, scores, tmp_path)
    for metric in ("auc", "gauc", "ranking"):
        assert leads["value"].get(("all", metric)) == 0
    measured = values(copied)
    theirs = {
        (task, metric): value for (model, task, metric), value in measured.items() if model == "incumbent"
    }
    assert len(theirs) > 20
    for (task, metric), value in theirs.items():
        assert value == pytest.approx(measured["mgoe", task, metric], abs=1e-7, nan_ok=True)
    assert "incumbent" in (copied / "table.md").read_text()
    assert "incumbent" in (copied / "report.html").read_text()


def test_a_finished_run_stays_when_scores_are_compared(
    small: RunSettings, copied: Path, on_test: pd.DataFrame, tmp_path: Path
):
    def contents() -> dict[Path, bytes]:
        files = [file for part in ("cells", "bundle") for file in (copied / part).rglob("*.*")]
        return {file: file.read_bytes() for file in files if file.is_file()}

    before = contents()
    compared(small, copied, scores_of(on_test, "shared-bottom"), tmp_path)
    assert contents() == before


def test_scores_of_any_range_are_compared_by_their_order(
    small: RunSettings, copied: Path, on_test: pd.DataFrame, tmp_path: Path
):
    """Margins have no log loss; one column stands for all tasks."""
    margins = on_test[KEYS].assign(score=100 * logit(on_test["shared-bottom.click"].astype(float)))
    leads = compared(small, copied, margins, tmp_path)
    for task in ("click", "buy"):
        own, other = (
            metrics.auc(on_test[task].to_numpy(), on_test[column].to_numpy())
            for column in (f"mgoe.{task}", "shared-bottom.click")
        )
        assert leads["value"][task, "auc"] == pytest.approx(own - other, abs=1e-9)
    assert np.isnan(leads["value"]["click", "logloss"])
    assert ("incumbent", "click", "logloss") not in values(copied)


BAD = {
    "other rows": (lambda rows: rows.assign(item_id=rows["item_id"] + 10_000), "found none for user"),
    "missing rows": (lambda rows: rows.iloc[3:], r"found none for user .* and 2 of [\d,]+ rows"),
    "a missing score": (lambda rows: rows.assign(buy=rows["buy"].where(rows.index > 0)), "a missing one for"),
    "an infinite score": (lambda rows: rows.assign(buy=rows["buy"].where(rows.index > 0, np.inf)), "missing"),
    "ties throughout": (lambda rows: rows.assign(buy=0.5), "must order the test rows, found 0.5 throughout"),
    "ids of another type": (lambda rows: rows.assign(user_id="u" + rows["user_id"].astype(str)), "must"),
    "two rows": (
        lambda rows: pd.concat([rows, rows.iloc[:1].assign(buy=0.1)]),
        "must hold one score for each test row, found two scores for user",
    ),
    "no column": (
        lambda rows: rows.drop(columns="buy"),
        "needs a column 'buy' .*or 'score' for all",
    ),
    "no time": (lambda rows: rows.drop(columns="timestamp"), "'timestamp'"),
}


@pytest.mark.parametrize("mistake", BAD)
def test_scores_that_break_a_rule_are_refused(
    mistake, small: RunSettings, finished: Path, on_test: pd.DataFrame, tmp_path: Path
):
    change, message = BAD[mistake]
    change(scores_of(on_test, "mgoe")).to_parquet(tmp_path / "scores.parquet")
    with pytest.raises(DataError, match=message):
        write_incumbent(tmp_path, small, Prepared.open(finished / "data"), tmp_path / "scores.parquet")


def test_the_code_of_the_page_writes_scores_that_are_taken(
    small: RunSettings, finished: Path, copied: Path, on_test: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
):
    page = (Path(__file__).parents[2] / "docs" / "incumbent.md").read_text(encoding="utf-8")
    [code] = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(copied)
    on_test.to_parquet("test.parquet")
    exec(code, {})
    write_incumbent(copied, small, Prepared.open(finished / "data"), "scores.parquet")
    assert (copied / "incumbent").exists()


def test_times_of_scores_are_on_the_clocks_of_the_zone(
    small: RunSettings, finished: Path, copied: Path, on_test: pd.DataFrame, tmp_path: Path
):
    """As `mgoe rows` writes them, or as the log has them."""
    zone, prepared, file = "Asia/Shanghai", Prepared.open(finished / "data"), tmp_path / "scores.csv"
    settings = small.model_copy(update={"data": small.data.model_copy(update={"timezone": zone})})
    written = placed(prepared.examples("test"), prepared, settings)["timestamp"]
    assert (written == on_test["timestamp"].dt.tz_localize("UTC")).all()
    scores = scores_of(on_test, "shared-bottom")
    for times in (written, written.dt.tz_convert(zone).dt.tz_localize(None)):
        scores.assign(timestamp=times).to_csv(file, index=False)
        write_incumbent(copied, settings, prepared, file)
        shutil.rmtree(copied / "incumbent")
    scores.to_csv(file, index=False)
    with pytest.raises(DataError, match="must hold one score for each test row, found none for user"):
        write_incumbent(copied, settings, prepared, file)


def test_only_a_finished_run_has_rows(finished: Path, tmp_path: Path):
    with pytest.raises(OutputError, match="holds no finished run"):
        rows(tmp_path)
    with pytest.raises(ConfigError, match="must be a seed of the run"):
        rows(finished, seed=7)
