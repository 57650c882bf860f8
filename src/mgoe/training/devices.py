"""What training needs of a machine: its device, its precision, its compiler and its libraries."""

from typing import Literal

import torch

from mgoe.config import TrainingSettings
from mgoe.errors import TrainingError
from mgoe.training.balance import AGGREGATIONS, load_weighting
from mgoe.training.compiling import require_compiler
from mgoe.training.track import LIBRARIES, load_tracker

Precision = Literal["auto", "float32", "bfloat16"]


def resolve_device(name: str) -> torch.device:
    """Return the device of `training.device`; `auto` takes a GPU if there is one.

    A GPU has its number, since without it each thread uses its own default.

    Raises:
        TrainingError: The name is not cpu, cuda or cuda:N, or this machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise TrainingError("training.device", f"must be auto, cpu, cuda or cuda:N, found {name!r}")
    if device.type == "cpu":
        return device
    if (device.index or 0) >= torch.cuda.device_count():
        raise TrainingError(
            "training.device",
            f"{name!r} needs a GPU that is not there ({torch.cuda.device_count()} found); use auto or cpu",
        )
    return device if device.index is not None else torch.device("cuda", torch.cuda.current_device())


def uses_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Return whether matrix products run in bfloat16.

    `auto`: only where the hardware supports it; emulation is slower.
    """
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )


def check_available(settings: TrainingSettings) -> None:
    """Check that the libraries, the compiler and the device exist.

    Raises:
        MissingExtra: A library is not installed.
        TrainingError: There is no compiler, or no such device.
    """
    if settings.balance in AGGREGATIONS:
        load_weighting(settings.balance)
    if settings.track in LIBRARIES:
        load_tracker(settings.track)
    if settings.compile:
        require_compiler(resolve_device(settings.device))
