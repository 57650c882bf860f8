"""Where a unit falls: GrowthBook's second version of its hash, and the first for namespaces, so that an
assignment made there is the same here."""

from functools import lru_cache

from mgoe.config.experiment import ExperimentSettings

BASIS, PRIME, BITS = 2166136261, 16777619, 2**32 - 1
PLACES = 10_000
"""Places on which units fall."""


def place(seed: str, unit: str) -> float:
    """Return where a unit falls, from 0 up to and without 1.

    Example:
        >>> place("seed", "a")
        0.0505
    """
    return _fnv(str(_fnv(unit, _begun(seed))), BASIS) % PLACES / PLACES


def is_in(experiment: ExperimentSettings, unit: str | None) -> bool:
    """Return whether a unit, if there is one, falls into the namespace of an experiment.

    Example:
        >>> arms = [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.5}]
        >>> is_in(ExperimentSettings(id="one", arms=arms, namespace={"id": "lists", "range": [0.4, 1]}), "u1")
        True
    """
    if (namespace := experiment.namespace) is None or unit is None:
        return namespace is None
    start, end = namespace.range
    return start <= _fnv(f"{unit}__{namespace.id}", BASIS) % 1000 / 1000 < end


def arm_of(experiment: ExperimentSettings, unit: str) -> int | None:
    """Return the number of the arm of a unit; None if it is in none.

    Example:
        >>> arms = [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.5}]
        >>> arm_of(ExperimentSettings(id="one", arms=arms, coverage=0.0), "u1") is None
        True
    """
    if not is_in(experiment, unit):
        return None
    found = place(experiment.seed, unit)
    return next((n for n, (start, end) in enumerate(experiment.ranges) if start <= found < end), None)


@lru_cache
def _begun(seed: str) -> int:
    return _fnv(seed, BASIS)


def _fnv(text: str, state: int) -> int:
    """Return FNV-1a over the 16-bit units of a text, which are what JavaScript reads."""
    units = (
        text.encode() if text.isascii() else memoryview(text.encode("utf-16-le", "surrogatepass")).cast("H")
    )
    for unit in units:
        state = (state ^ unit) * PRIME & BITS
    return state
