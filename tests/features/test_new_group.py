"""The input group of `docs/extending.md` works everywhere without another change."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import mgoe
from mgoe import experiments
from mgoe.bundle import Bundle
from mgoe.config import ModelSettings, RunSettings, dump_settings
from mgoe.data import Prepared
from mgoe.features import GROUPS, Reader, View
from mgoe.retrieval import known_items
from mgoe.serving.events.event import Event, EventReader
from mgoe.serving.online.live import LiveNodes
from mgoe.serving.online.overlay import LiveView
from mgoe.serving.scoring.runtime import Runtime
from mgoe.serving.scoring.scorer import Scorer

CODE = Path(mgoe.__file__).parent
DOCS = Path(__file__).parents[2] / "docs" / "extending.md"


def snippets() -> list[str]:
    """Return the file of the page, and the import that it adds to `groups.py`."""
    section = DOCS.read_text(encoding="utf-8").split("\n## Adding an input group\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def test_it_works_in_the_files_that_the_page_names(tmp_path: Path, exposures: RunSettings):
    """In a copy of the code, through the command."""
    shutil.copytree(CODE, tmp_path / "src" / "mgoe", ignore=shutil.ignore_patterns("__pycache__"))
    features, [file, imported] = tmp_path / "src" / "mgoe" / "features", snippets()
    (features / "habit.py").write_text(file)
    groups = (features / "groups.py").read_text()
    for line, added in (
        ("from mgoe.features.nodes import Aggregates, Content, Counts, Ids, Placing, Recents\n", imported),
        ("        Content(),\n", "        Habit(),\n"),
    ):
        assert groups.count(line) == 1
        groups = groups.replace(line, line + added)
    (features / "groups.py").write_text(groups)
    model = ModelSettings(name="habitual", base="logistic", inputs=("counts", "habit"))
    (tmp_path / "mine.yaml").write_text(dump_settings(exposures.model_copy(update={"models": [model]})))
    words = ("run", "mine.yaml", "--out", "run", "--set", "training.epochs=1")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "src")}
    run = subprocess.run(
        [sys.executable, "-m", "mgoe", *words], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "habit" in json.loads((tmp_path / "run" / "bundle" / "spec.json").read_text())["widths"]


@pytest.fixture(scope="module")
def registered() -> Iterator[None]:
    """Register the documented group for the tests of this file."""
    code, *_ = snippets()
    names: dict[str, Any] = {}
    exec(code, names)
    GROUPS["habit"] = names["Habit"]()
    yield
    del GROUPS["habit"]


@pytest.fixture(scope="module")
def run(registered: None, exposures: RunSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("habit") / "run"
    inputs = ("side", "context", "counts", "pair", "edges", "habit")
    model = ModelSettings(name="habitual", base="mmoe", inputs=inputs)
    experiments.run(exposures.model_copy(update={"models": [model]}), path)
    return path


@pytest.fixture(scope="module")
def bundle(run: Path) -> Bundle:
    return mgoe.load(run / "bundle")


def test_a_model_learns_its_columns_and_categories(bundle: Bundle):
    spec, model = bundle.model.spec, bundle.model
    assert "habit" in model.needs
    width = next(feature.size for feature in spec.context if feature.name == "device")
    assert spec.widths["habit"] == len(spec.moments["habit"][0]) == width
    assert model.inputs.dense.names.count("habit") == width
    assert "habit.cell" in model.inputs.dense.names


def test_a_bundle_reads_what_training_read(run: Path, bundle: Bundle):
    test = Prepared.open(run / "data").examples("test")
    view = View.of(bundle.graph.latest)
    read = Reader(["habit"], bundle.model.spec)
    found = read(view, test.user, test.item, test.context)
    macro = np.asarray(bundle.graph.latest.resolutions[bundle.graph.latest.dense].user_macro)
    width = bundle.model.spec.widths["habit"]
    inside = (test.user >= 0) & (test.user < len(macro))
    expected = np.where(inside, macro[np.where(inside, test.user, 0)], bundle.model.spec.macro_users)
    assert_array_equal(found["habit.cell"], expected * width + test.context["device"])
    assert ((found["habit"] != 0).sum(1) <= 1).all()


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_a_service_scores_as_the_bundle_with_every_context(bundle: Bundle, engine: str):
    if engine == "onnx":
        pytest.importorskip("onnxruntime")
    scorer, items = Scorer(bundle, runtime=Runtime(engine=engine)), np.arange(-1, 30)
    scores = []
    for device in range(bundle.model.spec.widths["habit"]):
        context = {"device": np.array([device])}
        each = {"device": np.repeat(context["device"], len(items))}
        found = scorer.score(3, items, context)
        assert_allclose(
            found, bundle.score_indices(np.full(len(items), 3), items, each), atol=1e-5, rtol=1e-4
        )
        scores.append(found)
    assert not np.allclose(scores[0], scores[1], atol=1e-6)


def test_live_events_reach_it(bundle: Bundle):
    live = LiveNodes.of(bundle)
    source = LiveView(View.of(bundle.graph.latest), live)
    read = Reader(["habit"], bundle.model.spec, part="user")
    user, item, context = np.array([3]), np.array([-1]), {"device": np.array([1])}
    with source.reading() as view:
        before = read(view, user, item, context)
        known = {*known_items(view, 3).tolist()}
    behavior = next(iter(EventReader.of(bundle).behaviors))
    (someone,) = live.ids("user", user)
    new = [index for index in range(live.size("item")) if index not in known][:5]
    moment = int(bundle.graph.manifest.last)
    events = [Event(someone, one, behavior, moment + k, None) for k, one in enumerate(live.ids("item", new))]
    assert live.apply(events) == len(new)
    with source.reading() as view:
        after = read(view, user, item, context)
    assert_allclose(np.expm1(after["habit"][0, 1]), np.expm1(before["habit"][0, 1]) + len(new), rtol=1e-5)
    assert_array_equal(after["habit.cell"], before["habit.cell"])
    scorer, items = Scorer(bundle, live, Runtime(engine="torch")), np.arange(20)
    with LiveView(
        View.of(bundle.graph.latest, bundle.encoders.user_side, bundle.encoders.item_side), live
    ).reading() as view:
        whole = Reader(bundle.model.needs, bundle.model.spec)(view, np.full(20, 3), items, context)
    batch = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in whole.items()}
    expected = bundle.recalibrate(bundle.model.predict(batch).numpy(), items)
    assert_allclose(scorer.score(3, items, context), expected, atol=1e-5, rtol=1e-4)
