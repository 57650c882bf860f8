"""How every benchmark measures: one line of JSON per figure, a child process with its peak memory, peers in
turn within one run.
"""

import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
THREADS = 2
"""Cores that every figure is measured on, ours and the peers'."""
GIB = 2**30
ROUNDS = 3
"""Of a comparison, whose medians count."""
_EVERY = 0.1  # seconds between looks at a child's memory
_ANONYMOUS, _MAPPED = ("RssAnon",), ("RssFile", "RssShmem")


def line(
    name: str, value: float, unit: str, against: float | None = None, ratio: float | None = None
) -> None:
    """Print one figure.

    Args:
        name: `benchmark.what.size`.
        value: What was measured.
        unit: Of the value.
        against: What it is compared with, measured in the same run and in the same unit.
        ratio: Of the two; which way round, the benchmark's own text says.
    """
    figure = {
        "name": name,
        "value": _short(value),
        "unit": unit,
        "against": _short(against),
        "ratio": _short(ratio),
    }
    print(json.dumps(figure), flush=True)


def _short(number: float | None) -> float | None:
    return (
        None if number is None or not math.isfinite(number) else float(f"{number:.5g}")
    )  # JSON has no other numbers


def size_name(size: float) -> str:
    """5e7 for 50 million."""
    mantissa, exponent = f"{size:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


@dataclass(frozen=True)
class Spent:
    """What a child process took.

    Attributes:
        seconds: From start to end, the start of Python included.
        anonymous_gib: Peak memory of its own, of the process and its children together.
        mapped_gib: Peak of file pages and shared memory in its address space; the system takes file pages
            back when it needs them.
        output: What it printed.
        cpu_seconds: Processor time of the process and of all below it, which other work on the machine
            changes less than it changes `seconds`. Processes that nobody waits for, such as Spark's workers,
            count up to the last look at them.
    """

    seconds: float
    anonymous_gib: float
    mapped_gib: float
    output: str
    cpu_seconds: float


def child(*command: str | Path, look: Callable[[int, float], None] | None = None) -> Spent:
    """Run a Python command in a process of its own, and watch its memory.

    Args:
        command: What follows `python`.
        look: Receives the number of the process and its anonymous memory in GiB, at every look at it.

    Raises:
        RuntimeError: It failed, or memory cannot be watched on this system.
    """
    if not Path("/proc/self/status").exists():
        raise RuntimeError("memory is read from /proc/PID/status: run benchmarks on Linux")
    threads = {f"{library}_NUM_THREADS": str(THREADS) for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
    arguments = [sys.executable, *map(str, command)]
    started, before = time.perf_counter(), child_seconds()
    peaks, used = (0.0, 0.0), 0.0
    with subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=os.environ | threads,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while True:
            with suppress(subprocess.TimeoutExpired):
                output, errors = process.communicate(timeout=_EVERY)
                break
            held = _memory(process.pid)
            peaks = tuple(map(max, peaks, held))
            used = max(used, running_seconds(process.pid))
            if look is not None:
                look(process.pid, held[0])
    seconds = time.perf_counter() - started
    if process.returncode:
        raise RuntimeError(
            f"`python {' '.join(arguments[1:])}` ended with code {process.returncode}: {errors[-2000:]}"
        )
    return Spent(seconds, peaks[0], peaks[1], output, max(used, child_seconds() - before))


def child_seconds() -> float:
    """Processor time of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def running_seconds(process: int) -> float:
    """Processor time of a running process and of all below it, those that have ended included."""
    used = 0.0
    with suppress(OSError):  # it ended meanwhile
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        used = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return used + sum(map(running_seconds, _children(process)))


def memory_of_each(process: int) -> dict[int, float]:
    """Anonymous memory of a process and of each below it, in GiB, by their numbers."""
    found = {process: _own_memory(process)[0]}
    for below in _children(process):
        found |= memory_of_each(below)
    return found


def _memory(process: int) -> tuple[float, float]:
    """Anonymous and other resident memory of a process and all below it, in GiB."""
    anonymous, mapped = _own_memory(process)
    for below in _children(process):
        more = _memory(below)
        anonymous, mapped = anonymous + more[0], mapped + more[1]
    return anonymous, mapped


def _own_memory(process: int) -> tuple[float, float]:
    anonymous = mapped = 0
    with suppress(OSError):  # it ended meanwhile
        fields = dict(row.split(":", 1) for row in Path(f"/proc/{process}/status").read_text().splitlines())
        anonymous, mapped = (
            sum(int(fields.get(name, "0").split()[0]) for name in names) for names in (_ANONYMOUS, _MAPPED)
        )
    return anonymous * 1024 / GIB, mapped * 1024 / GIB


def _children(process: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{process}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def in_turn(runs: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Run peers one after the other, each round in the reverse order of the one before.

    Args:
        runs: Each returns its seconds.
        rounds: How often each runs.

    Returns:
        The median of each.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        for name in list(runs)[:: 1 if number % 2 == 0 else -1]:
            seconds[name].append(runs[name]())
    return {name: median(values) for name, values in seconds.items()}


def use_cores(count: int = THREADS) -> None:
    """Keep this process and its children to so many cores, whatever the machine has."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def folder_bytes(folder: Path) -> int:
    """Size of all files below a folder; one that stands there by several links counts once."""
    found = [file.stat() for file in folder.rglob("*") if file.is_file()]
    return sum({one.st_ino: one.st_size for one in found}.values())
