"""Writing a bundle: the model of a cell with the encoders and the graph that it reads."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy
import torch

from mgoe import __version__
from mgoe._util.files import atomic_folder, checksums, write_json, write_text
from mgoe.bundle.calibration import Calibration
from mgoe.bundle.card import CARD, model_card
from mgoe.bundle.held import FILES, Held, Sources, write_held
from mgoe.bundle.manifest import FORMAT, RETRIEVAL, BundleManifest, Lineage, ManifestTask, State, iso_time
from mgoe.bundle.population import POPULATION
from mgoe.bundle.sampling import Sampling
from mgoe.config import ModelSettings, RetrievalSettings, RunSettings, dump_settings
from mgoe.data import Prepared
from mgoe.data.erasures import ERASED
from mgoe.data.waiting import longest_delay
from mgoe.evaluation import Estimate, Row
from mgoe.features import View
from mgoe.graph import MacroGraph
from mgoe.models import written_out
from mgoe.retrieval import Blend, Retrieval


def write_bundle(
    out: Path,
    *,
    settings: RunSettings,
    model: ModelSettings,
    cell: Path,
    prepared: Prepared,
    graph: MacroGraph,
    metrics: Sequence[Row],
    calibration: Calibration = Calibration(),
    estimates: Sequence[Estimate] = (),
    cost: Mapping[str, Any] | None = None,
    sampling: Sampling | None = None,
    retrieval: RetrievalSettings | None = None,
    blend: Blend | None = None,
    held: Sources = MappingProxyType({}),
    state: State = "chosen",
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
        estimates: Test metrics of the model with their intervals, for the model card.
        cost: What its training took, for the model card.
        sampling: How negatives were drawn; None if none were.
        retrieval: How candidates are retrieved; None if the whole catalogue is ranked.
        blend: How lists of candidates are ordered; None if the model alone orders them.
        held: What the log holds of logs of services.
        state: What the weights have learned.
    """
    until = prepared.until - longest_delay(settings.tasks)
    with atomic_folder(out) as folder:
        prepared.save_encoders(folder)
        graph.save_latest(folder / "graph")
        if retrieval is not None:
            Retrieval.build(View.of(graph.latest), folder / RETRIEVAL, retrieval, blend=blend)
        for name in ("model.safetensors", "spec.json", POPULATION):
            (folder / name).write_bytes((cell / name).read_bytes())
        write_text(folder / "settings.yaml", dump_settings(settings))
        write_json(folder / "metrics.json", list(metrics))
        versions = {"mgoe": __version__, "python": platform.python_version()}
        manifest = BundleManifest(
            format=FORMAT,
            versions=versions | {"torch": torch.__version__, "numpy": numpy.__version__},
            model=written_out(model),
            weights=state,
            tasks=tuple(ManifestTask(name=task.name, kind=task.kind) for task in settings.tasks),
            sampling=sampling,
            calibration=calibration,
            lineage=Lineage.of(graph, "full"),
            trained_until=iso_time(graph.manifest.last),
            fully_trained_until=iso_time(graph.manifest.last),
            log=prepared.summary,
            erased=prepared.summary.get(ERASED, 0),
            test=[asdict(one) for one in estimates],
            cost=dict(cost or {}),
        )
        write_held(folder, {**held, FILES: Held("", "", until)})
        seal(folder, manifest, settings, metrics)


def seal(folder: Path, manifest: BundleManifest, settings: RunSettings, metrics: Sequence[Row]) -> None:
    """Write the model card of a bundle and, last, its manifest with the checksum of every other file.

    Args:
        folder: The bundle, with all other files.
        manifest: The manifest; checksums in it are replaced.
        settings: Settings of the run.
        metrics: Rows of its `metrics.json`.
    """
    write_text(folder / CARD, model_card(manifest, settings, MacroGraph.open(folder / "graph"), metrics))
    files = (path for path in folder.rglob("*") if path.is_file() and path != folder / CARD)
    sums = checksums(folder, files)
    manifest.model_copy(update={"checksums": sums}).save(folder)
