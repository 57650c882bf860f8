"""What decides the nodes of a run: the numbers of their algorithms, and the settings that count, as plain
values."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from mgoe.config import RunSettings

ALGORITHMS = {"world": 1, "rest": 1, "data": 1, "graph": 4, "search": 2, "cell": 2, "lists": 2}
"""Number of the algorithm that makes each kind of node. Raise it if the same settings give another result
now: such nodes, and all that is made from them, are then outdated."""
FREE = {
    "training": {"threads", "device", "checkpoint", "track", "tables", "refit"},
    "graph": {"engine"},
}
"""Settings that may change when work resumes. `memory` may not for a cell: it decides the order of its
examples. `training.refit` decides what follows the choice, which a search has no part in: cells note it."""


def values_of_run(settings: RunSettings) -> dict[str, Any]:
    """Return the settings of a run as plain values, without those that may differ between equal results."""
    free = dict.fromkeys(("models", "serve", "jobs", "seeds", "retrieval", "retrain"), True)
    free_of_data = {
        "engine": True,
        "log": True,
        "truth": True,
        "users": {"path"},
        "items": {"path"},
    }  # the checksum of the files stands for their paths
    return plain_values(settings, {**free, **FREE, "data": free_of_data})


def plain_values(settings: BaseModel, exclude: Mapping[str, Any] | set[str] | None = None) -> dict[str, Any]:
    """Return settings as plain values, without those that are off or empty by default.

    A new setting of this kind therefore makes no result outdated, and a changed default does.
    """
    values, given = (
        settings.model_dump(mode="json", exclude=exclude, exclude_defaults=lean) for lean in (False, True)
    )
    return _without_neutral(values, given)


def _without_neutral(values: Any, given: Any) -> Any:
    """Return values without empty ones that are not among those given."""
    if isinstance(values, list):
        pairs = zip(values, given or [None] * len(values), strict=True)
        return [_without_neutral(*pair) for pair in pairs]
    if not isinstance(values, dict):
        return values
    kept = {key: _without_neutral(value, (given or {}).get(key)) for key, value in values.items()}
    return {key: value for key, value in kept.items() if value or key in (given or {})}
