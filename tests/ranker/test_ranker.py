"""A ranker is what `mgoe run` trains on the same rows, and behaves as scikit-learn's estimators do."""

import gc
import hashlib
import json
import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit
from sklearn.utils.validation import check_is_fitted

import mgoe
from mgoe import batch, experiments
from mgoe.bundle import Bundle, KnownOutcomes
from mgoe.config import RunSettings
from mgoe.data import Prepared
from mgoe.errors import BundleError, ConfigError, DataError, MgoeError, OutputError
from mgoe.lifecycle import Sources, update
from tests.ranker.conftest import after, like


def contents(bundle: Bundle) -> dict[str, str]:
    """Checksums of all files but those that name the log's path or the time that something took.

    Of weights that of the tensors: the order of names in the header of the file is random.
    """
    named = {"settings.yaml", "graph/graph.json", "model.safetensors", "MODEL_CARD.md"}
    weights = load_file(bundle.path / "model.safetensors")
    tensors = hashlib.sha256(b"".join(weights[name].tobytes() for name in sorted(weights))).hexdigest()
    sums = {name: sum for name, sum in bundle.manifest.checksums.items() if name not in named}
    return sums | {"tensors": tensors}


def test_a_fit_on_a_frame_is_a_run_on_the_same_rows_bit_for_bit(ranker: mgoe.Ranker, finished: Path):
    run = mgoe.load(finished / "bundle")
    assert contents(ranker.bundle_) == contents(run)
    assert ranker.bundle_.graph.checksum == run.graph.checksum
    assert ranker.bundle_.calibration == run.calibration


def test_a_fit_on_a_frame_of_exposures_is_a_run_too(shown_ranker: mgoe.Ranker, shown: Path):
    run = mgoe.load(shown / "bundle")
    assert contents(shown_ranker.bundle_) == contents(run)
    assert shown_ranker.bundle_.graph.checksum == run.graph.checksum
    assert shown_ranker.bundle_.calibration == run.calibration


def test_an_update_is_that_of_the_bundle_and_leaves_the_saved_one(
    ranker: mgoe.Ranker, events: pd.DataFrame, tmp_path: Path
):
    new = after(events)
    new.to_parquet(tmp_path / "new.parquet")
    before, given = contents(ranker.bundle_), new.copy()
    own = mgoe.Ranker.load(ranker.save(tmp_path / "saved")).update(new)
    refreshed = update(ranker.bundle_.path, Sources(str(tmp_path / "new.parquet")), tmp_path / "bundle")
    assert own.bundle_.graph.checksum == refreshed.graph.checksum
    assert own.bundle_.calibration == refreshed.calibration
    assert contents(mgoe.load(tmp_path / "saved")) == before != contents(own.bundle_)
    pd.testing.assert_frame_equal(new, given)


def test_a_loaded_ranker_continues_as_the_saved_one(
    ranker: mgoe.Ranker, events: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """From the state of the optimisers, and with the rows to replay, which are saved beside the bundle."""
    after(events).to_parquet(tmp_path / "new.parquet")
    expected = update(
        ranker.bundle_.path, Sources(str(tmp_path / "new.parquet")), tmp_path / "bundle", weights="continue"
    )
    own = mgoe.Ranker.load(ranker.save(tmp_path / "saved")).set_params(verbose=True)
    own.update(after(events), weights="continue")
    assert "replayed ones" in capsys.readouterr().out
    assert contents(own.bundle_) == contents(expected)
    newest = after(events).assign(timestamp=lambda rows: rows["timestamp"] + pd.Timedelta(days=30))
    own.update(after(newest), weights="continue")
    assert "replayed ones" in capsys.readouterr().out


def test_what_is_saved_is_loaded_with_its_parameters(ranker: mgoe.Ranker, tmp_path: Path):
    loaded = mgoe.Ranker.load(ranker.save(tmp_path / "saved"))
    users, items = (ranker.graph.ids(side)[:9] for side in ("user", "item"))
    pd.testing.assert_frame_equal(loaded.predict(users, items), ranker.predict(users, items))
    assert [task["name"] for task in loaded.tasks] == ["click", "buy"]
    assert loaded.settings_ == ranker.settings_
    assert loaded.settings["training"]["epochs"] == 1
    with pytest.raises(OutputError, match="is there already"):
        ranker.save(tmp_path / "saved")


@pytest.mark.parametrize(("fitted", "log"), [("ranker", "events"), ("shown_ranker", "impressions")])
def test_a_loaded_ranker_would_be_fitted_with_the_same_settings(
    fitted: str, log: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
):
    class Asked(Exception):
        pass

    def run(settings: RunSettings, *_: Any, **__: Any) -> None:
        raise Asked(settings)

    before, rows = (request.getfixturevalue(name) for name in (fitted, log))
    monkeypatch.setattr(experiments, "run", run)
    with pytest.raises(Asked) as asked:
        mgoe.Ranker.load(before.bundle_.path).fit(rows)
    [found], free = asked.value.args, {"data": {"log"}, "models": True}
    assert found.model_dump(exclude=free) == before.settings_.model_dump(exclude=free)
    assert [model.base for model in found.models] == ["mgoe"]


def test_lists_of_several_users_are_those_of_each(ranker: mgoe.Ranker):
    users = ranker.graph.ids("user")[:3]
    how: dict[str, Any] = {"objective": "click * buy^2", "exclude_known": True}
    found = ranker.recommend(users, 4, **how)
    assert found["user"].tolist() == [user for user in users for _ in range(4)]
    for user, own in found.groupby("user"):
        assert own["rank"].tolist() == [1, 2, 3, 4]
        expected = ranker.bundle_.recommend(user, 4, **how)
        pd.testing.assert_frame_equal(own.reset_index(drop=True), expected)


def test_later_events_are_measured_with_negatives(ranker: mgoe.Ranker, events: pd.DataFrame):
    later = after(events)
    rows = ranker.evaluate(later).set_index(["task", "metric"])["value"]
    clicks = later[later["behavior"] == "click"]
    distinct = clicks.assign(day=clicks["timestamp"].dt.floor("D"))[["user_id", "item_id", "day"]]
    assert rows["click", "positives"] == len(distinct.drop_duplicates())
    assert rows["click", "examples"] > 2 * rows["click", "positives"]
    pd.testing.assert_frame_equal(ranker.evaluate(), ranker.bundle_.metrics)


def test_later_exposures_are_measured_as_labelled_pairs(
    shown_ranker: mgoe.Ranker, impressions: pd.DataFrame, tmp_path: Path
):
    later = after(impressions)
    later.to_parquet(tmp_path / "pairs.parquet")
    keys = ["slice", "task", "metric"]
    pairs = pd.DataFrame(batch.measure_pairs(shown_ranker.bundle_, tmp_path / "pairs.parquet"))
    found = shown_ranker.evaluate(later).set_index(keys)["value"]
    expected = pairs.set_index(keys)["value"][found.index]
    # Batches of another size round predictions differently in the last bit, so pairs with equal predictions
    # may swap. This shows most in the metrics within users, since some users have few rows.
    for (_, task, metric), value in found.items():
        if metric in ("users", "examples", "positives", "gauc_users", "gauc_users_skipped"):
            tolerance = 0
        else:
            tolerance = {
                "auc": 1e-4,
                "gauc": 2e-3,
                "ranking": 1e-3,
                "spearman": 1e-4,
                "user_spearman": 5e-3,
            }.get(metric, 1e-6 * value)
        assert value == pytest.approx(expected["all", task, metric], rel=0, abs=tolerance), (task, metric)


def test_rows_of_its_test_part_are_measured_as_in_training(
    shown_ranker: mgoe.Ranker, impressions: pd.DataFrame
):
    """The graph of the bundle holds their labels, so each reads the snapshot before its window."""
    cuts = Prepared.open(shown_ranker._home.run / "data").summary["cuts"]
    rows = impressions[impressions["timestamp"] >= cuts[-1]]
    keys = ["task", "metric"]
    expected = shown_ranker.evaluate().query("split == 'test' and slice == 'all'").set_index(keys)["value"]
    found = shown_ranker.evaluate(rows.sample(frac=1, random_state=0)).set_index(keys)["value"]
    smooth = found[[not re.search("auc|ranking|spearman", metric) for _, metric in found.index]]
    assert len(smooth) > 10  # the others depend on the order of pairs that are level but for rounding
    pd.testing.assert_series_equal(smooth, expected[smooth.index], rtol=1e-5)
    assert found["all", "auc"] == pytest.approx(expected["all", "auc"], abs=1e-3)


@pytest.mark.parametrize(
    ("fitted", "log", "known"),
    [("ranker", "events", "model has learned"), ("shown_ranker", "impressions", "model has learned")],
)
def test_rows_that_were_learned_are_refused(fitted, log, known, request, tmp_path):
    ranker, rows = (request.getfixturevalue(name) for name in (fitted, log))
    with pytest.raises(DataError, match=f"come after those that the {known}, until .*evaluate on the later"):
        ranker.evaluate(rows)
    loaded = mgoe.Ranker.load(ranker.save(tmp_path / "copy"))
    last = rows[rows["timestamp"] >= rows["timestamp"].max().floor("D")]
    with pytest.raises(DataError, match="come after those that the graph of the bundle holds, until"):
        loaded.evaluate(last)


def test_predicting_what_the_history_holds_warns_once(
    ranker: mgoe.Ranker, events: pd.DataFrame, tmp_path: Path
):
    loaded, done = mgoe.load(ranker.save(tmp_path / "copy")), events.head(50)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        loaded.predict(done["user_id"], [-1])  # an item that nobody has done
        assert said == []
        for _ in range(2):
            loaded.predict(done["user_id"], done["item_id"])
    assert [one.category for one in said] == [KnownOutcomes]
    assert "are in the history that the graph holds" in str(said[0].message)


class Recorded(mgoe.Ranker):
    """Says how many rows it was fitted on, and that later rows suit large seeds."""

    def fit(self, events: pd.DataFrame) -> Self:
        self.rows_ = len(events)
        return self

    def score(self, later: pd.DataFrame) -> float:
        return self.seed + len(later) / self.rows_


def test_scikit_learn_searches_parameters():
    search = GridSearchCV(Recorded(tasks=["click"]), {"seed": [3, 7, 5]}, cv=TimeSeriesSplit(2))
    found = search.fit(pd.DataFrame({"item": range(30)}))
    assert found.best_params_ == {"seed": 7}
    assert found.best_estimator_.get_params() == Recorded(tasks=["click"], seed=7).get_params()
    assert found.best_estimator_.rows_ == 30
    assert found.cv_results_["split0_test_score"].tolist() == [4, 8, 6]


def test_a_ranker_needs_no_scikit_learn():
    """Nor what only few fits need, and is slow to import."""
    slow = ["sklearn", "scipy.stats", "scipy.optimize", "torch._dynamo"]
    code = (
        "import sys; sys.modules['sklearn'] = None; import mgoe; mgoe.Ranker(seed=1).set_params(seed=2); "
        "print([name for name in sys.argv[1:] if sys.modules.get(name)])"
    )
    asked = subprocess.run([sys.executable, "-c", code, *slow], check=True, capture_output=True, text=True)
    assert asked.stdout == "[]\n"


def test_the_conventions_of_scikit_learn_hold(ranker: mgoe.Ranker):
    copy = clone(ranker)
    assert copy.get_params() == ranker.get_params()
    assert copy.set_params(seed=3, model="mmoe").seed == 3
    check_is_fitted(ranker)
    with pytest.raises(NotFittedError):
        check_is_fitted(copy)
    for ask in (
        lambda: copy.predict(1, 2),
        lambda: copy.recommend(1),
        lambda: copy.evaluate(),
        lambda: copy.update(pd.DataFrame()),
        lambda: copy.explain(1),
        lambda: copy.save("nowhere"),
        lambda: copy.graph,
    ):
        with pytest.raises(mgoe.ranker.NotFittedError, match=r"call fit\(events\)") as caught:
            ask()
        assert isinstance(caught.value, MgoeError)
        assert isinstance(caught.value, ValueError)
        assert isinstance(caught.value, AttributeError)
    with pytest.raises(ConfigError, match=r"^rate: is no parameter of Ranker"):
        copy.set_params(seed=4, rate=1)
    assert copy.seed == 3
    with pytest.raises(MgoeError, match=r"save\(path\)"):
        pickle.dumps(ranker)


def test_an_interrupted_fit_resumes_and_a_finished_one_is_kept(
    events: pd.DataFrame, small: RunSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    own = mgoe.Ranker(["click", "buy"], model="shared-bottom", settings=like(small), verbose=True)
    with monkeypatch.context() as patched:
        patched.setattr("mgoe.experiments.runs.execute", interrupted)
        with pytest.raises(KeyboardInterrupt):
            own.fit(events, workdir=tmp_path / "work")
    assert not hasattr(own, "bundle_")
    capsys.readouterr()
    weights = contents(own.fit(events, workdir=tmp_path / "work").bundle_)
    said = capsys.readouterr().out
    assert "resuming the unfinished run" in said
    assert "building the macro graph" not in said
    monkeypatch.setattr("mgoe.experiments.runs.execute", interrupted)  # nothing is trained below
    assert contents(clone(own).fit(events, workdir=tmp_path / "work").bundle_) == weights
    for ranker, rows, rule in (
        (clone(own).set_params(settings=like(small) | {"training.epochs": 2}), events, "training.epochs"),
        (clone(own), events.iloc[1:], "was made of another log"),
        (clone(own).set_params(model="mmoe"), events, "holds a finished run"),
    ):
        with pytest.raises(OutputError, match=rf"{rule}.*choose another folder"):
            ranker.fit(rows, workdir=tmp_path / "work")
    assert len(pd.read_parquet(own.settings_.data.log)) == len(events)


def test_a_second_fit_replaces_the_first_and_one_that_fails_leaves_it(
    events: pd.DataFrame, small: RunSettings, ranker: mgoe.Ranker
):
    own = mgoe.Ranker(["click"], model="shared-bottom", settings=like(small)).fit(events)
    first = contents(own.bundle_)
    with pytest.raises(MgoeError, match="must hold rows, found none"):
        own.fit(events.head(0))
    assert contents(own.bundle_) == first
    assert own.set_params(tasks=["buy"]).fit(events).bundle_.tasks == ("buy",)


def test_a_bundle_of_another_version_is_refused(ranker: mgoe.Ranker, tmp_path: Path):
    manifest = ranker.save(tmp_path / "old") / "bundle.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 1}))
    with pytest.raises(BundleError, match=r"reads bundle format \d+, found 1; use the version of mgoe that"):
        mgoe.Ranker.load(tmp_path / "old")


def test_a_folder_with_files_of_others_is_refused(events: pd.DataFrame, tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds files that no ranker wrote"):
        mgoe.Ranker(tasks=["click"]).fit(events, workdir=tmp_path)


def test_a_private_folder_goes_with_its_ranker(ranker: mgoe.Ranker, events: pd.DataFrame):
    own = mgoe.Ranker.load(ranker.bundle_.path).update(after(events))
    folder = own.bundle_.path.parent
    assert folder.exists()
    del own
    gc.collect()
    assert not folder.exists()
    assert ranker.bundle_.path.exists()


def test_an_explanation_has_the_scores_of_the_prediction(ranker: mgoe.Ranker):
    user, item = ranker.graph.ids("user")[4], ranker.graph.ids("item")[7]
    scores = ranker.predict(user, item).iloc[0]
    assert ranker.explain(user, item)["tasks"] == pytest.approx({"click": scores.click, "buy": scores.buy})


def test_no_users_get_no_lists_and_a_wrong_objective_is_refused(ranker: mgoe.Ranker):
    assert ranker.recommend(np.empty(0, np.int64)).empty
    with pytest.raises(MgoeError, match=r"'by' is not a task; did you mean 'buy'"):
        ranker.recommend(1, objective="click * by")


def test_a_score_is_higher_for_a_better_ranker(monkeypatch):
    found = [
        {"slice": "all", "task": "click", "metric": "auc", "value": 0.6},
        {"slice": "all", "task": "all", "metric": "ranking", "value": 0.7},
        {"slice": "known", "task": "all", "metric": "ranking", "value": 0.9},
    ]
    errors = [
        {"slice": "all", "task": task, "metric": "rmse", "value": value}
        for task, value in (("stay", 1.0), ("pay", 5.0))
    ]
    for rows, score in ((found, 0.7), (errors, -3.0)):
        monkeypatch.setattr(mgoe.Ranker, "evaluate", lambda self, later, rows=rows: pd.DataFrame(rows))
        assert mgoe.Ranker(tasks=["click"]).score(pd.DataFrame()) == pytest.approx(score)


def test_no_ranker_is_fitted_to_a_log_without_items(events: pd.DataFrame):
    """So no bundle has an empty catalogue."""
    for log, sentence in (
        (events.head(0), "the log must hold rows, found none"),
        (events.assign(item_id=None), "a log needs a user and an item, found no column like them"),
        (events.assign(item_id=7), "item_id hold a single value, so add more rows"),
    ):
        with pytest.raises(DataError, match=sentence):
            mgoe.Ranker(tasks=["click", "buy"]).fit(log)


def test_filters_that_leave_nothing_leave_no_rows(ranker: mgoe.Ranker):
    found = ranker.recommend([1, 2], at_least={"click": 1.1})
    assert (len(found), list(found)) == (0, ["user", "rank", "item", "score", "click", "buy"])


def test_a_loaded_ranker_takes_other_parameters(
    ranker: mgoe.Ranker, events: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
):
    loaded = mgoe.Ranker.load(ranker.bundle_.path)
    assert (loaded.threads, loaded.memory, loaded.context) == (1, 4.0, [])
    items = pd.DataFrame({"item_id": events["item_id"].unique()}).assign(kind="one")
    asked: list[RunSettings] = []

    def run(settings: RunSettings, *_: Any, **__: Any) -> None:
        asked.append(settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(experiments, "run", run)
    with pytest.raises(KeyboardInterrupt):
        loaded.set_params(threads=2, memory=1, items=items).fit(events)
    assert (asked[0].training.threads, asked[0].memory) == (2, 1)
    assert asked[0].data.items is not None
    assert [feature.name for feature in asked[0].data.items.features] == ["kind"]
    twice = loaded.get_params()["settings"] | {"data": {"items": {"path": "old.parquet", "id": "item_id"}}}
    with pytest.raises(ConfigError, match="items: is given twice, as a frame or path and in settings"):
        loaded.set_params(settings=twice).fit(events)
