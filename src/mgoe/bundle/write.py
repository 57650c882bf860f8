"""Writing a bundle: the model of a cell with the encoders and the graph that it reads."""

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mgoe import __version__
from mgoe._util.files import atomic_folder, checksums, write_json, write_text
from mgoe.bundle.calibration import Calibration
from mgoe.bundle.sampling import sampling_prior
from mgoe.config import ModelSettings, RunSettings, dump_settings
from mgoe.data import Prepared
from mgoe.graph import MacroGraph
from mgoe.models import written_out

FORMAT = 2
"""Format of the folder; format 1 was never released."""
MANIFEST = "bundle.json"


def write_bundle(
    out: Path,
    *,
    settings: RunSettings,
    model: ModelSettings,
    cell: Path,
    prepared: Prepared,
    graph: MacroGraph,
    metrics: Sequence[Mapping[str, Any]],
    calibration: Calibration = Calibration(),
) -> None:
    """Write a bundle atomically.

    Args:
        out: Folder to write; an existing one is replaced.
        settings: Settings of the run.
        model: Resolved settings of the model.
        cell: Folder with its `model.safetensors` and `spec.json`.
        prepared, graph: Data and graph of the training; the latest snapshot is copied.
        metrics: Rows to store with it.
        calibration: Maps from its probabilities to calibrated ones.
    """
    with atomic_folder(out) as folder:
        prepared.save_encoders(folder)
        graph.save_latest(folder / "graph")
        np.save(folder / "prior.npy", sampling_prior(prepared, settings.form, settings.negatives))
        for name in ("model.safetensors", "spec.json"):
            (folder / name).write_bytes((cell / name).read_bytes())
        write_text(folder / "settings.yaml", dump_settings(settings))
        write_json(folder / "metrics.json", list(metrics))
        write_json(
            folder / MANIFEST,
            {
                "format": FORMAT,
                "versions": {
                    "mgoe": __version__,
                    "python": platform.python_version(),
                    "torch": torch.__version__,
                    "numpy": np.__version__,
                },
                "model": written_out(model).model_dump(mode="json"),
                "tasks": [{"name": task.name, "kind": task.kind} for task in settings.tasks],
                "calibration": calibration.model_dump(mode="json"),
                "log": prepared.summary,
                "checksums": checksums(folder, (path for path in folder.rglob("*") if path.is_file())),
            },
        )
