"""What all models of a run share: the prepared log and the graph. Nothing here loads torch."""

import hashlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

import ibis.expr.types as ir
import numpy as np
from numpy.typing import NDArray

from mgoe._util.files import read_json, write_json
from mgoe._util.progress import ProgressBar
from mgoe._util.tables import Frame
from mgoe.config import RunSettings, seconds
from mgoe.data import FeatureEncoders, Prepared, SideFeatures, prepare
from mgoe.errors import OutputError
from mgoe.graph import Exposures, MacroGraph, Observer, Source, build_graph
from mgoe.graph.pair_rows import Side
from mgoe.graph.rates import is_axis_of_context
from mgoe.pipeline.folder import EXAMPLES

logger = logging.getLogger(__name__)

CONTEXT = "context"
"""Folder of the encoders of the context, in prepared data and in a graph."""
BINS = 16
"""Bins of a numeric feature of a side table, whose exposures are counted by bin."""


class ShowBuild(Observer):
    """Observer that shows a build of a graph on a terminal or in a notebook."""

    def __init__(self):
        self._bar: ProgressBar | None = None

    def stage(self, name: str, total: int, unit: str) -> Callable[[int], None]:
        """Show a bar and return a callback for the units just completed."""
        self._bar = ProgressBar(name, total, unit)
        return self._bar.advance

    def end(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def prepare_data(settings: RunSettings, out: Path, table: Frame | None = None) -> Prepared:
    """Return the prepared log in `out/data`, after preparing it if it is not there."""
    if (out / "data").exists():
        return Prepared.open(out / "data")
    started = time.perf_counter()
    logger.info("preparing the log")
    prepared = prepare(settings, out / "data", table)
    summary = prepared.summary
    logger.info(
        f"  {summary['rows']:,} rows, {summary['users']:,} users, {summary['items']:,} items, "
        f"{sum(split['examples'] for split in summary['splits'].values()):,} examples in "
        f"{time.perf_counter() - started:.1f} s"
    )
    if left_out := summary.get("left_out"):
        logger.info(
            f"  left out: {left_out['unknown']:.0%} of the positives, whose items are unknown at their "
            f"moment, and {left_out['thinned']:.0%}, whose draws were dropped"
        )
    for warning in summary["warnings"]:
        logger.info(f"  warning: {warning}")
    return prepared


def build(settings: RunSettings, prepared: Prepared, folder: Path) -> MacroGraph:
    """Return the macro graph of a prepared log, after building it if it is not there.

    Of a finished run, only the latest snapshot may be there. The others are then built again, and stay if all
    are as they were.

    Args:
        settings: Settings of the run.
        prepared: The log.
        folder: Folder of the graph.

    Raises:
        MgoeError: The graph cannot be built, was changed since it was built, or would not be the same again.
    """
    noted = None
    if folder.exists():
        graph = MacroGraph.open(folder)
        if graph.manifest.changes:
            raise OutputError(
                folder,
                "was changed since it was built for the examples of this run, so indices no longer "
                "agree; choose another folder, or overwrite this one to build it again",
            )
        if len(graph.manifest.cuts) > len(prepared.cuts):
            return graph
        noted = graph.manifest.built
    folder.parent.mkdir(parents=True, exist_ok=True)
    source = source_of(settings, prepared)
    started = time.perf_counter()
    logger.info("building the macro graph")
    how = {"memory": settings.memory, "spark": settings.spark, "noted": noted}
    graph = build_graph(source, settings.graph, folder, ShowBuild(), **how)
    stages = ", ".join(f"{name} {took.seconds:.1f}" for name, took in graph.manifest.stages.items())
    logger.info(f"  {graph!r} in {time.perf_counter() - started:.1f} s ({stages})")
    return graph


def examples_of(stage: Path) -> dict[str, str]:
    """Return checksums of the rows that the prepared log in a folder is measured on.

    They are equal for every seed and model, computed once, and stored.
    """
    file, sums = stage / EXAMPLES, dict[str, str]()
    if file.exists():
        return read_json(file)
    prepared = Prepared.open(stage / "data")
    for split in ("valid", "test"):
        digest = hashlib.sha256()
        for part in prepared.streamed(split).parts():
            for column in (part.user, part.item, part.bucket, part.labels):
                digest.update(column.tobytes())
        sums[split] = digest.hexdigest()[:16]
    write_json(file, sums)
    return sums


def source_of(settings: RunSettings, prepared: Prepared) -> Source:
    """Return what the graph of a prepared log is built from."""
    records, context = prepared.exposures, prepared.context_features
    encoded = {} if records is None else context_files(prepared.path / CONTEXT)
    about: tuple[tuple[Side, NDArray[np.float32] | None], ...] = (
        ("user", prepared.user_side.content),
        ("item", prepared.item_side.content),
    )
    return Source(
        history=prepared.history,
        cuts=prepared.cuts,
        users_at=prepared.users_at,
        items_at=prepared.items_at,
        ranks=settings.ranks,
        bucket=seconds(settings.data.bucket) * 1_000_000,
        exposures=None
        if records is None
        else exposures_of(records, settings, prepared.user_side, prepared.item_side, context),
        files={name: prepared.path / name for name in prepared.FILES} | encoded,
        log=settings.model_dump(mode="json", include={"data", "tasks"}),
        content={side: content for side, content in about if content is not None},
    )


def exposures_of(
    records: ir.Table,
    settings: RunSettings,
    users: SideFeatures,
    items: SideFeatures,
    context: FeatureEncoders,
) -> Exposures:
    """Return what a graph counts, from the records of exposures and the features of its nodes."""
    sizes, categories = dict[str, int](), {}
    for name, side in (("users", users), ("items", items)):
        for feature, size in side.encoders.sizes.items():
            values = side.arrays[feature].astype(np.int32)
            sizes[f"{name}.{feature}"] = size
            categories[f"{name}.{feature}"] = values[:, None] if values.ndim == 1 else values
        for column, feature in enumerate(side.encoders.names("numeric")):
            sizes[f"{name}.{feature}"] = BINS + 1
            categories[f"{name}.{feature}"] = _binned(side.arrays["numeric"][:, column])[:, None]
    sizes |= {name: size for name, size in context.sizes.items() if is_axis_of_context(name)}
    regressions = {task.name: task.kind == "regression" for task in settings.tasks}
    return Exposures(records, categories, sizes, regressions, context.names("multi"))


def _binned(values: NDArray[np.float32]) -> NDArray[np.int32]:
    """Return the bin of each number, from 1: as many numbers are in each bin as ties allow."""
    edges = np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]) if len(values) else np.empty(0)
    return (1 + np.searchsorted(edges, values, side="right")).astype(np.int32)


def context_files(folder: Path) -> dict[str, Path]:
    """Return the files of the encoders of the context in a folder, by their names in a graph."""
    return {f"{CONTEXT}/{file.name}": file for file in sorted(folder.iterdir())}
