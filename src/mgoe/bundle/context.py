"""Context features as a caller in Python gives them: one value per pair, or one for all."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from mgoe.config import did_you_mean
from mgoe.data import FeatureEncoders, to_arrow
from mgoe.data.arrow import is_list
from mgoe.errors import BundleError


def encode_pairs(encoders: FeatureEncoders, context: Mapping[str, ArrayLike], n: int) -> dict[str, NDArray]:
    """Encode the context of n pairs.

    Args:
        encoders: The bundle's encoders of context features.
        context: One value per pair, or one for all, by feature; a missing feature is unknown.
        n: Number of pairs.

    Raises:
        BundleError: A feature is not in the bundle.
    """
    known = [feature.name for feature in encoders.features]
    for name in context:
        if name not in known:
            raise BundleError(
                "context", f"{name!r} is no context feature of this bundle{did_you_mean(name, known)}"
            )
    return encoders.encode(
        {name: repeated(to_arrow(values, f"context.{name}"), n) for name, values in context.items()}, n
    )


def encode_one(encoders: FeatureEncoders, context: Mapping[str, ArrayLike]) -> dict[str, NDArray]:
    """Encode one value per context feature. One row each.

    Raises:
        BundleError: A feature is not in the bundle, or has several values.
    """
    several = {feature.name for feature in encoders.features if feature.kind == "multi"}
    return encode_pairs(
        encoders, {name: _one_value(name, value, name in several) for name, value in context.items()}, 1
    )


def repeated(values: pa.Array, n: int) -> pa.Array:
    """Return one value n times, and several as they are."""
    return values.take(pa.array(np.zeros(n, np.int64))) if len(values) == 1 != n else values


def _one_value(name: str, value: ArrayLike, several: bool) -> pa.Array:
    """Return a feature's value in a column of its own; of a several-valued feature, a list is one value."""
    values = to_arrow(value, f"context.{name}")
    if several and not isinstance(value, str) and not is_list(values.type):
        values = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)
    if len(values) != 1:
        raise BundleError(f"context.{name}", f"takes one value, found {len(values)}; give one of them")
    return values
