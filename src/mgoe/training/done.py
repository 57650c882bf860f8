"""How far a fit is: all that its loop knows besides weights, and whether a checkpoint is of this fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from mgoe.errors import TrainingError

FREE = {"threads", "device", "memory", "checkpoint", "keep", "compile", "tables", "track"}
"""Settings of training that may change when a fit is gone on with."""


@dataclass
class Done:
    """What is behind a fit.

    Attributes:
        losses: Sum over the steps of the unfinished epoch, a task. Shape (T,).
        steps: In all.
        epochs: Finished, validation included.
        best, best_epoch: What validation preferred.
        last: What it said last.
        train_seconds: Of finished epochs, validation apart.
        epoch_seconds: Of the unfinished one.
        curves: An entry a finished epoch.
    """

    losses: Tensor
    steps: int = 0
    epochs: int = 0
    best: float | None = None
    best_epoch: int = 0
    last: float | None = None
    train_seconds: float = 0.0
    epoch_seconds: float = 0.0
    curves: list[dict[str, Any]] = field(default_factory=list)

    def end_epoch(self) -> None:
        """Count it as finished."""
        self.epochs += 1
        self.train_seconds += self.epoch_seconds
        self.epoch_seconds = 0.0
        self.losses.zero_()

    def numbers(self) -> dict[str, Any]:
        """All but the tensor, as JSON holds it."""
        return {part.name: getattr(self, part.name) for part in fields(self) if part.name != "losses"}


def check_same(place: Path, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """See that a checkpoint is of the fit that is about to go on.

    Raises:
        TrainingError: It is of another model, graph, number of examples, or of other settings.
    """
    for part in ours:
        here, there = ours[part], theirs.get(part)
        if here == there:
            continue
        if isinstance(here, Mapping) and isinstance(there, Mapping):
            name = next(name for name in sorted({*here, *there}) if here.get(name) != there.get(name))
            found = f"{name!r} is {there.get(name, 'missing')} there and {here.get(name, 'missing')} here"
        else:
            found = f"{there} there and {here} here"
        mend = "use the settings and the data that it was begun with, or --resume never to begin anew"
        raise TrainingError(place, f"the checkpoint is of another fit, found other {part}: {found}; {mend}")
