"""How much memory there is, and how much this process takes."""

from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")
"""Where a container's limit is written."""


def available_memory() -> int:
    """Return the bytes that a process may still take: those of the machine, or of its container if that has
    less.
    """
    left = _of_container("memory.max", float("inf")) - _of_container("memory.current", 0)
    return int(min(psutil.virtual_memory().available, max(0, left)))


def machine_memory() -> int:
    """Return the bytes of memory of the machine, or of its container if that has less."""
    return int(min(psutil.virtual_memory().total, _of_container("memory.max", float("inf"))))


def _of_container(name: str, otherwise: float) -> float:
    file = CGROUP / name
    return int(text) if file.exists() and (text := file.read_text().strip()).isdigit() else otherwise


def anonymous_memory() -> int:
    """Return the bytes of memory of this process that no file backs."""
    found = psutil.Process().memory_info()
    return found.rss - getattr(found, "shared", 0)  # "shared" counts resident file pages and shared memory
