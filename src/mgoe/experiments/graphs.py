"""`mgoe graph`: build the macro graph of a run, or of a whole log without examples.

Nothing here loads torch before it is needed.
"""

import logging
from pathlib import Path

import numpy as np

from mgoe._util.files import exclusive, write_text
from mgoe._util.tables import Frame
from mgoe.config import RunSettings, dump_settings, seconds
from mgoe.data import (
    Vocabulary,
    WholeLog,
    read_settings,
)
from mgoe.data.log import work_database
from mgoe.data.side import read_side
from mgoe.graph import (
    Exposures,
    MacroGraph,
    Source,
    build_graph,
)
from mgoe.pipeline.folder import CHECKSUMS, SETTINGS, checksum_of_log, run_folder
from mgoe.pipeline.stages import CONTEXT, ShowBuild, build, context_files, exposures_of
from mgoe.pipeline.values import ALGORITHMS, values_of_run
from mgoe.pipeline.whole_log import numbered_log, opened_rows, vocabularies
from mgoe.work.node import Node
from mgoe.work.store import Store

logger = logging.getLogger(__name__)

WHOLE = ("data", "tasks", "split", "negatives", "graph")
"""Sections of the settings that decide the graph of a whole log."""


def macro_graph(
    settings: RunSettings | Path | str,
    out: Path | str,
    *,
    overwrite: bool = False,
    table: Frame | None = None,
) -> MacroGraph:
    """Build the macro graph below `out`.

    The log is prepared too, so that a run can resume from there. If `graph.snapshots` is `last`, the graph is
    built from the whole log without examples.

    Args:
        settings: Settings of the run, or the YAML file that holds them.
        out: Folder of the results.
        overwrite: Replace the run that the folder holds.
        table: An Ibis table, or a frame of pandas, polars or Arrow, to read instead of `data.log`; with
            `last` its engine counts and sorts.

    Raises:
        MgoeError: Settings, log, graph or output folder break a rule.
    """
    settings, out = read_settings(settings, table=table), Path(out)
    if settings.graph.snapshots == "all":
        from mgoe.experiments.runs import begin
        from mgoe.pipeline.plan import Plan  # late: checks of what will be trained import torch

        plan = Plan(settings, out, from_table=table is not None)
        with begin(plan, plan.cells, overwrite, table) as (prepared, _):
            return build(settings, prepared, out / "graph")
    with exclusive(out, "a graph"), run_folder(out, overwrite):
        values = {key: value for key, value in values_of_run(settings).items() if key in WHOLE}
        checksum = None if table is not None else checksum_of_log(settings.data, out / CHECKSUMS)
        node = Node(
            "graph",
            "the macro graph of the whole log",
            out / "graph",
            values,
            ALGORITHMS["graph"],
            checksum,
            _build_of_whole_log,
            (settings, out, table),
            files=(out / "graph",),
            results=(out / "graph",),
        )
        for one in Store(out, [node]).stale(overwrite=False):
            one.remove()
        write_text(out / SETTINGS, dump_settings(settings))
        node.begin()
        return MacroGraph.open(node.path) if node.finished else node.make(*node.args)


def _build_of_whole_log(settings: RunSettings, out: Path, table: Frame | None) -> MacroGraph:
    """Read a whole log, and build its graph below `out`."""
    opened = opened_rows(settings, settings.data.log, out / "log", table)
    with numbered_log(settings, opened, out / "log", None) as (log, spent):
        shown, encoded = _exposures(log, settings, out / "log")
        found = Source(
            exposures=shown,
            history=log.history,
            batches=log.batches,
            cuts=np.empty(0, np.int32),
            users_at=np.array([log.counts["user"]]),
            items_at=np.array([log.counts["item"]]),
            ranks=settings.ranks,
            bucket=seconds(settings.data.bucket) * 1_000_000,
            facts=log.facts,
            files=vocabularies(out / "log") | encoded,
            log=settings.model_dump(mode="json", include={"data", "tasks"}),
            spent=spent,
        )
        logger.info("building the macro graph of the whole log")
        how = {"memory": settings.memory, "spark": settings.spark}
        return build_graph(found, settings.graph, out / "graph", ShowBuild(), **how)


def _exposures(
    log: WholeLog, settings: RunSettings, folder: Path
) -> tuple[Exposures | None, dict[str, Path]]:
    """Return what was shown in a log, and the files of the encoders of its context."""
    if log.records is None or log.context is None:
        return None, {}
    nodes = {name.removesuffix(".parquet"): file for name, file in vocabularies(folder).items()}
    with work_database(folder / "sides", "the side tables", settings.memory) as con:
        users, items = (
            read_side(con, getattr(settings.data, name), Vocabulary.load(file), f"data.{name}")[0]
            for name, file in nodes.items()
        )
    log.context.save(folder / CONTEXT)
    return exposures_of(log.records, settings, users, items, log.context), context_files(folder / CONTEXT)


def open_graph(path: Path | str) -> MacroGraph:
    """Open a graph by its own folder, or by that of the run or bundle that holds it."""
    inner = Path(path) / "graph"
    return MacroGraph.open(inner if inner.is_dir() else path)
