"""What all settings have in common."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from datetime import date
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Settings(BaseModel):
    """Frozen, and strict about names."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def as_list(value: object) -> object:
    """One value for a list of it."""
    return [value] if isinstance(value, str | int | float | date) else value


Count = Annotated[int, Field(ge=1, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
"""What every library that draws takes."""
Seeds = Annotated[list[Seed], BeforeValidator(as_list)]


def did_you_mean(name: str, valid: Sequence[str]) -> str:
    """End of a message about an unknown name: the nearest valid one, or all of them."""
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; valid names: {', '.join(sorted(valid)) or 'none'}"
