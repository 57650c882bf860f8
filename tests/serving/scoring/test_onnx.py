"""ONNX graphs say what PyTorch says."""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import mgoe
from mgoe.errors import StoreError
from mgoe.models import CategoricalSpec, Decomposition, make_model, neutral
from mgoe.models.spec import batch_keys
from mgoe.serving.scoring import onnx_sessions
from mgoe.serving.scoring.onnx_export import export_whole
from mgoe.serving.scoring.onnx_sessions import Session, Sessions
from mgoe.serving.scoring.runtime import Runtime
from mgoe.serving.scoring.scorer import Scorer
from tests.effort import SOAK
from tests.models.batches import make_spec, random_batch
from tests.models.test_contract import MODELS
from tests.models.test_decomposition import late, of_one_user, part
from tests.sharing import Shared

for _name in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(_name, reason=f"{_name} is not installed: pip install -e '.[onnx]'")


SPEC = make_spec(2, context=(CategoricalSpec("hour", 4), CategoricalSpec("tags", 5, multi=True)))


def exported(*given: Any, **more: Any) -> Sessions:
    sessions = Sessions(*given, **more)
    if not sessions.exported:
        sessions.export()
    return sessions


def taken_apart(name: str, whole: bool, cache: Path) -> tuple[Any, ...]:
    """What sessions of a model are given; `whole` computes nothing ahead."""
    model = make_model(MODELS[name], SPEC, 0).eval()
    decomposition = (
        Decomposition(model, batch_keys(SPEC, model.needs)) if whole else model.decompose()
    ).eval()
    sample = of_one_user(SPEC, 3, 0)
    user = part(sample, "user", decomposition.user_keys)
    return decomposition, user, late(sample, decomposition), cache


def small(cache: Path) -> tuple[Any, ...]:
    """What sessions of one model are given."""
    return taken_apart("mgoe-paper", False, cache)


@pytest.fixture(scope="session")
def made(shared: Shared) -> Path:
    """A cache with the graphs of `small`. Tests only read it."""
    return shared("serving small graphs", lambda path: exported(*small(path)))


@pytest.fixture
def kept(made: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "cache"))


def copied(cache: Path) -> Callable[..., None]:
    """What writes the graphs of a cache in place of exporting them."""

    def write(out: Path, *_: Any) -> None:
        for file in cache.glob(f"onnx/*/{out.name}*"):
            shutil.copy(file, out.parent)

    return write


CHECKED = (
    "everything",
    *("din", "macgnn", "mgoe", "shared-bottom, bent", "mgoe-paper", "mmoe+graph", "shared-bottom") * SOAK,
)


@pytest.mark.parametrize("name", CHECKED)
def test_whole_models(tmp_path: Path, name: str):
    spec = make_spec()
    model = make_model(MODELS[name], spec, 0).eval()
    export_whole(model, tmp_path / "model.onnx")
    exported = Session(tmp_path / "model.onnx")
    assert {file.name for file in tmp_path.iterdir()} <= {"model.onnx", "model.onnx.data"}
    for rows, seed in ((1, 1), (5, 2), (64, 3)):
        batch = random_batch(spec, rows, seed)
        torch.testing.assert_close(exported(batch), model.predict(batch), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("mgoe-paper", False),
        *[("mgoe", False), ("stem+mgoe", False), ("mmoe", False), ("mmoe", True), ("shared-bottom", True)]
        * SOAK,
    ],
)
def test_models_taken_apart(kept: Path, name: str, whole: bool):
    """And a context's list may be longer than the one exported."""
    given = taken_apart(name, whole, kept)
    decomposition, sessions = given[0], exported(*given)
    model = make_model(MODELS[name], SPEC, 0).eval()
    longer = of_one_user(SPEC, 4, 1)
    longer["context.tags"] = torch.tensor([[1, 2, 3, 4, 4, 0, -1]]).repeat(4, 1)
    for batch in (*(of_one_user(SPEC, rows, seed) for rows, seed in ((1, 1), (4, 2), (50, 3))), longer):
        with torch.no_grad():
            user, items = (
                part(batch, "user", decomposition.user_keys),
                decomposition.item(part(batch, "item", decomposition.item_keys)),
            )
            pieces = (sessions.user(user) + items).split(decomposition.pieces, 1)
            found = sessions.rest(pieces, late(batch, decomposition))
            torch.testing.assert_close(found, model.logits(batch), atol=1e-5, rtol=1e-5)


def test_graphs_are_exported_once(kept: Path, monkeypatch: pytest.MonkeyPatch):
    """Those of other weights or of other code are others."""
    monkeypatch.setattr(onnx_sessions, "export", lambda *_, **__: pytest.fail("it was exported again"))
    given = small(kept)
    again, user = exported(*given), given[1]
    torch.testing.assert_close(again.user(user), given[0].user(user), atol=1e-6, rtol=0)
    assert not Sessions(*given, weights="another").exported
    code = inspect.getfile(type(given[0].model))
    (kept / "changed.py").write_text(Path(code).read_text() + "\n")
    of = inspect.getfile
    monkeypatch.setattr(
        inspect, "getfile", lambda kind: str(kept / "changed.py") if of(kind) == code else of(kind)
    )
    assert not Sessions(*given).exported


@pytest.mark.parametrize(("name", "keep"), [("rest.onnx", 100), ("rest.onnx.data", 8), ("user.onnx", 0)])
def test_graphs_that_are_damaged_are_exported_again(
    made: Path, kept: Path, monkeypatch: pytest.MonkeyPatch, name: str, keep: int
):
    given = small(kept)
    first = exported(*given)
    (place,) = (kept / "onnx").iterdir()
    whole = (place / name).read_bytes()
    (place / name).unlink()  # the first has it mapped
    (place / name).write_bytes(whole[:keep])
    monkeypatch.setattr(onnx_sessions, "export", copied(made))
    again = Sessions(*given)
    assert not again.exported
    again.export()
    torch.testing.assert_close(again.user(given[1]), first.user(given[1]), atol=0, rtol=0)
    assert [path.name for path in (kept / "onnx").iterdir()] == [place.name]
    assert (place / name).read_bytes() == whole


def test_graphs_that_cannot_be_kept_are_a_store_s_error(tmp_path: Path):
    (tmp_path / "onnx").write_text("")
    with pytest.raises(StoreError, match="graphs of the model cannot be written"):
        exported(*small(tmp_path))


def test_pytorch_runs_a_model_until_its_graphs_are_exported(
    bundle: mgoe.Bundle, graphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """And another process exports them, which says so if it cannot."""
    items = np.arange(-1, 30)
    scorer = Scorer(bundle, cache=tmp_path)
    assert scorer.awaits_graphs
    first = scorer.score(3, items)
    np.testing.assert_array_equal(first, Scorer(bundle, runtime=Runtime(engine="torch")).score(3, items))
    (tmp_path / "onnx").write_text("")
    with pytest.raises(StoreError, match=r"were not exported: .*graphs of the model cannot be written"):
        scorer.await_graphs()
    (tmp_path / "onnx").unlink()
    assert not scorer.awaits_graphs
    np.testing.assert_array_equal(scorer.score(3, items), first)
    assert not Scorer(bundle, cache=graphs).awaits_graphs  # a process exported them
    scorer = Scorer(bundle, cache=tmp_path)
    monkeypatch.setattr(scorer, "_export", lambda: shutil.copytree(graphs / "onnx", tmp_path / "onnx"))
    scorer.await_graphs()
    assert not scorer.awaits_graphs
    monkeypatch.setattr(scorer._steps, "_decomposition", None)  # PyTorch computes nothing
    np.testing.assert_allclose(scorer.score(3, items), first, atol=1e-5)


def test_few_graphs_are_kept(tmp_path: Path):
    places = [tmp_path / "onnx" / str(number) for number in range(onnx_sessions.MAX_GRAPHS + 3)]
    for age, place in enumerate(places):
        place.mkdir(parents=True)
        os.utime(place, (time.time() - age, time.time() - age))
    with onnx_sessions.new_graphs(new := tmp_path / "onnx" / "new"):
        pass
    assert {*(tmp_path / "onnx").iterdir()} == {*places[: onnx_sessions.MAX_GRAPHS - 1], new}


def test_the_command_compares_what_it_wrote_with_the_bundle(
    bundle: mgoe.Bundle, tmp_path: Path, capsys: pytest.CaptureFixture
):
    from mgoe.cli.app import app

    rng = np.random.default_rng(0)
    users, items = (
        getattr(bundle.encoders, side).ids(rng.integers(0, 90, 200)).to_pylist()
        for side in ("users", "items")
    )
    labels = {task: rng.integers(0, 2, 200) for task in bundle.tasks}
    data = bundle.settings.data
    pd.DataFrame({data.user: users, data.item: items} | labels).to_parquet(tmp_path / "pairs.parquet")
    out = tmp_path / "model.onnx"
    pairs = str(tmp_path / "pairs.parquet")
    app(["export", str(bundle.path), "--onnx", str(out), "--on", pairs, "--json"], standalone_mode=False)
    told = json.loads(capsys.readouterr().out)
    assert {file.name for file in tmp_path.iterdir()} == {"pairs.parquet", out.name, f"{out.name}.data"}
    auc = [row for row in told["compared"] if row["metric"] == "auc"]
    assert {row["task"] for row in auc} >= set(bundle.tasks)
    for row in auc:
        np.testing.assert_allclose(row["exported"], row["bundle"], atol=1e-3)
    found, expected = (
        one.predict(users, items)[list(bundle.tasks)] for one in (bundle.run_by(Session(out)), bundle)
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_neutral_row_fits_every_model():
    spec = make_spec()
    for settings in MODELS.values():
        assert make_model(settings, spec, 0).predict(neutral(spec)).isfinite().all()


TOLD = """
import os, pathlib, sys
from mgoe.serving.scoring.onnx_export import NEEDED, package
for name in NEEDED:
    package(name)
session = package("onnxruntime").SessionOptions()
print(os.environ["ORT_DISABLE_TELEMETRY"], *pathlib.Path.home().rglob("*"))
"""


def test_onnx_runtime_tells_its_maker_nothing(tmp_path: Path):
    """Without the variable it writes `.cache/Microsoft` while it is imported, and looks up a host."""
    dropped = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    told = subprocess.run(
        [sys.executable, "-c", TOLD], env=kept | {"HOME": str(tmp_path)},
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    assert told.stdout.split() == ["1"]


def test_onnx_runtime_is_imported_in_one_place():
    source = Path(mgoe.__file__).parent
    importing = re.compile(r"^\s*(import|from) onnxruntime|import_module\(.onnxruntime", re.MULTILINE)
    assert not [file for file in source.rglob("*.py") if importing.search(file.read_text(encoding="utf-8"))]
