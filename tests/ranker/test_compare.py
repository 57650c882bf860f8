"""A comparison adds models to the run of a ranker: what `mgoe run` trains for all, on the same rows."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sklearn.base import clone

import mgoe
from mgoe.config import RunSettings
from mgoe.errors import ConfigError, MgoeError, OutputError
from mgoe.experiments import RunResult
from mgoe.models import BASES
from tests.ranker.conftest import like


class Own(BASES["shared-bottom"]):
    """A model of one's own."""


@pytest.fixture(scope="session")
def compared(ranker: mgoe.Ranker) -> RunResult:
    return ranker.compare(["shared-bottom"])


def interrupted(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_it_is_a_run_of_all_its_models(compared: RunResult, finished: Path):
    run = mgoe.experiments.measured(finished)
    pd.testing.assert_frame_equal(compared.metrics, pd.DataFrame(run), check_like=True)
    leads = pd.DataFrame([vars(lead) for lead in mgoe.experiments.leads(finished)])
    found = compared.leads.query("task == 'all' and metric == 'ranking'").reset_index(drop=True)
    pd.testing.assert_frame_equal(found, leads[found.columns])


def test_text_and_html_show_the_same_numbers(compared: RunResult):
    pages = compared._repr_html_()
    shown = {word for line in repr(compared).splitlines() if line.startswith("| ") for word in line.split()}
    assert {"mgoe", "shared-bottom"} <= shown
    assert all(word.strip("*") in pages for word in shown - {"|", "---", "---:"})
    [lead] = compared.leads.query("task == 'click' and metric == 'auc'").itertuples()
    interval = f"{lead.value:+.2f} [{lead.low:+.2f}, {lead.high:+.2f}]"  # of fewer than 200 users
    assert interval in pages
    assert interval in repr(compared)


def test_what_was_trained_is_kept_and_the_bundle_is_not_touched(
    ranker: mgoe.Ranker, compared: RunResult, monkeypatch: pytest.MonkeyPatch
):
    before = ranker.bundle_.path.stat().st_ino
    monkeypatch.setattr("mgoe.experiments.runs.execute", interrupted)  # nothing is trained below
    again = ranker.compare(["mgoe", "shared-bottom"])
    pd.testing.assert_frame_equal(again.metrics, compared.metrics)
    assert (ranker.bundle_.path.stat().st_ino, list(again.metrics["model"].unique())) == (
        before,
        ["mgoe", "shared-bottom"],
    )


def test_an_interrupted_comparison_resumes(
    events: pd.DataFrame, small: RunSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    own = mgoe.Ranker(["click"], model="shared-bottom", settings=like(small))
    own.fit(events, workdir=tmp_path / "work")
    with monkeypatch.context() as patched:
        patched.setattr("mgoe.pipeline.nodes.fit_cell", interrupted)
        with pytest.raises(KeyboardInterrupt):
            own.compare([Own])
    users, items = (own.graph.ids(side)[:3] for side in ("user", "item"))
    scores = own.predict(users, items)
    other = clone(own).fit(events, workdir=tmp_path / "work")  # finishes the run without the comparison
    result = other.compare([Own])
    assert result.leads["baseline"].unique().tolist() == ["Own"]
    pd.testing.assert_frame_equal(other.predict(users, items), scores)
    with pytest.raises(OutputError, match="holds a finished run; choose another folder"):
        clone(own).set_params(model=Own).fit(events, workdir=tmp_path / "work")


def test_what_cannot_be_compared_is_said_in_one_sentence(ranker: mgoe.Ranker):
    for models, sentence in (
        ("mmoe", "must be a list of models, found 'mmoe'"),
        ([], "must hold a model to compare with, found none"),
        (["mgoe"], "must hold a model to compare with, found none"),
        (["mmeo"], "unknown model 'mmeo'; did you mean 'mmoe'"),
        ([int], r"must be a mgoe\.models\.RankingModel, found int"),
        ([{"name": "x", "base": int}], r"must be a mgoe\.models\.RankingModel, found int"),
        ([{"name": "x", "base": "mmoe", "option": {}}], "did you mean 'options'"),
        (["mmoe", "mmoe"], "each row needs a name of its own"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            ranker.compare(models)
    loaded = mgoe.Ranker.load(ranker.bundle_.path)
    with pytest.raises(OutputError, match=r"found a ranker that was loaded from a bundle; call fit"):
        loaded.compare(["mmoe"])
    assert issubclass(OutputError, MgoeError)
