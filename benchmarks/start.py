"""How long a service takes to start, first and again, and the command to say what it can do.

    python benchmarks/start.py BUNDLE [--rounds 3]

A first start finds no compiled kernels, no exported graphs and no index, as on a fresh machine; files that
the system has read before may be in memory. Each start is timed until `/readyz` answers 200.

- `serve.start.first_s`, `serve.start.first_cpu_s`: seconds, and processor seconds of the service.
- `serve.start.prepared_s`: from the start until nothing is left to compile or export: events no longer wait,
  and ONNX Runtime runs the model.
- `serve.start.warm_s`, `serve.start.warm_cpu_s`: the next start.
- `serve.start.kernels_mib`, `serve.start.graphs_mib`: what is cached.
- `cli.help_s`: `mgoe --help`.

Medians of the rounds.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from urllib.error import URLError
from urllib.request import urlopen

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import line
from benchmarks.service import cpu_seconds, free_port

MIB = 2**20


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory() as scratch:
            measure(given.bundle, Path(scratch), found)
    for name, values in found.items():
        line(name, median(values), "MiB" if name.endswith("_mib") else "s")


def measure(bundle: Path, work: Path, found: dict[str, list[float]]) -> None:
    """Start twice in an empty folder, and add the figures."""
    for name in ("first", "warm"):
        started = start(bundle, work)
        for figure in ("s", "cpu_s"):
            found[f"serve.start.{name}_{figure}"].append(started[figure])
        if name == "first":
            found["serve.start.prepared_s"].append(started["prepared_s"])
    for name, folder in (("kernels", work / "kernels"), ("graphs", work / "state" / "onnx")):
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        found[f"serve.start.{name}_mib"].append(size / MIB)
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-m", "mgoe", "--help"], check=True, stdout=subprocess.DEVNULL)
    found["cli.help_s"].append(time.perf_counter() - begun)


def start(bundle: Path, work: Path) -> dict[str, float]:
    """Start a service, wait until it is prepared, and stop it."""
    port, begun = free_port(), time.perf_counter()
    command = ["serve", str(bundle), "--port", str(port), "--state", str(work / "state")]
    with (work / "service.log").open("w") as log:
        service = subprocess.Popen(
            [sys.executable, "-m", "mgoe", *command],
            env=os.environ | {"NUMBA_CACHE_DIR": str(work)}, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        until(lambda: ready(port) is not None)
        figures = {"s": time.perf_counter() - begun, "cpu_s": cpu_seconds(service.pid)}
        until(lambda: "starting" not in (ready(port) or "starting"))
        return figures | {"prepared_s": time.perf_counter() - begun}
    finally:
        service.terminate()
        service.wait(60)


def ready(port: int) -> str | None:
    """Return what `/readyz` has to say beside 200; None if it does not answer."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return json.loads(answer.read())["detail"] or "nothing"
    except (URLError, OSError):
        return None


def until(true: Callable[[], bool], seconds: float = 300) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise RuntimeError("the service did not start: see service.log")
        time.sleep(0.02)


if __name__ == "__main__":
    main()
