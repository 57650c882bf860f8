"""Context features, checked and encoded: a column of values per feature, or one value of each."""

from collections.abc import Mapping
from typing import Any

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
    _kinds(encoders, context)
    return encoders.encode(
        {name: repeated(to_arrow(values, f"context.{name}"), n) for name, values in context.items()}, n
    )


def encode_one(encoders: FeatureEncoders, context: Mapping[str, ArrayLike]) -> dict[str, NDArray]:
    """Encode one value per context feature. One row each.

    Args:
        encoders: The bundle's encoders of context features.
        context: Values by feature; one may be a column of length 1, and of a several-valued feature, a column
            is one value.

    Raises:
        BundleError: A feature is not in the bundle, or has several values.
        DataError: A numeric feature has a value that is not a number.
    """
    kinds = _kinds(encoders, context)
    return encoders.encode({name: _one_value(name, kinds[name], value) for name, value in context.items()}, 1)


def encode_json(encoders: FeatureEncoders, context: Mapping[str, Any]) -> dict[str, NDArray]:
    """Encode one value per context feature, as JSON has them. One row each.

    Args:
        encoders: The bundle's encoders of context features.
        context: Values by feature; one that is missing or null is unknown.

    Raises:
        BundleError: A feature is not in the bundle, takes one value and has a list, or takes a list and has
            none.
        DataError: A numeric feature has a value that is not a number.
    """
    kinds = _kinds(encoders, context)
    for name, value in context.items():
        place, is_list = f"context.{name}", isinstance(value, list)
        if is_list and kinds[name] != "multi":
            raise BundleError(place, f"takes one value, found a list of {len(value)}; send one of them")
        if kinds[name] == "multi" and not (is_list or value is None or isinstance(value, str)):
            rule = f"takes a list, or a text with separators, found {str(value)[:60]}; put it into a list"
            raise BundleError(place, rule)
    return encode_one(encoders, {name: value for name, value in context.items() if value is not None})


def repeated(values: pa.Array, n: int) -> pa.Array:
    """Return one value n times, and several as they are."""
    return values.take(pa.array(np.zeros(n, np.int64))) if len(values) == 1 != n else values


def _kinds(encoders: FeatureEncoders, context: Mapping[str, Any]) -> dict[str, str]:
    """Return the kind of each feature, after a check that the context names no other."""
    kinds = {feature.name: feature.kind for feature in encoders.features}
    for name in context:
        if name not in kinds:
            rule = f"{name[:80]!r} is not a context feature of this bundle{did_you_mean(name, list(kinds))}"
            raise BundleError(f"context.{name[:80]}", rule)
    return kinds


def _one_value(name: str, kind: str, value: ArrayLike) -> pa.Array:
    """Return a feature's value in a column of its own; of a several-valued feature, a list is one value."""
    values = to_arrow(value, f"context.{name}")
    if kind == "multi" and not isinstance(value, str) and not is_list(values.type):
        values = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)
    if len(values) != 1:
        raise BundleError(f"context.{name}", f"takes one value, found {len(values)}; give one of them")
    return values
