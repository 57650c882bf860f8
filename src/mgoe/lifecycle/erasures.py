"""The list of erasures of a registry: which users were erased, and when.

The list is in `REGISTRY.erased.json` beside the registry, outside of what backups of versions and stores
bring back, so that it can be applied again to them. It holds the ids themselves. They must be found in
whatever comes back, and a hash hides no id that can be guessed, such as a number, from who has its key.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from mgoe._util.files import as_json, atomic_file, read_of_format
from mgoe.bundle import Bundle
from mgoe.config import Settings
from mgoe.errors import BundleError, OutputError
from mgoe.serving.events.event import AHEAD

FORMAT = 1
ERASED = "erased"
"""Key of a manifest: how many erasures of the list were applied to the bundle, or to one before it."""


class Erasure(Settings):
    """Users that were erased together."""

    time: int
    """Microseconds since 1970. What is dated later is of a user who has come back."""
    users: list[str]
    """Their ids, as texts."""


@dataclass(frozen=True)
class Erasures:
    """The erasures of a registry, oldest first; later ones are added at the end.

    Attributes:
        path: The file.
        entries: The erasures.

    Example:
        >>> erasures = Erasures.of(Path("bundles"))
        >>> erasures.held_by(bundle)
        []
    """

    path: Path
    entries: tuple[Erasure, ...] = ()

    @classmethod
    def of(cls, registry: Path) -> Self:
        """Return the list of a registry, which is empty if nobody was erased.

        Raises:
            OutputError: It cannot be read.
        """
        path = registry.resolve().with_name(f"{registry.resolve().name}.erased.json")
        if not path.exists():
            return cls(path)
        found = read_of_format(path, "erasures", FORMAT, OutputError, "", "restore the file from a copy")
        return cls(path, tuple(Erasure(**one) for one in found["erasures"]))

    def with_users(self, users: list[str]) -> Self:
        """Return the list with some users who are erased now, too."""
        return replace(self, entries=(*self.entries, Erasure(time=time.time_ns() // 1000, users=users)))

    def save(self) -> None:
        """Write the list. Only the owner of the file may read it.

        Raises:
            OutputError: It cannot be written.
        """
        with atomic_file(self.path) as file:
            file.touch(mode=0o600)
            entries = [one.model_dump() for one in self.entries]
            file.write_text(as_json({"format": FORMAT, "erasures": entries}))

    def until(self, applied: int = 0) -> dict[str, int]:
        """Return up to when records of each user go, in microseconds since 1970.

        Args:
            applied: Number of erasures to leave out, the oldest ones.
        """
        return {user: one.time + AHEAD for one in self.entries[applied:] for user in one.users}

    def held_by(self, bundle: Bundle) -> list[str]:
        """Return the erased users whom a bundle still holds. Those who have come back since do not count."""
        if not (asked := [*self.until(bundle.manifest.get(ERASED, 0))]):
            return []
        return sorted(np.array(asked)[bundle.encoders.users.indices(asked) >= 0].tolist())

    def check(self, bundle: Bundle) -> None:
        """Refuse a bundle that holds erased users.

        Raises:
            BundleError: It does.
        """
        if held := self.held_by(bundle):
            raise BundleError(
                bundle.path,
                f"must not hold users who were erased, found {len(held):,}; run `mgoe erase`, which applies "
                f"the list again, train without their rows (mgoe erase --log), or take them from {self.path} "
                "if they have come back",
            )
