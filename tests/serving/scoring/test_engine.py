"""A service compiles its kernels before requests need them: no request waits for a compiler."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

for _name in ("onnxruntime", "onnxscript", "orjson"):
    pytest.importorskip(_name, reason=f"{_name} is not installed: pip install 'mgoe[serve]'")

PROGRAM = """
import gc, json, sys, time
from pathlib import Path
import numpy as np
from numba.core.dispatcher import Dispatcher
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
    engine.live.known_items(index)
new = {name: n for name, n in compiled().items() if n != ready.get(name, 0)}
print(json.dumps({"events": engine.live.stats["events"], "new": new}))
"""


def test_nothing_is_compiled_once_a_service_is_prepared(finished: Path, tmp_path: Path):
    asked = [sys.executable, "-c", PROGRAM, str(finished / "bundle"), str(tmp_path)]
    found = json.loads(subprocess.run(asked, check=True, capture_output=True, text=True).stdout)
    assert found == {"events": 6, "new": {}}
