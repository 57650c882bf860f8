"""Versions of a registry."""

from typing import Any, Literal

from mgoe.cli.answers.base import Answer
from mgoe.release.version import Change


class Version(Answer):
    """An entry of `mgoe registry list`."""

    version: str
    """As its service answers with."""
    aliases: list[str]
    added: str
    model: str
    parent: str | None
    """What it was made from; null after a full training."""
    trained: Literal["full", "retrained", "refreshed"]
    log: list[str] | None
    """First and last time of the log that it learned from; null if unknown."""
    mgoe: str


class ShownVersion(Version):
    """`mgoe registry show`."""

    path: str
    lineage: list[str]
    """From the version back to a full training."""
    release: dict[str, Any] | None
    """Its `release.json`; null if it was not tested."""
    changes: list[Change]


class Aliases(Answer):
    """`mgoe registry add`, `promote` and `rollback`."""

    version: str
    aliases: dict[str, str]
    """Version by alias."""


class Pruned(Answer):
    """`mgoe registry prune`."""

    removed: list[str]
    served: list[str]
    """Old versions that stay because a service has them open."""
