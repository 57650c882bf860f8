"""`doctor`: is this machine ready."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
from pathlib import Path
from typing import Any

import typer

from mgoe._util.files import GIB
from mgoe.cli.show import Json, facts, say, show, show_json

LEAST_MEMORY, LEAST_DISK = 2 * GIB, 2 * GIB
"""What `make demo` needs, with room to spare."""


def doctor(as_json: Json = False) -> None:
    """Check versions, extras, threads, memory, GPU and disk; exit code 1 where something is amiss."""
    required, extras = packages()
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {"mgoe": importlib.metadata.version("mgoe"), **required},
        "extras": extras,
        "threads": threads(),
        "memory": memory(),
        "gpu": gpu(),
        "sharded tables": sharding(),
        "disk": {"folder": str(Path.cwd()), "free GiB": round(shutil.disk_usage(Path.cwd()).free / GIB, 1)},
    }
    found["amiss"] = amiss(found)
    if as_json:
        show_json(found)
    else:
        show(facts({name: value for name, value in found.items() if name != "amiss"}))
        for sentence in found["amiss"]:
            say(f"amiss: {sentence}")
    if found["amiss"]:
        raise typer.Exit(1)


def packages() -> tuple[dict[str, str | None], dict[str, str]]:
    """Installed versions of what is required (None where missing), and of each extra whether it is whole."""
    required: dict[str, str | None] = {}
    extras: dict[str, list[str]] = {}
    for line in importlib.metadata.requires("mgoe") or []:
        name = re.split(r"[^A-Za-z0-9_.-]", line, maxsplit=1)[0]
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", line)
        if extra is None:
            required[name] = _version(name)
        else:
            extras.setdefault(extra.group(1), []).extend([name] if _version(name) is None else [])
    return required, {
        name: f"missing {', '.join(missing)}" if missing else "installed" for name, missing in extras.items()
    }


def threads() -> dict[str, Any]:
    """Cores this process may use, and what limits its libraries."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cores": cores,
        **{name: os.environ[name] for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS") if name in os.environ},
    }


def memory() -> dict[str, float | None]:
    """GiB in all, and free where the system says."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else None
    report = Path("/proc/meminfo")
    free = re.search(r"MemAvailable:\s+(\d+)", report.read_text()) if report.exists() else None
    return {
        "GiB": round(pages / GIB, 1) if pages else None,
        "free GiB": round(int(free.group(1)) * 1024 / GIB, 1) if free else None,
    }


def gpu() -> dict[str, Any]:
    """What torch sees."""
    try:
        import torch
    except (
        Exception
    ) as error:  # a broken installation fails in ways of its own, and is what we are asked about
        return {"torch": f"cannot be imported: {error}"}
    names = (
        [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        if torch.cuda.is_available()
        else []
    )
    from mgoe.training import uses_bfloat16

    return {
        "found": names or "none, training runs on the CPU",
        "bfloat16 on the CPU": uses_bfloat16("auto", torch.device("cpu")),
    }


def sharding() -> dict[str, str | None]:
    """Versions of the pair that spreads tables over processes, and whether it loads."""
    pair = {name: _version(name) for name in ("torchrec", "fbgemm-gpu-cpu", "fbgemm-gpu")}
    if not any(pair.values()):
        return {"torchrec": "not installed; `make distributed` installs it"}
    try:
        from mgoe.training.distributed.sharded import torchrec

        torchrec()
    except Exception as error:  # as above
        return {**pair, "trouble": str(error)}
    return {name: version for name, version in pair.items() if version}


def amiss(found: dict[str, Any]) -> list[str]:
    """A sentence for each thing to mend."""
    wrong = [
        f"{name} is not installed; `pip install -e .` installs it"
        for name, version in found["versions"].items()
        if version is None
    ]
    if "torch" in found["gpu"]:
        wrong.append(f"torch {found['gpu']['torch']}; install it again")
    if "trouble" in found["sharded tables"]:
        wrong.append(found["sharded tables"]["trouble"])
    free = found["memory"]["free GiB"]
    if free is not None and free * GIB < LEAST_MEMORY:
        wrong.append(
            f"{free} GiB of memory are free; close something, {LEAST_MEMORY // GIB} are needed for small logs"
        )
    if found["disk"]["free GiB"] * GIB < LEAST_DISK:
        wrong.append(
            f"{found['disk']['free GiB']} GiB of disk are free; make room, results need {LEAST_DISK // GIB}"
        )
    return wrong


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
