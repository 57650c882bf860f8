"""How much memory a process may still take."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def free_memory(device: torch.device) -> int | None:
    """Bytes a process may take of the device, where `torchrun` started several on the machine and each takes as much.

    None where the system does not say.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = re.search(r"MemAvailable:\s+(\d+)", MEMINFO.read_text()) if MEMINFO.exists() else None
    free = [int(found.group(1)) * 1024] if found else []
    limit, used = CGROUP / "memory.max", CGROUP / "memory.current"
    if limit.exists() and used.exists() and limit.read_text().strip().isdigit():
        free.append(max(0, int(limit.read_text()) - int(used.read_text())))
    return min(free) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if free else None
