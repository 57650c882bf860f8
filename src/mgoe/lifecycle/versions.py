"""The versions of a registry, and the changes of their aliases."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field

from mgoe.bundle import Bundle
from mgoe.bundle.manifest import now
from mgoe.config import Settings
from mgoe.errors import ConfigError

CANDIDATE, CURRENT, PREVIOUS = ALIASES = ("candidate", "current", "previous")
SET_BY = {
    CANDIDATE: "`mgoe registry add`",
    CURRENT: "`mgoe registry promote`",
    PREVIOUS: "the second `mgoe registry promote`",
}
"""What gives a version an alias."""
Action = Literal["add", "promote", "rollback", "reject", "allow", "erase"]


class Change(Settings):
    """One change of the aliases."""

    number: int
    """From 1."""
    time: str
    """When it was made, ISO 8601."""
    action: Action
    version: str
    """The version that it was about."""
    aliases: dict[str, str]
    """Version by alias, after the change."""
    verdicts: dict[str, str | None] = Field(default={})
    """What was decided of versions until then: why one is rejected, or null for one that is allowed again. It
    holds for what is made from a version, too, down to the next one with a verdict."""
    deployment: str | None = None
    """What all versions belong to."""
    reason: str | None = None
    """Why it was rejected, or promoted by force."""


NOTHING = Change(number=0, time="", action="add", version="", aliases={})
"""What was before the first change."""


@dataclass(frozen=True)
class Version:
    """A version that a registry holds or held.

    Attributes:
        name: As its service answers with.
        number: Number of the change that added it.
        added: When it was added, ISO 8601.
        model: Name of its model.
        parent: Name of the bundle that it was made from; None after a full training.
        trained: `full`, `retrained`, `refreshed` or `erased`.
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
        lineage = bundle.manifest.lineage
        return cls(
            name=bundle.name,
            number=number,
            added=now(),
            model=bundle.manifest.model.name,
            parent=lineage.parent,
            trained=lineage.trained,
            log=list(lineage.log),
            mgoe=bundle.manifest.versions["mgoe"],
        )


def check_reason(place: str, reason: str) -> None:
    """Refuse an empty reason."""
    if not reason.strip():
        raise ConfigError(place, "must say why, found an empty reason; give one")


def with_current(aliases: Mapping[str, str], name: str) -> dict[str, str]:
    """Return aliases after a version has become current: no other alias names it, and the one before is
    previous."""
    others = {alias: held for alias, held in aliases.items() if held != name}
    before = {PREVIOUS: aliases[CURRENT]} if CURRENT in aliases else {}
    return others | before | {CURRENT: name}
