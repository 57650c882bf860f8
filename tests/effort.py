"""What a test costs: how many examples it draws, and whether the short form and the edit loop run it."""

import os

import pytest
from hypothesis import settings

SOAK = bool(os.environ.get("MGOE_SOAK"))
FEW, MANY = 40, 2000
"""Examples of a property test in the short and in the long form."""
costly = pytest.mark.costly
"""Marks a test that trains, builds on Spark, or starts a process or a service: `make quick` leaves it out."""
slow = pytest.mark.skipif(not SOAK, reason="half a minute or more; `make soak` runs it")
"""Marks a test that the long form alone runs."""


def up_to(few: int) -> settings:
    """Settings of a test whose examples are costly: `few` of them, and all in the long form."""
    return settings(max_examples=MANY if SOAK else few)
