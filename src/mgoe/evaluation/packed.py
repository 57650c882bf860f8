"""Pack an influence into a few kilobytes of text, so that a table can be computed far from where a model was
fitted.

Influences are rounded to 32,767 steps of the largest one of their metric; values are kept exactly. A lead is
a difference of influences that are nearly equal, so with fewer steps the rounding would show in its
interval."""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgoe.evaluation.influence import Influence

STEPS = np.iinfo(np.int16).max
STEPS_BEFORE = np.iinfo(np.int8).max
"""Of lines without `steps`."""


def pack(influence: Influence) -> dict[str, Any]:
    """Return an influence as plain values. Its users must be groups numbered from 0, see `group_users`."""
    largest = np.abs(influence.parts).max(0, initial=0)  # (M,), NaN without an interval
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
    """Return the influence that `pack` wrote, up to rounding.

    Raises:
        ValueError, TypeError, KeyError: The values were not written by `pack`.
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
