"""Whether what the settings of training ask for is on this machine: said before hours of work, not after."""

from __future__ import annotations

from mgoe.config import TrainingSettings
from mgoe.training.balance import AGGREGATIONS, load_weighting
from mgoe.training.compiling import require_compiler
from mgoe.training.devices import resolve_device
from mgoe.training.track import TRACKERS


def check_available(settings: TrainingSettings) -> None:
    """See that the libraries and the compiler are there.

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
