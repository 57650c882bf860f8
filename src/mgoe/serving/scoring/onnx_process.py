"""Exports a bundle's graphs in another process, since tracing patches PyTorch and takes seconds of a core.

A service runs the model by PyTorch meanwhile. The process is given what the model is traced on.
"""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import cast

import torch
from filelock import FileLock
from safetensors.torch import load, save

from mgoe._util.files import output_errors
from mgoe.bundle import Bundle
from mgoe.errors import MgoeError, StoreError
from mgoe.models import Batch
from mgoe.serving.scoring.onnx_sessions import Sessions
from mgoe.serving.scoring.plan import ScoringPlan
from mgoe.serving.scoring.runtime import Precision

USER, CANDIDATES = "user:", "candidates:"
"""Before the names of both samples of `Sessions`."""


def export_elsewhere(
    bundle: Bundle, user: Batch, candidates: Batch, precision: Precision, cache: Path
) -> None:
    """Export the graphs of a bundle into the cache in a process, and wait until it ends.

    The process has the priority of the thread that calls this.

    Args:
        bundle: The bundle.
        user, candidates, precision, cache: See `Sessions`.

    Raises:
        StoreError: The process exported nothing.
    """
    given = {USER + name: value for name, value in user.items()}
    given |= {CANDIDATES + name: value for name, value in candidates.items()}
    done = subprocess.run(
        [sys.executable, "-m", __name__, bundle.path, cache, precision],
        input=save({name: value.clone() for name, value in given.items()}),
        capture_output=True,
    )
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["its process was stopped"]
        raise StoreError(cache, f"the graphs of the model were not exported: {why[0]}")


def weights_of(bundle: Bundle) -> str:
    """Return what identifies the weights of a bundle."""
    return "".join(bundle.manifest["checksums"][name] for name in ("model.safetensors", "spec.json"))


def _end_with_parent() -> None:
    """Stop when the service has ended."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


@torch.inference_mode()
def main() -> None:
    """Export, with the arguments of `export_elsewhere` and the samples on standard input."""
    path, cache, precision = Path(sys.argv[1]), Path(sys.argv[2]), cast(Precision, sys.argv[3])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    given = load(sys.stdin.buffer.read())
    user, candidates = (
        {name.removeprefix(start): value for name, value in given.items() if name.startswith(start)}
        for start in (USER, CANDIDATES)
    )
    bundle = Bundle.open(path, verify=False)
    decomposition = ScoringPlan.of(bundle.model).decomposition
    with output_errors(cache), FileLock(cache / "export.lock"):  # several workers start at once
        sessions = Sessions(decomposition, user, candidates, precision, cache, weights_of(bundle))
        if not sessions.exported:
            sessions.export()


if __name__ == "__main__":
    try:
        main()
    except MgoeError as error:
        raise SystemExit(" ".join(str(error).split())) from None
