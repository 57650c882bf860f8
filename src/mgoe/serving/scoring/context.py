"""The context of a request: its features checked and encoded."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray

from mgoe.config import did_you_mean
from mgoe.data import to_arrow
from mgoe.data.features import FeatureEncoders
from mgoe.errors import RequestError


def encode_context(encoders: FeatureEncoders, context: Mapping[str, Any]) -> dict[str, NDArray]:
    """Encode the context features of one request.

    Args:
        encoders: The bundle's encoders of context features.
        context: Values by feature name, as JSON has them; a feature that is missing or null is unknown.

    Returns:
        Encoded features, one row each.

    Raises:
        RequestError: A feature is unknown, takes one value and has a list, or takes a list and has none.
        DataError: A numeric feature has a value that is not a number.
    """
    kinds = {feature.name: feature.kind for feature in encoders.features}
    for name, value in context.items():
        if name not in kinds:
            rule = f"{name[:80]!r} is not a context feature of this bundle{did_you_mean(name, list(kinds))}"
            raise RequestError(f"context.{name[:80]}", rule)
        _check_value(f"context.{name}", kinds[name], value)
    return encoders.encode({name: to_arrow([value]) for name, value in context.items()}, 1)


def _check_value(place: str, kind: str, value: Any) -> None:
    if kind != "multi":
        if isinstance(value, list):
            raise RequestError(place, f"takes one value, found a list of {len(value)}; send one of them")
    elif isinstance(value, list):
        if not _have_one_type(value):
            rule = f"takes values of one type, 64-bit numbers or texts, found {_types(value)}"
            raise RequestError(place, f"{rule}; write all as texts")
    elif value is not None and not isinstance(value, str):
        rule = f"takes a list, or a text with separators, found {str(value)[:60]}; put it into a list"
        raise RequestError(place, rule)


def _have_one_type(values: list[Any]) -> bool:
    try:
        pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return False
    return True


def _types(values: list[Any]) -> str:
    """Return the types in a list, as a message names them."""
    names = {str: "text", bool: "boolean", int: "whole number", float: "number", type(None): "null"}
    return " and ".join(sorted({names[type(value)] for value in values}))
