"""`doctor`: is this machine ready?"""

import importlib.metadata
import os
import platform
import re
import shutil
from pathlib import Path
from typing import Any

import psutil
import typer

from mgoe._util.extras import install
from mgoe._util.files import GIB
from mgoe.cli.shared import Json, facts, show, show_json

LEAST_MEMORY, LEAST_DISK = 3 * GIB, 2 * GIB
"""What an installation and `mgoe demo` need."""


def doctor(as_json: Json = False) -> None:
    """Check versions, extras, threads, memory, GPU and disk. Exit with code 1 if something is wrong."""
    required, extras = packages()
    memory = psutil.virtual_memory()
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {"mgoe": importlib.metadata.version("mgoe"), **required},
        "extras": extras,
        "threads": {"cores": count_cores()}
        | {name: os.environ[name] for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS") if name in os.environ},
        "memory": {"total_gib": round(memory.total / GIB, 1), "free_gib": round(memory.available / GIB, 1)},
        "gpu": gpu(),
        "disk": {"folder": str(Path.cwd()), "free_gib": round(shutil.disk_usage(Path.cwd()).free / GIB, 1)},
    }
    found["problems"] = problems(found)
    if as_json:
        show_json(found)
    else:
        show(facts({name: value for name, value in found.items() if name != "problems"}))
        for sentence in found["problems"]:
            show(f"problem: {sentence}")
    if found["problems"]:
        raise typer.Exit(1)


def count_cores() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def packages() -> tuple[dict[str, str | None], dict[str, str]]:
    """Return installed versions of the requirements (None if missing), and whether each extra is complete."""
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


def gpu() -> dict[str, Any]:
    """Return what torch finds."""
    try:
        import torch
    except Exception as error:  # a broken installation is what the command looks for
        return {"torch": f"cannot be imported: {error}"}
    names = (
        [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        if torch.cuda.is_available()
        else []
    )
    from mgoe.training import uses_bfloat16

    return {
        "found": names or "none, training runs on the CPU",
        "bfloat16_on_cpu": uses_bfloat16("auto", torch.device("cpu")),
    }


def problems(found: dict[str, Any]) -> list[str]:
    """Return one sentence per thing to fix."""
    wrong = [
        f"{name} is not installed; `{install()}` installs it"
        for name, version in found["versions"].items()
        if version is None
    ]
    if "torch" in found["gpu"]:
        wrong.append(f"torch {found['gpu']['torch']}; install it again")
    free = found["memory"]["free_gib"]
    if free * GIB < LEAST_MEMORY:
        wrong.append(f"{free} GiB of memory are free; close programs, small logs need {LEAST_MEMORY // GIB}")
    if found["disk"]["free_gib"] * GIB < LEAST_DISK:
        wrong.append(
            f"{found['disk']['free_gib']} GiB of disk are free; free space, results need {LEAST_DISK // GIB}"
        )
    return wrong


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
