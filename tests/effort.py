"""How many examples a property test draws: few in the short form, many in the long one."""

import os

import pytest
from hypothesis import settings

SOAK = bool(os.environ.get("MGOE_SOAK"))
FEW, MANY = 12, 2000
"""Examples of a property test in the short and in the long form."""
slow = pytest.mark.skipif(not SOAK, reason="costly; `make soak` runs it")
"""Marks a test that the long form alone runs."""


def up_to(few: int) -> settings:
    """Settings of a test whose examples are costly: `few` of them, and all in the long form."""
    return settings(max_examples=MANY if SOAK else few)
