"""How much memory there is, and how much this process takes."""

from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")
"""Where a container's limit is written."""


def available_memory() -> int:
    """Return the bytes that a process may still take: those of the machine, or of its container if that has
    less.
    """
    free = psutil.virtual_memory().available
    limit, used = CGROUP / "memory.max", CGROUP / "memory.current"
    if limit.exists() and used.exists() and limit.read_text().strip().isdigit():
        free = min(free, max(0, int(limit.read_text()) - int(used.read_text())))
    return free


def anonymous_memory() -> int:
    """Return the bytes of memory of this process that no file backs."""
    found = psutil.Process().memory_info()
    return found.rss - getattr(found, "shared", 0)  # "shared" counts resident file pages and shared memory
