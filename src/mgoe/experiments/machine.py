"""The machine that a cell is computed on, by name."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import torch


def processor_of(device: str) -> str:
    """Name of a GPU, or of the processor where the device is none."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    cpus = Path("/proc/cpuinfo")
    found = (
        re.search(r"^model name\s*:\s*(.+)$", cpus.read_text(encoding="utf-8"), re.MULTILINE)
        if cpus.exists()
        else None
    )
    return found[1].strip() if found else platform.processor() or platform.machine()
