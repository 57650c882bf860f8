"""How a service starts: what it imports, and that it compiles its kernels before requests need them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mgoe.bundle import Bundle
from mgoe.errors import StoreError
from mgoe.serving.events.log import ServiceLog
from mgoe.serving.online import base_values
from mgoe.serving.scoring import onnx_process
from mgoe.serving.scoring.engine import Engine

for _name in ("fastapi", "onnxruntime", "onnxscript", "orjson", "prometheus_client", "uvicorn"):
    pytest.importorskip(_name, reason=f"{_name} is not installed: pip install -e '.[serve]'")

SLOW = ("sklearn", "faiss", "scipy.optimize", "torch._dynamo", "onnx", "onnxscript")
"""What building graphs, fitting and exporting need, and a service that finds its graphs does not."""
PROGRAM = """
import gc, json, sys, time
import mgoe.serving.http.service
mgoe.load(sys.argv[1]).model
imported = [name for name in sys.argv[3:] if name in sys.modules]
from pathlib import Path
import numpy as np
from numba.core.dispatcher import Dispatcher
from mgoe.retrieval import known_items
from mgoe.serving.scoring.engine import Engine
from mgoe.serving.scoring.runtime import Runtime
from mgoe.serving.events.event import Event
from mgoe.serving.events.log import ServiceLog

def compiled():
    kernels = [one for one in gc.get_objects() if isinstance(one, Dispatcher)]
    return {kernel.py_func.__name__: len(kernel.signatures) for kernel in kernels}

log = ServiceLog(Path(sys.argv[2]) / "log.sqlite")
engine = Engine(Path(sys.argv[1]), log, runtime=Runtime(engine="torch"))
engine.prepare()
ready = compiled()
assert engine.live.stats["events"] == 0
known = {side: engine.live.ids(side, np.arange(2)) for side in ("user", "item")}
now = time.time_ns() // 1000
pairs = [(user, item) for user in (*known["user"], 10**9) for item in (known["item"][0], 10**9)]
log.append([Event(user, item, "buy", now, None) for user, item in pairs])
engine.catch_up()
for user in (10**9, known["user"][0]):
    index = int(engine.live.look_up("user", [user])[0])
    for items in (np.arange(-1, engine.scorer.n_items), np.arange(1)):
        engine.scorer.score(index, items)
    with engine.scorer.reading() as view:
        known_items(view, index)
new = {name: n for name, n in compiled().items() if n != ready.get(name, 0)}
print(json.dumps({"imported": imported, "events": engine.live.stats["events"], "new": new}))
"""


def test_a_service_imports_nothing_slow_and_compiles_nothing_once_it_is_prepared(
    finished: Path, tmp_path: Path
):
    asked = [sys.executable, "-c", PROGRAM, str(finished / "bundle"), str(tmp_path), *SLOW]
    found = json.loads(subprocess.run(asked, check=True, capture_output=True, text=True).stdout)
    assert found == {"imported": [], "events": 6, "new": {}}


def test_a_service_takes_what_was_prepared_beside_a_version_and_only_reads_it(
    own: Path, graphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """So a registry may be mounted read-only, and several services may have a state of their own."""

    def export(_: Bundle, folder: Path) -> None:
        shutil.copytree(graphs / "onnx", folder / "onnx")

    monkeypatch.setattr(onnx_process, "export_elsewhere", export)
    onnx_process.prepare(Bundle.open(own))
    made = {path: path.stat().st_mtime_ns for path in own.with_name("own.prepared").rglob("*")}
    for state in (tmp_path / "one", tmp_path / "other"):
        log = ServiceLog(state / "log.sqlite")
        with monkeypatch.context() as patch:
            patch.setattr(base_values, "_write_index", lambda *_: pytest.fail("an index is made again"))
            engine = Engine(own, log, state)
        assert not engine.scorer.awaits_graphs
        assert not [*state.glob("onnx"), *state.glob("index-*")]
        log.close()
    assert made == {path: path.stat().st_mtime_ns for path in own.with_name("own.prepared").rglob("*")}
    for damaged in own.with_name("own.prepared").rglob("*"):
        if damaged.is_file():
            damaged.unlink()
    log = ServiceLog(tmp_path / "log.sqlite")
    assert Engine(own, log, tmp_path).scorer.awaits_graphs
    assert [*tmp_path.glob("index-*")]
    log.close()


def test_a_version_that_cannot_be_prepared_is_left_to_its_services(
    own: Path, monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture
):
    def refuse(*_: object) -> None:
        raise StoreError("graphs", "the model cannot be exported")

    monkeypatch.setattr(onnx_process, "export_elsewhere", refuse)
    onnx_process.prepare(Bundle.open(own))
    assert "is not prepared, so its services take longer to take it: graphs: the model" in said.text
