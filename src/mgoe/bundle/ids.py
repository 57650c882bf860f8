"""Ids as clients send them: one rule for events, exposures, labels and every request."""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from pydantic import (
    Field,
    GetCoreSchemaHandler,
    PlainValidator,
    StrictInt,
    StrictStr,
    TypeAdapter,
    ValidationError,
)
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import CoreSchema

from mgoe.data.vocabulary import whole_number
from mgoe.errors import EventError

EXACT = 2**53 - 1
"""Whole numbers up to here are exact where all numbers are floats, as in JavaScript."""
LONGEST_ID = 512
"""Most characters of an id."""
RULE = f"must be an id: a whole number of 64 bits, or a text of 1 to {LONGEST_ID} characters"


@dataclass(frozen=True)
class OneMessage:
    """An annotation of a union: one message, where pydantic has one per member of the union.

    Attributes:
        rule: The message.
    """

    rule: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Add an error of its own."""
        return handler(source) | {"custom_error_type": "union", "custom_error_message": self.rule}  # type: ignore[return-value]


def _whole(value: Any) -> int:
    """Return 1e3 and 1000.0, which are 1000 in JSON, as such."""
    if not isinstance(value, float) or not value.is_integer() or abs(value) > EXACT:
        raise ValueError
    return int(value)


Text = Annotated[StrictStr, Field(min_length=1, max_length=LONGEST_ID)]
GivenId = Annotated[
    Annotated[StrictInt, Field(ge=-(2**63), lt=2**64)]
    | Text
    | SkipJsonSchema[Annotated[int, PlainValidator(_whole)]],
    OneMessage(RULE),
    Field(
        union_mode="left_to_right",
        description='As in the log: a whole number or a string; 7 and "7" are the same id. An answer has a '
        f"whole number beyond {EXACT} on either side of 0 as a string, because JavaScript would round it.",
    ),
]
"""An id of a request, which pydantic checks."""
_ID = TypeAdapter(GivenId)


def checked_id(value: Any, place: str) -> int | str:
    """Return an id as a request to the service may hold it: 7.0 is 7.

    Raises:
        EventError: It is not an id.
    """
    try:
        return _ID.validate_python(value)
    except ValidationError:
        raise EventError(place, f"{RULE}, found {shown(value)}") from None


def read_id(value: Any, kind: pa.DataType, place: str) -> int | str:
    """Return an id as a vocabulary of this type holds it: 7, 7.0 and "7" are one id.

    Raises:
        EventError: It is not an id, or of another type.
    """
    one = checked_id(value, place)
    if not pa.types.is_integer(kind):
        return str(one)
    number, limits = whole_number(one), np.iinfo(kind.to_pandas_dtype())
    if number is None or not limits.min <= number <= limits.max:
        raise EventError(
            place,
            f"ids of {place}s are whole numbers of {kind.bit_width} bits, found {shown(value)}; "
            "send the log's own ids",
        )
    return number


def canonical_id(value: Any, kind: pa.DataType) -> int | str | None:
    """Return what `read_id` returns, None where it raises."""
    try:
        return read_id(value, kind, "")
    except EventError:
        return None


def shown(value: Any) -> str:
    """Return a value as a message shows it, at most 60 characters of it."""
    text = repr(value) if isinstance(value, str | int | float) else type(value).__name__
    return "none" if value is None else text if len(text) <= 60 else f"{text[:60]}..."
