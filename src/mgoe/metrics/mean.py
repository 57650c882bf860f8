"""Means of metrics that may not exist."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def mean_defined(values: Iterable[float]) -> float:
    """Return the mean of the values that are numbers; NaN if none is (ours)."""
    there = [value for value in values if not np.isnan(value)]
    return float(np.mean(there)) if there else np.nan
