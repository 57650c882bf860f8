"""A bundle refreshed from files: scored before the new rows enter its graph, and calibrated on that."""

import json
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import mgoe
from mgoe.bundle.calibration import Calibration, fit_calibration
from mgoe.cli.app import app
from mgoe.data import newest_window, read_rows
from mgoe.errors import ConfigError, DataError
from mgoe.lifecycle import Sources, update
from mgoe.serving import open_log

from .test_update import stream


def later(log: Path, out: Path, share: float = 1.0) -> Path:
    """The second half of a log as if it had happened right after it, in a file."""
    rows = pd.concat([pd.read_parquet(file) for file in sorted(log.glob("*.parquet"))])
    start, end = rows["timestamp"].min(), rows["timestamp"].max()
    rows = rows[rows["timestamp"] > start + (end - start) / 2]
    days = (end - start).ceil("D") / 2
    rows = rows.assign(timestamp=rows["timestamp"] + days.ceil("D"))
    rows.sample(frac=share, random_state=0).to_parquet(out)
    return out


@pytest.mark.parametrize("form", ["events", "exposures"])
def test_the_former_bundle_scores_what_the_new_one_is_calibrated_on(
    form: str, world: Path, tmp_path: Path, request: pytest.FixtureRequest
):
    run = request.getfixturevalue({"events": "finished", "exposures": "shown"}[form])
    before, new = mgoe.load(run / "bundle"), later(world / form, tmp_path / "new.parquet")
    bundle = update(before.path, Sources(str(new)), tmp_path / "bundle", groups="keep")
    now = 2**57  # every label is known
    rows, _ = read_rows(ibis.read_parquet(new), before.settings, "log")
    examples = newest_window(rows, before.settings, before.encoders, "log", now)
    found, after = (
        fit_calibration(one.window(examples), before.settings.tasks, one.calibration)
        for one in (before, mgoe.load(tmp_path / "bundle"))
    )
    assert bundle.calibration == found != after
    assert bundle.calibration != before.calibration
    assert bundle.graph.manifest.changes[-1]["events"] > 0
    for name, task in bundle.calibration.tasks.items():
        t, labels = before.tasks.index(name), examples.labels[:, before.tasks.index(name)]
        assert task.positives + task.negatives <= (~np.isnan(labels)).sum()
        if form == "exposures":  # nothing is sampled: what was served is what is measured
            held = ~np.isnan(labels)
            served = before.score_indices(examples.user, examples.item, examples.context)[held, t]
            assert task.after.predicted_over_observed == pytest.approx(
                served.sum() / labels[held].sum(), rel=1e-4
            )


def test_live_events_calibrate_a_bundle_of_events_alone(finished: Path, shown: Path, tmp_path: Path):
    for name, run in (("finished", finished), ("shown", shown)):
        before = mgoe.load(run / "bundle")
        for n in (10, 600):  # ten are too few
            log = open_log(tmp_path / f"{name} {n}")
            log.append(stream(before, n))
            after = update(
                before.path,
                Sources(events=tmp_path / f"{name} {n}"),
                tmp_path / f"{name} bundle {n}",
                groups="keep",
            ).calibration
            maps = [one.numbers(before.settings.tasks) for one in (before.calibration, after)]
            assert (np.array(maps[0]) != np.array(maps[1])).any() == (name == "finished" and n == 600)
            assert (after == before.calibration) == (name == "shown")


def test_new_rows_are_live_events_or_files(finished: Path, tmp_path: Path):
    for events, files in ((None, []), (tmp_path / "state", ["a.parquet"])):
        with pytest.raises(ConfigError, match="give one of the two"):
            update(finished / "bundle", Sources(files, events), tmp_path / "new", groups="keep")
    with pytest.raises(DataError, match="no-such"):
        update(finished / "bundle", Sources("no-such.parquet"), tmp_path / "new", groups="keep")
    assert not (tmp_path / "new").exists()
    assert CliRunner().invoke(app, ["update", str(finished / "bundle"), "--out", "x"]).exit_code == 2


def test_the_command_prints_the_calibration(finished: Path, world: Path, tmp_path: Path):
    new = later(world / "events", tmp_path / "new.parquet", share=0.5)
    words = ["update", finished / "bundle", "--log", new, "--out", tmp_path / "new", "--json"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    found = Calibration.model_validate(json.loads(result.stdout)["calibration"])
    assert found == mgoe.load(tmp_path / "new").calibration
    assert "scored before they enter the graph" in result.stderr
    again = CliRunner().invoke(app, [str(word) for word in words[:-1]] + ["--overwrite"])
    ratio = found.tasks["buy"].after.predicted_over_observed
    assert f"{ratio:.4f}" in again.stdout
    described = CliRunner().invoke(app, ["describe", str(tmp_path / "new"), "--json"])
    assert json.loads(described.stdout)["calibration"] == json.loads(result.stdout)["calibration"]
