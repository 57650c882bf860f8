"""The list of erasures of a registry: which users were erased, and when. Their rows up to then count nowhere.

The list is in `REGISTRY.erased.json` beside the registry, outside of what backups of versions and stores
bring back, so that it can be applied again to them. It holds the ids themselves. They must be found in
whatever comes back, and a hash hides no id that can be guessed, such as a number, from who has its key.
"""

import logging
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Self

import pyarrow as pa

from mgoe._util.files import as_json, atomic_file, read_of_format
from mgoe._util.tables import hand_over
from mgoe.config import CLOCK_SKEW, Settings
from mgoe.data.columns import Table
from mgoe.errors import OutputError

logger = logging.getLogger(__name__)

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
        >>> Erasures.of(Path("bundles")).until()
        {}
    """

    path: Path
    entries: tuple[Erasure, ...] = ()

    @staticmethod
    def of(registry: Path | None) -> "Erasures":
        """Return the list of a registry, which is empty if nobody was erased, or without a registry.

        Raises:
            OutputError: It cannot be read.
        """
        whole = Path() if registry is None else registry.resolve()
        path = whole.with_name(f"{whole.name}.erased.json") if whole.name else whole
        return Erasures.read(path) if path.is_file() else Erasures(path)

    @staticmethod
    def read(path: Path) -> "Erasures":
        """Return the list in a file: the same object as before, until the file is replaced.

        Raises:
            OutputError: It cannot be read.
        """
        found = path.stat() if path.exists() else None
        return _read(path, found and (found.st_ino, found.st_mtime_ns))

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
        return {user: one.time + CLOCK_SKEW for one in self.entries[applied:] for user in one.users}

    def without(self, rows: Table) -> Table:
        """Return rows without those of erased users up to their erasure, and report how many these are.

        Args:
            rows: With the columns `user`, an id, and `time`, in microseconds since 1970.
        """
        if not self.entries:
            return rows
        table = pa.table({"user": (until := self.until()).keys(), "until": until.values()})
        gone = hand_over(rows.get_backend(), "erased", table)
        is_gone = rows.user.cast("string") == gone.user, rows.time <= gone.until
        if number := rows.semi_join(gone, is_gone).count().to_pyarrow().as_py():
            logger.info(f"{number:,} rows are left out: they are of users who were erased since")
        return rows.anti_join(gone, is_gone)


@lru_cache(4)
def _read(path: Path, _file: tuple[int, int] | None) -> Erasures:
    """Read a list, which the inode and the time of its file distinguish from others at this path."""
    missing, fix = "holds no list of erasures; name REGISTRY.erased.json", "restore the file from a copy"
    found = read_of_format(path, "erasures", FORMAT, OutputError, missing, fix)
    return Erasures(path, tuple(Erasure(**one) for one in found["erasures"]))
