"""What a request may give for a context feature: one value, or several of one type where the feature holds several."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from mgoe.errors import RequestError


def check_context(name: str, kind: str, value: Any) -> None:
    """See that a value has the shape of its feature's kind; null is unknown in each.

    Args:
        name: Of the feature.
        kind: Of `FeatureSettings`.
        value: As JSON has it: a text, a number, a boolean, null, or a list of such.

    Raises:
        RequestError: It is a list where one value is wanted, one number where several are, or a list that no Arrow type holds.
    """
    place = f"context.{name}"
    if kind != "multi":
        if isinstance(value, list):
            raise RequestError(place, f"takes one value, found a list of {len(value)}; send one of them")
    elif isinstance(value, list):
        if not _have_one_type(value):
            raise RequestError(
                place,
                f"takes values of one type, numbers of 64 bits or texts, found {_types(value)}; write all as texts",
            )
    elif value is not None and not isinstance(value, str):
        raise RequestError(
            place,
            f"takes a list, or a text cut at its separator, found {str(value)[:60]}; put it into a list",
        )


def _have_one_type(values: list[Any]) -> bool:
    try:
        pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return False
    return True


def _types(values: list[Any]) -> str:
    """Of what is in a list, as a message names them."""
    names = {str: "text", bool: "boolean", int: "whole number", float: "number", type(None): "null"}
    return " and ".join(sorted({names[type(one)] for one in values}))
