"""How a service starts: what it imports, and that it compiles its kernels before requests need them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

for _name in ("fastapi", "onnxruntime", "onnxscript", "orjson", "prometheus_client", "uvicorn"):
    pytest.importorskip(_name, reason=f"{_name} is not installed: pip install 'mgoe[serve]'")

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
from mgoe.serving.events.sqlite_log import SqliteLog

def compiled():
    kernels = [one for one in gc.get_objects() if isinstance(one, Dispatcher)]
    return {kernel.py_func.__name__: len(kernel.signatures) for kernel in kernels}

log = SqliteLog(Path(sys.argv[2]) / "log.sqlite")
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
