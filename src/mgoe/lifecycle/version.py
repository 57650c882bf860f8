"""What a registry knows of a version and of a change of its aliases."""

from dataclasses import dataclass
from typing import Literal, Self

from mgoe.bundle import Bundle
from mgoe.bundle.manifest import now
from mgoe.config import Settings


class Change(Settings):
    """One change of the aliases."""

    number: int
    """From 1."""
    time: str
    """When it was made, ISO 8601."""
    action: Literal["add", "promote", "rollback"]
    version: str
    """The version that it was about."""
    aliases: dict[str, str]
    """Version by alias, after the change."""
    reason: str | None = None
    """Why it was promoted in spite of its release test."""


@dataclass(frozen=True)
class Version:
    """A version that a registry holds or held.

    Attributes:
        name: As its service answers with.
        number: Number of the change that added it.
        added: When it was added, ISO 8601.
        model: Name of its model.
        parent: Name of the bundle that it was made from; None after a full training.
        trained: `full`, `retrained` or `refreshed`.
        log: First and last time of the log that it learned from, ISO 8601.
        mgoe: Version of the library that made it.
    """

    name: str
    number: int
    added: str
    model: str
    parent: str | None
    trained: str
    log: list[str]
    mgoe: str

    @classmethod
    def of(cls, bundle: Bundle, number: int) -> Self:
        """Describe a bundle that is added."""
        lineage = bundle.manifest["lineage"]
        return cls(
            name=bundle.name,
            number=number,
            added=now(),
            model=bundle.manifest["model"]["name"],
            parent=lineage["parent"],
            trained=lineage["trained"],
            log=lineage["log"],
            mgoe=bundle.manifest["versions"]["mgoe"],
        )
