"""The release test refuses what is broken, with the reason, and lets pass what is equal."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from scipy.special import expit

import mgoe
from mgoe._util.files import sha256
from mgoe.bundle import Bundle
from mgoe.config import TaskSettings
from mgoe.data import Examples
from mgoe.errors import DataError
from mgoe.experiments.graphs import settings_of
from mgoe.experiments.window import new_examples
from mgoe.release import Bounds, check_release
from mgoe.release.acceptance import compare, predicted_over_observed, uncalibrated, worse
from mgoe.training.checkpoint import load_checkpoint, save_checkpoint
from tests.effort import SOAK
from tests.experiments.test_refresh_from_files import later

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


def shuffle_weights(folder: Path, _: dict[str, Any]) -> None:
    rng, file = np.random.default_rng(0), folder / "model.safetensors"
    weights, meta = load_checkpoint(file)
    shuffled = {
        name: one.flatten()[rng.permutation(one.numel())].reshape(one.shape) for name, one in weights.items()
    }
    save_checkpoint(file, shuffled, meta)


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
        (shuffle_weights, "rmse of stay"),
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
    found.save(tmp_path / "release.json")
    assert json.loads((tmp_path / "release.json").read_text())["approved"] == found.approved


@pytest.fixture(scope="module")
def later_rows(shown: Path, world: Path, tmp_path_factory: pytest.TempPathFactory) -> Examples:
    bundle, folder = mgoe.load(shown / "bundle"), tmp_path_factory.mktemp("later")
    file = str(later(world / "exposures", folder / "new.parquet"))
    return new_examples(bundle, settings_of(bundle.graph, [file]), [file], folder / "window")


def test_a_window_without_rows_is_an_error(shown: Path, later_rows: Examples):
    bundle, empty = mgoe.load(shown / "bundle"), later_rows.take(np.zeros(0, np.int64))
    with pytest.raises(DataError, match="must hold rows that neither bundle has learned from"):
        check_release(bundle, bundle, (empty, empty))
