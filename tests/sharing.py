"""Folders that the processes of a test session share: the first that needs one makes it, all read it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


class Shared:
    """Makes folders once per session, whatever the number of its processes.

    Args:
        root: Folder of what is shared.
    """

    def __init__(self, root: Path):
        self.root = root
        root.mkdir(exist_ok=True)

    def __call__(self, name: str, make: Callable[[Path], object]) -> Path:
        """Return the folder of a name, which tests only read.

        Args:
            name: What is in it.
            make: Makes the folder, which does not exist yet. A process that failed in it leaves the folder to
                the next one, which begins with an empty place.
        """
        folder, made = self.root / name, self.root / f"{name}.made"
        with FileLock(self.root / f"{name}.lock"):
            if not made.exists():
                shutil.rmtree(folder, ignore_errors=True)
                make(folder)
                made.touch()
        return folder


def shared_by_session(factory: pytest.TempPathFactory) -> Shared:
    """Return what all processes of this session share."""
    own = factory.getbasetemp()  # of this process; those of a session with several are side by side
    return Shared((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared")
