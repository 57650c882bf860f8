"""The bar; and MLflow, which receives the curves, once, also if a fit was interrupted."""

import importlib
import sys
import time

import pytest

from mgoe.errors import MissingExtra
from mgoe.training import FitProgress, fit, progress_bar
from mgoe.training.progress import of_epoch, tracking
from tests.training.fakes import Model
from tests.training.test_loop import TRAIN, VALID, training

NOW = FitProgress(epoch=1, epochs=2, step=5, steps=20, samples_per_second=61234.0, loss=0.69, monitor=0.71)


def test_a_terminal_sees_rate_and_time_left(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "150")
    with progress_bar("mgoe", "all.ranking") as show:
        assert show is not None
        time.sleep(0.2)  # a bar changes ten times per second at most
        show(NOW)
    seen = capsys.readouterr().err
    assert all(
        part in seen
        for part in ("mgoe", "epoch 1/2", "61.2 k samples/s", "loss 0.6900", "all.ranking 0.7100", ":")
    )


def test_nothing_is_printed_where_there_is_no_terminal(capsys):
    with progress_bar("mgoe") as show:
        assert show is None
    assert capsys.readouterr() == ("", "")


def cut(now):
    if now.step >= 17:
        raise InterruptedError


def in_two_parts(out, monkeypatch):
    """Interrupt a fit in its second epoch, and resume it."""
    monkeypatch.setattr("mgoe.training.loop.REPORT_STEPS", 2)
    with pytest.raises(InterruptedError):
        fit(Model(), TRAIN, VALID, training(track="mlflow", checkpoint="0s"), out, cut, resume=True)
    return fit(Model(), TRAIN, VALID, training(track="mlflow"), out, resume=True)


def test_mlflow_continues_the_same_run(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "tracked").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    result = in_two_parts(tmp_path / "fit", monkeypatch)
    client = importlib.import_module("mlflow").MlflowClient()
    (run,) = client.search_runs(["0"])
    history = client.get_metric_history(run.info.run_id, "validation.click.gauc")
    assert [point.value for point in history] == pytest.approx(
        [epoch["validation"]["click"]["gauc"] for epoch in result.curves]
    )
    assert run.info.status == "FINISHED"


def test_mlflow_says_that_a_fit_failed(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "tracked").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")

    def track_and_fail() -> None:
        with tracking("mlflow", tmp_path, 0) as track:
            assert track is not None
            track(1, {"loss": 0.5})
            raise InterruptedError

    with pytest.raises(InterruptedError):
        track_and_fail()
    (run,) = importlib.import_module("mlflow").MlflowClient().search_runs(["0"])
    assert run.info.status == "FAILED"


def test_numbers_that_do_not_exist_are_left_out():
    assert of_epoch(
        {
            "epoch": 1,
            "validation": {"buy": {"auc": float("nan"), "gauc": 0.5}},
            "watch": {"gates": [[1.0, -0.5]]},
        }
    ) == {
        "epoch": 1.0,
        "validation/buy/gauc": 0.5,
        "watch/gates/0/0": 1.0,
        "watch/gates/0/1": -0.5,
    }


def test_a_missing_library_is_named_before_training(tmp_path, monkeypatch):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingExtra, match=r"training.track: .*pip install -e '.\[track\]'"):
        fit(Model(), TRAIN, VALID, training(track="mlflow"), tmp_path)
