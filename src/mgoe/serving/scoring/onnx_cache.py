"""Exported graphs that are kept from one start of a service to the next.

An export takes seconds of a core, which a service that replaces its bundle under load does not have. A
refreshed bundle usually has the weights of the one before.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from mgoe._util.files import durable_folder, remove_folder
from mgoe.errors import StoreError

MOST = 8
"""Graphs that are kept, those used last: enough to return to an earlier bundle."""


def find_graphs(place: Path) -> bool:
    """Return whether a folder of graphs exists, mark it as used now, and remove others that are too many.

    One process at a time, so that no folder is removed between being found and being used.
    """
    with suppress(OSError), FileLock(f"{place.parent}.lock"):
        if place.is_dir():
            place.touch()
        for other in sorted(place.parent.iterdir(), key=lambda one: -one.stat().st_mtime)[MOST:]:
            remove_folder(other)
    return place.is_dir()


@contextmanager
def new_graphs(place: Path | None) -> Iterator[Path]:
    """Yield a folder for new graphs, which are kept at a place if one is given.

    Raises:
        StoreError: Graphs cannot be written.
    """
    parent = place.parent if place else Path(tempfile.gettempdir())
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with durable_folder(place) if place else tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    except OSError as error:
        rule = f"the graphs of the model cannot be written: {error.strerror or error}"
        raise StoreError(parent, f"{rule}; free space, or fix the rights of the folder") from None
