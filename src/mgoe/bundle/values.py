"""Fields of records and values of features as clients send them: one rule for contexts and for items."""

from collections.abc import Mapping, Sequence
from typing import Any

from mgoe.bundle.ids import checked_id, shown
from mgoe.config import FeatureSettings, did_you_mean
from mgoe.errors import EventError

Value = float | str | list[str] | list[float]
"""A value of a feature, once it is read."""
LARGEST = 1e100
"""Numbers are within it, as numeric features of a log are."""


def check_fields(raw: Mapping[str, Any], fields: Sequence[str], what: str) -> None:
    """Refuse a record with a field that it cannot have.

    Raises:
        EventError: It has one.
    """
    for name in raw:
        if name not in fields:
            raise EventError(
                name[:80], f"is no field of {what}{did_you_mean(name, fields)}; it has {', '.join(fields)}"
            )


def read_features(
    given: Any, features: Mapping[str, FeatureSettings], place: str, what: str
) -> dict[str, Value]:
    """Check values by feature, as JSON has them.

    Args:
        given: Values by name; what is null is left out.
        features: The features that there are.
        place: Field that holds the values, for messages.
        what: What such a feature is called.

    Raises:
        EventError: A name is unknown, or a value breaks the rule of its feature.
    """
    if not isinstance(given, Mapping):
        raise EventError(place, f"must be values by feature, found {shown(given)}")
    for name in given:
        if name not in features:
            near = did_you_mean(name, list(features))
            raise EventError(f"{place}.{name[:80]}", f"is no {what} of this bundle{near}")
    return {
        name: _feature(features[name], value, f"{place}.{name}")
        for name, value in given.items()
        if value is not None
    }


def _feature(feature: FeatureSettings, value: Any, place: str) -> Value:
    if feature.kind == "numeric":
        if not is_number(value):
            raise EventError(place, f"must be a number within {LARGEST:g}, found {shown(value)}")
        return float(value)
    if feature.kind == "vector":
        if not isinstance(value, list) or not all(map(is_number, value)):
            raise EventError(place, f"must be a list of numbers within {LARGEST:g}, found {shown(value)}")
        return [float(one) for one in value]
    if feature.kind == "multi":
        values = value.split(feature.separator) if isinstance(value, str) else value
        if not isinstance(values, list):
            rule = "takes a list, or a text with separators"
            raise EventError(place, f"{rule}, found {shown(value)}; put it into a list")
        return [category for one in values if one is not None and (category := _category(one, place).strip())]
    return _category(value, place)


def _category(value: Any, place: str) -> str:
    """Return a category as text; 7, 7.0 and "7" are one."""
    if isinstance(value, str):
        return str(checked_id(value, place)) if value else value  # as long as an id
    if isinstance(value, bool):
        return str(value).lower()
    if not is_number(value):
        raise EventError(place, f"must be a text, a number, true or false, found {shown(value)}")
    return str(int(value) if float(value).is_integer() else value)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST
