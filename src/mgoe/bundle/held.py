"""What the graph of a bundle holds, source by source: `live.json`.

A source is a log of a service, with an identity that no other has, the exposures of one, or all files that no
service has written. A mark says up to where a bundle holds a log: the position of a record, and a digest that
is chained over all records up to it. So an older copy of the log is noticed even after it has grown past the
position.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mgoe._util.files import read_json, write_json
from mgoe.errors import BundleError, OutputError

HELD = "live.json"
"""File of a bundle with what its graph holds of each source."""
FILES = "files"
"""The source of all rows of files that no service has written: it has no positions, only times."""
NEW_STORE = (
    "the bundle holds rows of another store and none of this one, which is new or has lost everything; "
    "restore its latest copy, or continue with it, and the bundle keeps what it holds"
)
"""Message about a store of which `is_new` is true."""


class Mark(NamedTuple):
    """Up to where somebody has read a log.

    Attributes:
        position: That of the last record that was read, in the format of its kind of log; empty before the
            first.
        digest: 32 hexadecimal digits, chained over all records up to it.

    Example:
        >>> from mgoe.serving import Mark
        >>> Mark("17", "5b2e").number
        17
    """

    position: str = ""
    digest: str = ""

    @property
    def number(self) -> int:
        """A number by which marks of a log compare, from both parts of a position on Redis."""
        number, _, count = self.position.partition("-")
        return int(number) << 20 | int(count) if count else int(number or 0)


START = Mark()
"""Before the first record."""


class Held(NamedTuple):
    """What a bundle holds of one source.

    Attributes:
        position, digest: Up to where, see `Mark`.
        last: Time of its last row, in microseconds since 1970; None without rows.
    """

    position: str
    digest: str
    last: int | None = None

    @property
    def mark(self) -> Mark:
        """Up to where."""
        return Mark(self.position, self.digest)


Sources = Mapping[str, Held]
"""What is held, by the identity of its source."""


def read_held(bundle: Path) -> dict[str, Held]:
    """Return what the graph of a bundle holds of each source, by its identity.

    Raises:
        BundleError: The file cannot be read.

    Example:
        >>> from mgoe.bundle.held import read_held
        >>> [*read_held(bundle.path)]  # trained on files alone
        ['files']
    """
    if not (file := bundle / HELD).exists():
        return {}
    try:
        return {identity: Held(**one) for identity, one in read_json(file)["held"].items()}
    except (OutputError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(file, f"cannot be read ({error}); copy the bundle again") from None


def write_held(bundle: Path, held: Sources) -> None:
    """Write what the graph of a bundle, or the log of a run, holds of each source."""
    write_json(bundle / HELD, {"held": {identity: one._asdict() for identity, one in held.items()}})


def mark_of(held: Sources, identity: str) -> Mark:
    """Return up to where a log is held; the start if nothing of it is.

    Example:
        >>> from mgoe.bundle.held import mark_of
        >>> mark_of({"A3F0": Held("17", "5b2e")}, "A3F0").position
        '17'
    """
    return held[identity].mark if identity in held else START


def last_of_logs(held: Sources) -> int | None:
    """Return the time of the last row of a service's log that is held, in microseconds since 1970."""
    times = (one.last for identity, one in held.items() if identity != FILES)
    return max((time for time in times if time is not None), default=None)


def exposures_of(identity: str) -> str:
    """Return the source that the exposures of a log are: a bundle holds them up to another mark than events,
    since they wait for their labels."""
    return f"{identity}/exposures"


def is_new(identity: str, held: Sources) -> bool:
    """Return whether rows of a service are held, but none of a log.

    Example:
        >>> from mgoe.bundle.held import is_new
        >>> is_new("B801", {"A3F0": Held("17", "5b2e", 20)})
        True
    """
    return last_of_logs(held) is not None and held.keys().isdisjoint((identity, exposures_of(identity)))


def last_of_files(held: Sources) -> int | None:
    """Return when the files end that no service has written, in microseconds since 1970; None without any."""
    return held[FILES].last if FILES in held else None


def latest_mark(held: Sequence[Sources], identity: str) -> Mark:
    """Return up to where one of several bundles holds a log, the one that holds most of it."""
    return max((mark_of(one, identity) for one in held), key=lambda mark: mark.number)


def joined(held: Sources, new: Sources) -> dict[str, Held]:
    """Return what is held once new rows have been added: their marks, and when the last of all rows was.

    Example:
        >>> from mgoe.bundle.held import joined
        >>> joined({"A3F0": Held("17", "5b2e", 20)}, {"A3F0": Held("19", "c01d", 30)})["A3F0"]
        Held(position='19', digest='c01d', last=30)
    """
    found = dict(held)
    for identity, one in new.items():
        ends = [each.last for each in (held.get(identity), one) if each is not None and each.last is not None]
        if one.position or ends:
            found[identity] = one._replace(last=max(ends, default=None))
    return found
