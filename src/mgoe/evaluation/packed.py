"""An influence in a few kilobytes of text: what a table needs of a cell, so that it can stand in one far from where it was fitted.

Influences are rounded to 32,767 steps of the largest of their metric; values are kept as they are. A lead is a difference of influences
that are nearly equal, of which one user in a long tail can be the largest: of fewer steps (lines of earlier versions have 127) an interval
shows the rounding.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgoe.evaluation.influence import Influence

STEPS = np.iinfo(np.int16).max
STEPS_BEFORE = np.iinfo(np.int8).max
"""Of lines that do not say."""


def pack(influence: Influence) -> dict[str, Any]:
    """As plain values. The influence must be dealt: its users are then numbers from 0 on."""
    largest = np.abs(influence.parts).max(0, initial=0)  # (M,), NaN where nothing is known of chance
    steps = np.divide(STEPS, largest, out=np.zeros_like(largest), where=largest > 0)
    parts = np.rint(np.nan_to_num(influence.parts * steps)).astype("<i2")
    return {
        "metrics": [".".join(name) for name in influence.names],
        "values": _without_nan(influence.values),
        "largest": _without_nan(largest),
        "groups": len(parts),
        "steps": STEPS,
        "parts": base64.b64encode(parts.tobytes()).decode(),
    }


def unpack(packed: Mapping[str, Any]) -> Influence:
    """The inverse of `pack`, but for the rounding.

    Raises:
        ValueError, TypeError, KeyError: It is not what `pack` gives.
    """
    names = tuple((task, metric) for task, _, metric in (name.rpartition(".") for name in packed["metrics"]))
    values, largest = (
        np.array(packed[name], np.float64) for name in ("values", "largest")
    )  # None becomes NaN
    steps = packed.get("steps", STEPS_BEFORE)
    held = np.frombuffer(
        base64.b64decode(packed["parts"]), {STEPS: "<i2", STEPS_BEFORE: "i1"}[steps]
    ).reshape(packed["groups"], len(names))
    return Influence(names, values, np.arange(len(held)), (held * (largest / steps)).astype(np.float32))


def _without_nan(numbers: NDArray[np.floating]) -> list[float | None]:
    return [None if np.isnan(number) else float(number) for number in numbers]
