"""How long a promotion takes to answer, and what it costs the requests meanwhile.

    python benchmarks/swap.py OUT [--users 50000] [--items 20000] [--workers 2] [--nice 10] [--cold]

A service follows a registry under a constant load of rankings, and every core has a process that trains. Then
two versions with different graphs and weights are promoted in turn. `mgoe registry test` and `mgoe cycle`
prepare what they test; `--cold` promotes a version once that nobody has prepared.

- `swap.ready_s`: from the start of the service until `/readyz` answers 200.
- `swap.first_s`, `swap.all_s`: from a promotion to the first answer of the new version, and to the last one
  of the old version; medians of the rounds, and the longest as `against`.
- `swap.p50_ms`, `swap.p99_ms`: of requests between the promotions and `swap.all_s`, against those before.
  A request counts from when it was due, so one that waits delays those behind it.
- `swap.worker_gib`, `swap.supervisor_gib`: own memory of one worker and of the process that started it,
  without mapped files, at most, against before the first promotion.

OUT keeps the bundles for the next call.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import GIB, line
from benchmarks.served import id_of, made_up_bundle
from benchmarks.service import free_port, wait
from mgoe.bundle import Bundle
from mgoe.lifecycle import Registry
from mgoe.serving.scoring.onnx_process import prepare

CLIENTS, PAUSE = 8, 0.125
"""Connections, and seconds between the requests of each."""
CANDIDATES = 200
SETTLE, BEFORE, AFTER, LONGEST = 3.0, 15.0, 5.0, 300.0
"""Seconds: to settle, that are measured before a promotion, without an answer of the old version after it,
and at most."""
TRAINING = """
import os, torch
os.nice(int(os.environ["NICE"]))
torch.set_num_threads(1)
model = torch.nn.Sequential(torch.nn.Linear(256, 512), torch.nn.ReLU(), torch.nn.Linear(512, 1))
optimizer = torch.optim.Adam(model.parameters())
while True:
    loss = model(torch.randn(1024, 256)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""


class Answer(NamedTuple):
    """What a client has seen of a request: when it was due, seconds until its answer, and who answered."""

    due: float
    seconds: float
    version: str

    @property
    def moment(self) -> float:
        """When the answer came."""
        return self.due + self.seconds


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--nice", type=int, default=10, help="of the training, as of mgoe-cycle.service")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cold", action="store_true")
    given = parser.parse_args()
    users = given.users, given.users + given.users // 50
    bundles = [given.out / str(number) / "mgoe" for number in users]
    for bundle, number in zip(bundles, users, strict=True):
        if not bundle.exists():
            made_up_bundle(bundle.parent, number, given.items)
    work = given.out / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    registry = Registry(work / "bundles")
    first, second = (registry.add(bundle) for bundle in bundles)
    registry.promote(first)
    for version in () if given.cold else (first, second):
        prepare(Bundle.open(registry.place(version), verify=False))
    measure(registry, (first, second), given, work)


def measure(registry: Registry, versions: tuple[str, str], given: argparse.Namespace, work: Path) -> None:
    """Start a service, promote versions in turn, and print the figures."""
    port, begun = free_port(), time.perf_counter()
    options = ["--port", str(port), "--state", str(work / "state"), "--workers", str(given.workers)]
    command = [sys.executable, "-m", "mgoe", "serve", str(registry.path / "current"), *options]
    with (work / "service.log").open("w") as log:
        service = subprocess.Popen([*command, "--no-access-log"], stdout=log, stderr=log)
    try:
        while not is_ready(port):
            if service.poll() is not None:
                raise RuntimeError(f"the service ended: see {log.name}")
            time.sleep(0.05)
        line("swap.ready_s", time.perf_counter() - begun, "s")
        wait(port, "/readyz")
        calm, busy = list[float](), list[float]()
        swaps, peaks = list[tuple[float, float]](), list[dict[str, float]]()
        with training(given.nice), clients(port, given) as answers, watched(service.pid) as held:
            for number in range(1 if given.cold else given.rounds):
                begun = time.monotonic() + SETTLE
                time.sleep(SETTLE + BEFORE)
                peaks.append(held())
                version, promoted = versions[1 - number % 2], time.monotonic()
                registry.promote(version, force="a measurement")
                end = swapped(answers, version, promoted)
                swaps.append((first_of(answers, version, promoted) - promoted, end - promoted))
                calm += [one.seconds for one in answers if begun <= one.due < promoted]
                busy += [one.seconds for one in answers if promoted <= one.due < end]
            peaks.append(held())
        for name, seconds in zip(("first", "all"), zip(*swaps, strict=True), strict=True):
            line(f"swap.{name}_s", median(seconds), "s", max(seconds))
        for name, quantile in (("p50", 0.5), ("p99", 0.99)):
            values = [float(np.quantile(one, quantile) * 1e3) for one in (busy, calm)]
            line(f"swap.{name}_ms", values[0], "ms", values[1], values[0] / values[1])
        for name in ("worker", "supervisor"):
            line(f"swap.{name}_gib", peaks[-1][name], "GiB", peaks[0][name])
    finally:
        service.terminate()
        service.wait(60)


def first_of(answers: Sequence[Answer], version: str, since: float) -> float:
    """Return when a version has first answered after a moment; infinity if it has not."""
    found = (one.moment for one in answers if one.version == version and one.due >= since)
    return min(found, default=float("inf"))


def swapped(answers: Sequence[Answer], version: str, since: float) -> float:
    """Wait until a version alone answers. Return when another has last answered."""
    while time.monotonic() < since + LONGEST:
        time.sleep(0.5)
        last = max((one.moment for one in list(answers) if one.version != version), default=since)
        if first_of(list(answers), version, since) < float("inf") and time.monotonic() > last + AFTER:
            return last
    raise RuntimeError(f"the version was not taken within {LONGEST:g} s: see service.log")


def is_ready(port: int) -> bool:
    """Return whether `/readyz` answers 200."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@contextmanager
def training(nice: int) -> Iterator[None]:
    """Keep every core busy with a small training while the block runs."""
    environment = os.environ | {"NICE": str(nice), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen([sys.executable, "-c", TRAINING], env=environment)
        for _ in range(len(os.sched_getaffinity(0)))
    ]
    try:
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()


@contextmanager
def clients(port: int, given: argparse.Namespace) -> Iterator[list[Answer]]:
    """Ask for rankings at a constant rate while the block runs."""
    answers, stop, broken = list[Answer](), threading.Event(), list[BaseException]()

    def ask(number: int) -> None:
        rng = np.random.default_rng(number)
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        due = time.monotonic() + PAUSE * number / CLIENTS
        while not stop.wait(max(0.0, due - time.monotonic())):
            candidates = id_of(rng.integers(0, given.items, CANDIDATES)).tolist()
            body = {"user": int(id_of(rng.integers(0, given.users))), "candidates": candidates, "k": 10}
            connection.request("POST", "/v1/rank", json.dumps(body), {"content-type": "application/json"})
            answer = connection.getresponse()
            said = json.loads(answer.read())
            if answer.status != 200:
                raise RuntimeError(f"every answer must be 200, found {answer.status}: {said}")
            answers.append(Answer(due, time.monotonic() - due, said["bundle"]))
            due += PAUSE

    def run(number: int) -> None:
        try:
            ask(number)
        except BaseException as error:
            broken.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if broken:
        raise broken[0]


@contextmanager
def watched(service: int) -> Iterator[Callable[[], dict[str, float]]]:
    """Watch the memory of a service while the block runs; yield a function that returns the peaks so far."""
    peaks, stop = {"worker": 0.0, "supervisor": 0.0}, threading.Event()

    def look() -> None:
        while not stop.wait(0.5):
            found = [own_memory(one.pid) for one in workers(service)] or [own_memory(service)]
            peaks["worker"] = max(peaks["worker"], median(found))
            peaks["supervisor"] = max(peaks["supervisor"], own_memory(service))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield lambda: dict(peaks)
    finally:
        stop.set()
        thread.join()


def own_memory(process: int) -> float:
    """Return the memory of a process in GiB, from counters: a walk over its pages would stop it meanwhile."""
    fields = dict(row.split(":", 1) for row in Path(f"/proc/{process}/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024 / GIB


def workers(service: int) -> list[psutil.Process]:
    """Return the processes that answer, apart from those that export a graph or track resources."""
    found = psutil.Process(service).children()
    return [one for one in found if "spawn_main" in " ".join(one.cmdline())]


if __name__ == "__main__":
    main()
