"""The base of all settings, and types that several of them use."""

import difflib
import re
from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


class Settings(BaseModel):
    """Frozen settings that refuse unknown names.

    Example:
        >>> class Shop(Settings):
        ...     shelves: int = 3
        >>> Shop().shelves
        3
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True
    )


def as_list(value: object) -> object:
    """Return one value as a list of it, anything else unchanged."""
    return [value] if isinstance(value, str | int | float | date) else value


MEMORY = 4.0
"""Limit of anonymous memory by default, in GiB."""
Count = Annotated[int, Field(ge=1, lt=2**31)]
SEEDS = 2**31
"""Seeds are below this limit, which every random number generator accepts."""
Seed = Annotated[int, Field(ge=0, lt=SEEDS)]
Seeds = Annotated[list[Seed], BeforeValidator(as_list, json_schema_input_type=Seed | list[Seed])]
Texts = Annotated[list[str], BeforeValidator(as_list, json_schema_input_type=str | list[str])]
"""Several texts, or one of them."""


def _length(text: str) -> str:
    if re.fullmatch(r"[0-9]{1,6}[smhd]|[0-9]{1,5}w", text) is None:
        raise ValueError(
            "must be a whole number of at most six digits and s, m, h, d or w (of weeks, five digits), "
            f"found {text!r}; write it as in 1d"
        )
    return text


def _positive(text: str) -> str:
    if text[0] == "0":
        raise ValueError(f"must be longer than 0 and not begin with 0, found {text!r}; write it as in 1d")
    return text


Length = Annotated[str, AfterValidator(_length)]
"""A length of time, such as `1d`."""
PositiveLength = Annotated[Length, AfterValidator(_positive)]
"""Strictly positive."""


AUTO = {
    "data": {"end": "auto"},
    "split": {"cuts": "auto"},
    "training": {"batch_size": "auto", "learning_rate": "auto", "epochs": "auto"},
}
"""The settings that may be `auto` in a file: rules choose them from the log before anything else reads it."""


def or_auto(schema: dict[str, Any]) -> None:
    """Let the JSON Schema of a setting of `AUTO` accept `auto` too."""
    schema["anyOf"] = [
        {key: schema.pop(key) for key in schema.keys() - {"title", "description", "default"}},
        {"const": "auto"},
    ]


LONGEST = 200
"""Longer names are not compared with valid ones, because the search takes quadratic time. More valid names
are not listed."""


def did_you_mean(name: str, valid: Sequence[str]) -> str:
    """Return the end of a message about an unknown name: the nearest valid one, or all unless they are many.

    Example:
        >>> "unknown task 'clik'" + did_you_mean("clik", ["click", "buy"])
        "unknown task 'clik'; did you mean 'click'?"
    """
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5) if len(name) <= LONGEST else []
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; valid names: {', '.join(sorted(valid)) or 'none'}" if len(valid) <= LONGEST else ""
