"""Where compiled kernels are kept."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import warnings
from pathlib import Path

PLACE = "NUMBA_CACHE_DIR"
"""Variable that names it to numba."""


def place_kernels() -> None:
    """Take a folder for this process alone where numba may write neither beside the code nor in the user's cache: it would not start.

    To be called before numba is imported.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    if (
        os.environ.get(PLACE)
        or _may_write(Path(__file__).parents[1] / "graph" / "__pycache__")
        or _may_write(cache / "numba")
    ):
        return
    try:
        folder = tempfile.mkdtemp(prefix="mgoe-kernels-")
    except OSError:
        return  # numba says what it lacks
    os.environ[PLACE] = folder
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    rule = f"neither the folder of the library nor {cache} may be written, so kernels are compiled at every start, for some seconds"
    warnings.warn(f"{rule}; set {PLACE} to a folder that may be", RuntimeWarning, stacklevel=2)


def _may_write(folder: Path) -> bool:
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return os.access(there, os.W_OK | os.X_OK)
