"""What a refit brings: the benchmark measures what runs do, and trains what ways share once."""

import json
from pathlib import Path

import pytest
import yaml

from benchmarks import refit
from mgoe import experiments
from mgoe.config import RunSettings, load_settings
from mgoe.evaluation import read_rows

MODEL = "shared-bottom+counts"


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, dict]:
    refit.main(words)
    return {line["name"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}


@pytest.fixture
def config(small: RunSettings, tmp_path: Path) -> str:
    """A model that trains in a second."""
    settings = small.model_dump(mode="json") | {"models": [MODEL], "seeds": [0]}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    return str(tmp_path / "config.yaml")


def test_each_way_is_measured_as_a_run_of_it_is_and_trained_once(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    work = [config, "--models", MODEL, "--work", str(tmp_path / "work")]
    lines = printed(capsys, *work)
    for way in ("none", "continue"):
        changes = [*refit.WAYS[way], "evaluation.slices=false", "evaluation.ranking_queries=0"]
        experiments.train(load_settings(config, changes), tmp_path / way, MODEL, 0)
        for row in read_rows(tmp_path / way / "cells" / MODEL / "0" / "metrics.json"):
            if (row["split"], row["metric"]) == ("test", "auc") and row["task"] != "all":
                assert lines[f"{MODEL}.{way}.{row['task']}.auc"]["value"] == pytest.approx(
                    row["value"], rel=1e-4
                )
    none, anew = (lines[f"{MODEL}.{way}.mean"]["value"] for way in ("none", "anew"))
    lead, low, high = (lines[f"{MODEL}.anew.mean.lead{end}"]["value"] for end in ("", ".low", ".high"))
    assert lead == pytest.approx(anew - none, abs=1e-4)
    assert low < lead < high
    assert f"{MODEL}.none.mean.lead" not in lines
    assert lines[f"{MODEL}.anew.cpu_seconds"]["ratio"] > 1

    def untouched(*_: object) -> None:
        raise AssertionError("must not train again")

    monkeypatch.setattr(refit, "fit_model", untouched)
    assert printed(capsys, *work) == lines
    other = printed(capsys, *work, "--ways", "anew", "--against", str(tmp_path / "work"), "--as", "log")
    assert other[f"log.{MODEL}.anew.mean.lead"] == lines[f"{MODEL}.anew.mean.lead"] | {
        "name": f"log.{MODEL}.anew.mean.lead"
    }


def test_results_of_other_settings_are_not_mixed(config: str, tmp_path: Path):
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(SystemExit, match="other settings"):
        refit.main([config, "--work", str(tmp_path)])
