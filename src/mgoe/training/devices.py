"""What training needs of a machine: its device, precision, libraries and allocator."""

import ctypes
import sys
from functools import cache
from typing import Literal

import torch

from mgoe.config import TrainingSettings
from mgoe.errors import TrainingError
from mgoe.training.progress import load_mlflow

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
"""Numbers of glibc's settings, see mallopt(3)."""
LARGEST = (1 << 26, 1 << 25)
"""Bytes of the largest block that is kept; larger ones are returned to the system. The second is for old
versions of glibc."""
KEPT = 1 << 29
"""Largest number of free bytes that are kept."""
GROWTH = 1 << 26
"""Bytes that are requested at a time."""


def resolve_device(name: str) -> torch.device:
    """Return the device of `training.device`; `auto` takes a GPU if there is one.

    A GPU has its number, since without it each thread uses its own default.

    Raises:
        TrainingError: This machine has no such device.

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cpu":
        return device
    if (device.index or 0) >= torch.cuda.device_count():
        raise TrainingError(
            "training.device",
            f"{name!r} needs a GPU that is not there ({torch.cuda.device_count()} found); use auto or cpu",
        )
    return device if device.index is not None else torch.device("cuda", torch.cuda.current_device())


def uses_bfloat16(precision: Literal["auto", "float32", "bfloat16"], device: torch.device) -> bool:
    """Return whether matrix products run in bfloat16.

    `auto`: only where the hardware supports it; emulation is slower.

    Example:
        >>> uses_bfloat16("float32", torch.device("cpu"))
        False
    """
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )


def check_available(settings: TrainingSettings) -> None:
    """Check that the libraries exist.

    Raises:
        MissingExtra: A library is not installed.

    Example:
        >>> from mgoe.config import TrainingSettings
        >>> check_available(TrainingSettings(device="cpu"))
    """
    if settings.track == "mlflow":
        load_mlflow()


@cache
def keep_freed_memory() -> None:
    """Make this process keep the memory that it frees, since every step allocates blocks of some megabytes
    again. Acts once per process.

    By default glibc returns each block to the system and requests it again, page by page, and the kernel
    clears every page: a third of a step on a CPU. Other allocators keep blocks by themselves. Environment
    variables such as `MALLOC_TRIM_THRESHOLD_` have the same effect for a process as a whole.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    if mallopt is not None and any(mallopt(MMAP_THRESHOLD, largest) for largest in LARGEST):
        mallopt(TRIM_THRESHOLD, KEPT)
        mallopt(TOP_PAD, GROWTH)
