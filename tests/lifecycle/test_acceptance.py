"""The release test refuses what is broken, with the reason, and lets pass what is equal."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from numpy.typing import NDArray
from scipy.special import expit

import mgoe
from mgoe import experiments
from mgoe._util.files import sha256
from mgoe.bundle import Bundle
from mgoe.config import RunSettings, TaskSettings
from mgoe.data import Examples
from mgoe.errors import ConfigError, DataError
from mgoe.lifecycle import Bounds, Release, Sources, check_release
from mgoe.lifecycle.acceptance import compare, predicted_over_observed, time_requests, uncalibrated, worse
from mgoe.lifecycle.new_rows import NewRows
from mgoe.models import Batch
from mgoe.serving.scoring.runtime import Runtime
from mgoe.serving.scoring.scorer import Scorer
from mgoe.training.checkpoint import load_checkpoint, save_checkpoint
from tests.effort import SOAK, slow
from tests.lifecycle.test_update_from_files import later
from tests.sharing import Shared

WINDOWS = 200 if SOAK else 4
TASKS = [TaskSettings(name="click"), TaskSettings(name="buy")]
Scores = NDArray[np.float64]


def window(seed: int, users: int = 300, rows: int = 20) -> tuple[Scores, Scores, NDArray[np.int64]]:
    """Log-odds of a good model, labels, and users: rows of a user depend on one another."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), rows)
    truth = rng.normal(size=(users, 2))[user] + rng.normal(size=(users * rows, 2)) - [1.0, 2.0]
    labels = (rng.random(truth.shape) < expit(truth)).astype(np.float64)
    return truth, labels, user


def reasons(candidate: Scores, current: Scores, labels: Scores, user: NDArray[np.int64]) -> list[str]:
    ours, theirs = (predicted_over_observed(expit(one), labels, user, TASKS) for one in (candidate, current))
    compared = compare(expit(candidate), expit(current), labels, user, TASKS)
    return worse(compared, Bounds()) + uncalibrated(ours, theirs, Bounds())


def test_an_equal_candidate_is_refused_in_at_most_five_percent_of_windows():
    """Both are as far from the truth, each in its own way."""
    refused = 0
    for seed in range(WINDOWS):
        truth, labels, user = window(seed)
        rng = np.random.default_rng([seed, 1])
        ours, theirs = (truth + 0.3 * rng.normal(size=truth.shape) for _ in range(2))
        refused += bool(reasons(ours, theirs, labels, user))
    assert refused <= max(1, 0.05 * WINDOWS)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (lambda scores, rng: rng.permutation(scores), "auc of click"),
        (lambda scores, rng: scores + 0.7 * rng.normal(size=scores.shape), "auc of click"),
        (lambda scores, rng: scores * [1, 0] + rng.normal(size=scores.shape) * [0, 1], "auc of buy"),
        (lambda scores, rng: scores + np.log([1, 2.5]), "buy is predicted"),
    ],
)
def test_a_broken_candidate_is_refused_with_its_reason(broken: Callable[..., Scores], reason: str):
    for seed in range(max(1, WINDOWS // 10)):
        truth, labels, user = window(seed)
        found = reasons(broken(truth, np.random.default_rng(seed)), truth, labels, user)
        assert any(reason in one for one in found), found


def test_a_world_that_changed_refuses_nobody_for_it():
    """Both bundles predict twice what is observed: the candidate is no worse."""
    truth, labels, user = window(0)
    assert reasons(truth + 1, truth + 1.02, labels, user) == []


def test_a_window_that_is_too_small_approves_nothing():
    truth, labels, user = window(0, users=10, rows=2)
    assert "too few users" in reasons(truth, truth, labels, user)[0]


def changed(bundle: Path, out: Path, change: Callable[[Path, dict[str, Any]], None]) -> Bundle:
    """A copy of a bundle with a changed folder and manifest, sealed again."""
    shutil.copytree(bundle, out)
    manifest = json.loads((out / "bundle.json").read_text())
    change(out, manifest)
    manifest["checksums"] = {name: sha256(out / name) for name in manifest["checksums"]}
    (out / "bundle.json").write_text(json.dumps(manifest | {"note": out.name}))
    return mgoe.load(out)


def enlarge_weights(folder: Path, _: dict[str, Any]) -> None:
    """Its predictions are far too sure of themselves."""
    file = folder / "model.safetensors"
    weights, meta = load_checkpoint(file)
    save_checkpoint(file, {name: 20 * one for name, one in weights.items()}, meta)


def double(_: Path, manifest: dict[str, Any]) -> None:
    for task in manifest["calibration"]["tasks"].values():
        task["intercept"] += np.log(2.5)


def drop_context(folder: Path, _: dict[str, Any]) -> None:
    settings = yaml.safe_load((folder / "settings.yaml").read_text())
    settings["data"]["context"] = []
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))


def drop_task(_: Path, manifest: dict[str, Any]) -> None:
    manifest["tasks"] = manifest["tasks"][:1]
    manifest["calibration"] = {}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda *_: None, None),
        (enlarge_weights, "rmse of stay"),
        (double, "click is predicted"),
        (drop_context, "features of the current bundle are missing: context device"),
        (drop_task, "the tasks must be those of the current bundle"),
    ],
)
def test_candidates_are_judged_on_a_window_that_they_have_not_learned(
    change: Callable[..., None], reason: str | None, shown: Path, later_rows: Examples, tmp_path: Path
):
    current = mgoe.load(shown / "bundle")
    candidate = changed(shown / "bundle", tmp_path / "candidate", change)
    found = check_release(candidate, current, (later_rows, later_rows), Bounds(requests=5, latency=10))
    assert found.approved == (reason is None), found.reasons
    assert reason is None or any(reason in one for one in found.reasons), found.reasons
    assert (found.candidate, found.baseline, found.rows) == (candidate.name, current.name, len(later_rows))
    found.save(tmp_path)
    assert json.loads((tmp_path / "release.json").read_text())["approved"] == found.approved


@pytest.fixture(scope="module")
def new(world: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of exposures that no bundle has learned from."""
    return str(later(world / "exposures", tmp_path_factory.mktemp("later") / "new.parquet"))


@pytest.fixture(scope="module")
def later_rows(shown: Path, new: str, tmp_path_factory: pytest.TempPathFactory) -> Examples:
    return rows_of(mgoe.load(shown / "bundle"), new, tmp_path_factory.mktemp("window"))


def rows_of(bundle: Bundle, file: str, folder: Path) -> Examples:
    found = NewRows.of(bundle, Sources(file), folder).examples()
    assert found is not None
    return found


@pytest.fixture(scope="module")
def trained(exposures: RunSettings, shared: Shared) -> Bundle:
    """Trained for as long as it helps, from another seed than that of the short run."""
    return mgoe.load(shared("release-trained", partial(longer, exposures)) / "bundle")


def longer(settings: RunSettings, folder: Path) -> Bundle:
    training = settings.training.model_copy(update={"epochs": 5 if SOAK else 3, "batch_size": 256})
    experiments.run(settings.model_copy(update={"training": training, "seeds": [1]}), folder)
    return mgoe.load(folder / "bundle")


def of_permuted_labels(settings: RunSettings, world: Path, folder: Path) -> Bundle:
    """Trained as well, but on labels that were given to other rows."""
    rows = pd.concat([pd.read_parquet(file) for file in sorted((world / "exposures").glob("*.parquet"))])
    labels, order = ["click", "buy", "stay"], np.random.default_rng(0).permutation(len(rows))
    rows[labels] = rows[labels].to_numpy()[order]
    rows.to_parquet(folder / "log.parquet")
    data = settings.data.model_copy(update={"log": [str(folder / "log.parquet")]})
    return longer(settings.model_copy(update={"data": data}), folder / "run")


@pytest.mark.parametrize("wrong", ["one epoch of another seed", pytest.param("permuted labels", marks=slow)])
def test_a_candidate_that_was_trained_wrongly_is_refused(
    wrong: str, trained: Bundle, shown: Path, exposures: RunSettings, world: Path, new: str, tmp_path: Path
):
    """The run of the fixture has trained for one epoch."""
    short = wrong == "one epoch of another seed"
    candidate = mgoe.load(shown / "bundle") if short else of_permuted_labels(exposures, world, tmp_path)
    window = rows_of(candidate, new, tmp_path), rows_of(trained, new, tmp_path)
    found = check_release(candidate, trained, window, Bounds(requests=5, latency=10))
    assert not found.approved
    assert any("auc of click is" in reason for reason in found.reasons), found.reasons


def perturbed(bundle: Bundle, seed: list[int]) -> Bundle:
    """The bundle with noise in its predictions: as good as it is with that of another seed."""
    rng = np.random.default_rng(seed)
    binary = torch.tensor([task.kind == "binary" for task in bundle.settings.tasks])

    def predict(batch: Batch) -> torch.Tensor:
        scores = bundle.model.predict(batch)
        noise = torch.from_numpy(rng.normal(scale=0.3, size=scores.shape)).float()
        return torch.where(binary, torch.special.expit(torch.logit(scores) + noise), scores + noise)

    return bundle.run_by(predict)


def test_the_whole_test_refuses_an_equal_candidate_in_at_most_five_percent_of_windows(
    shown: Path, later_rows: Examples
):
    """A window is what half of the users did. Inputs are read and requests timed, as with any candidate."""
    bundle, refused, windows = mgoe.load(shown / "bundle"), list[list[str]](), WINDOWS if SOAK else 2
    for seed in range(windows):
        drawn = np.random.default_rng(seed).random(bundle.size("user") + 1) < 0.5
        window = later_rows.take(drawn[later_rows.user])
        candidate, current = (perturbed(bundle, [seed, one]) for one in range(2))
        found = check_release(candidate, current, (window, window), Bounds(requests=20))
        refused += [] if found.approved else [found.reasons]
        print(f"{len(refused)} of {seed + 1} windows refused", flush=True)
    assert len(refused) <= max(1, 0.05 * windows), refused


def test_a_window_without_rows_is_an_error(shown: Path, later_rows: Examples):
    bundle, empty = mgoe.load(shown / "bundle"), later_rows.take(np.zeros(0, np.int64))
    with pytest.raises(DataError, match="must hold rows that neither bundle has learned from"):
        check_release(bundle, bundle, (empty, empty))


def test_requests_are_timed_as_a_service_runs_them(shown: Path, monkeypatch: pytest.MonkeyPatch):
    """Without the export itself, which takes half a minute."""
    bundle, asked = mgoe.load(shown / "bundle"), []

    def scorer(bundle: Bundle, runtime: Runtime) -> Scorer:
        asked.append(runtime)
        return Scorer(bundle, runtime=Runtime(engine="torch"))

    monkeypatch.setattr("mgoe.pipeline.serving_time.Runtime", Runtime)
    monkeypatch.setattr("mgoe.pipeline.serving_time.Scorer", scorer)
    assert min(time_requests((bundle, bundle), 2)) > 0
    assert asked == [Runtime(), Runtime()]


def test_a_release_that_was_tested_before_inputs_lost_their_bound_can_be_read(tmp_path: Path):
    facts = {"candidate": "3f9a", "baseline": "61c0", "time": "2026-05-02T06:10:00+00:00", "rows": 9}
    tested = Release(**facts, approved=False, reasons=["the log"], bounds=Bounds(margin=0.5))
    tested.save(tmp_path)
    before = json.loads((tmp_path / "release.json").read_text())
    before["bounds"]["shift"], before["shift"] = 3.0, {"counts": 0.4}
    (tmp_path / "release.json").write_text(json.dumps(before))
    assert Release.of(tmp_path) == tested
    (tmp_path / "release.json").write_text(json.dumps(before | {"shfit": {}}))
    with pytest.raises(ConfigError, match="unknown key 'shfit'"):
        Release.of(tmp_path)
