"""Exported graphs that are kept from one start of a service to the next.

An export takes seconds of a core, which a service that replaces its bundle under load does not have. A
refreshed bundle usually has the weights of the one before.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mgoe._util.files import durable_folder, remove_folder
from mgoe.errors import StoreError

MOST = 8
"""Graphs that are kept, the newest: enough to return to an earlier bundle."""


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
    with suppress(OSError):  # another process removes them, too
        for old in sorted(parent.iterdir(), key=lambda one: -one.stat().st_mtime)[MOST:] if place else ():
            remove_folder(old)
