"""Check before hours of work whether this machine has what the settings of training need."""

from __future__ import annotations

from mgoe.config import TrainingSettings
from mgoe.training.balance import AGGREGATIONS, load_weighting
from mgoe.training.compiling import require_compiler
from mgoe.training.devices import resolve_device
from mgoe.training.track import TRACKERS


def check_available(settings: TrainingSettings) -> None:
    """Check that the libraries, the compiler and the device exist.

    Raises:
        MissingExtra: A library is not installed.
        TrainingError: There is no compiler, or no such device.
    """
    if settings.balance in AGGREGATIONS:
        load_weighting(settings.balance)
    if settings.track in TRACKERS:
        TRACKERS[settings.track].load()
    if settings.compile:
        require_compiler(resolve_device(settings.device))
