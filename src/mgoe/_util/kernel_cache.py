"""Where numba caches compiled kernels."""

import atexit
import os
import shutil
import tempfile
import warnings
from pathlib import Path

PLACE = "NUMBA_CACHE_DIR"
"""Environment variable that names the cache folder to numba."""


def place_kernels() -> None:
    """Use a temporary cache folder if numba may write neither beside the code nor in the user's cache.

    Without a folder numba would not start. Call this before numba is imported.
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
        return  # numba reports the missing folder itself
    os.environ[PLACE] = folder
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    warnings.warn(
        f"neither the library's folder nor {cache} is writable, so kernels are compiled at every start, "
        f"for some seconds; set {PLACE} to a writable folder",
        RuntimeWarning,
        stacklevel=2,
    )


def _may_write(folder: Path) -> bool:
    return os.access(next(place for place in (folder, *folder.parents) if place.exists()), os.W_OK | os.X_OK)
