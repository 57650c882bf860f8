"""A real `mgoe serve` on loopback: the service runs on the first core, the benchmark on the last one."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import psutil

from benchmarks.measure import GIB, ROOT

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]


@contextmanager
def service(bundle: Path, work: Path, *options: str) -> Iterator[tuple[int, int]]:
    """Start `mgoe serve` with an empty log of events and stop it when the block ends.

    Args:
        bundle: The bundle to serve.
        work: Folder of the service's state and of what it prints.
        options: More of the command line.

    Yields:
        The service's port and the number of its process.
    """
    shutil.rmtree(work / "state", ignore_errors=True)
    port = free_port()
    where = "--port", str(port), "--state", str(work / "state")
    with started("-m", "mgoe", "serve", str(bundle), *where, *options, work=work) as number:
        wait(port, "/readyz")
        yield port, number


@contextmanager
def started(*command: str, work: Path) -> Iterator[int]:
    """Start a Python process on the first core, move this one to the last core, and yield its number."""
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
    on_core(CORES[0])
    with (work / "service.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=os.environ | threads, stdout=log, stderr=log
        )
    on_core(CORES[-1])
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def memory(process: int) -> dict[str, float]:
    """Return the memory of a process in GiB.

    Returns:
        All of it (`rss`), its share of what several processes map (`pss`), its own (`own`), and pages of
        files, which workers have in common (`files`). Empty where the system does not say.
    """
    if not (rollup := Path(f"/proc/{process}/smaps_rollup")).exists():
        return {}
    fields = dict(row.split(":", 1) for row in rollup.read_text().splitlines()[1:])
    rss, pss, own = (int(fields[name].split()[0]) * 1024 / GIB for name in ("Rss", "Pss", "Anonymous"))
    return {"rss": rss, "pss": pss, "own": own, "files": rss - own}


def cpu_seconds(process: int) -> float:
    """Return the processor time that a process has used since its start."""
    used = psutil.Process(process).cpu_times()
    return used.user + used.system


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def on_core(core: int) -> None:
    """Move this process to a core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def wait(port: int, path: str, seconds: float = 600) -> None:
    """Wait until a service answers with 200, and does not say that it is still starting."""
    end = time.monotonic() + seconds
    while True:
        try:
            with urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                if b"starting" not in answer.read():
                    return
        except OSError:
            pass
        if time.monotonic() > end:
            raise RuntimeError(f"no answer from port {port}: see service.log")
        time.sleep(0.2)


def check_all_ok(status: list[int]) -> None:
    """Refuse figures of a load in which not every answer was 200."""
    if set(status) != {200}:
        raise RuntimeError(f"every answer must be 200, found {sorted(set(status))}")
