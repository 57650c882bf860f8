"""Exports a bundle's graphs in another process, since tracing patches PyTorch and takes seconds of a core.

A service runs the model by PyTorch meanwhile. Of a version that is tested, graphs and index are prepared.
"""

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
from filelock import FileLock

from mgoe._util.files import output_errors
from mgoe.bundle import Bundle
from mgoe.errors import MgoeError, StoreError
from mgoe.models import Decomposition
from mgoe.serving.online.base_values import item_rows, prepared_folder
from mgoe.serving.scoring.inputs import ScoringInputs
from mgoe.serving.scoring.onnx_sessions import Sessions

logger = logging.getLogger(__name__)


def sessions_of(bundle: Bundle, decomposition: Decomposition, cache: Path | None) -> Sessions:
    """Return what runs the graphs of a bundle, which are traced on its snapshot, or were prepared beside it.

    Args:
        bundle: The bundle.
        decomposition: Its model, taken apart.
        cache: See `Sessions`.
    """
    weights = "".join(bundle.manifest.checksums[name] for name in ("model.safetensors", "spec.json"))
    samples = ScoringInputs(bundle, decomposition).samples()
    return Sessions(decomposition, *samples, cache, weights, prepared_folder(bundle.path))


def export_elsewhere(bundle: Bundle, cache: Path) -> None:
    """Export the graphs of a bundle into the cache in a process, and wait until it ends.

    The process has the priority of the thread that calls this.

    Args:
        bundle: The bundle.
        cache: See `Sessions`.

    Raises:
        StoreError: The process exported nothing.
    """
    done = subprocess.run([sys.executable, "-m", __name__, bundle.path, cache], capture_output=True)
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["its process was stopped"]
        raise StoreError(cache, f"the graphs of the model were not exported: {why[0]}")


def prepare(bundle: Bundle) -> None:
    """Make beside a bundle what its services need, so that they answer by it soon after it became current.

    What fails is left to them, and reported.
    """
    folder = prepared_folder(bundle.path)
    try:
        item_rows(bundle.graph, folder)
        export_elsewhere(bundle, folder)
    except (MgoeError, OSError) as error:
        logger.warning(f"{bundle.name} is not prepared, so its services take longer to take it: {error}")


def _end_with_parent() -> None:
    """Stop when the service has ended."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


@torch.inference_mode()
def main() -> None:
    """Export, with the arguments of `export_elsewhere`."""
    path, cache = map(Path, sys.argv[1:])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    bundle = Bundle.open(path, verify=False)
    with output_errors(cache), FileLock(cache / "export.lock"):  # several workers start at once
        sessions = sessions_of(bundle, bundle.model.decompose().eval(), cache)
        if not sessions.exported:
            sessions.export()


if __name__ == "__main__":
    try:
        main()
    except MgoeError as error:
        raise SystemExit(" ".join(str(error).split())) from None
