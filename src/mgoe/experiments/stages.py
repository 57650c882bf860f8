"""What every model of a run shares: the log is prepared, the macro graph is built. Nothing here trains, and nothing loads torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from mgoe._util.tables import Frame
from mgoe.config import RunSettings, seconds
from mgoe.data import Prepared, prepare
from mgoe.errors import OutputError
from mgoe.experiments.progress import Watch
from mgoe.graph import MacroGraph, Source, build_graph

Say = Callable[[str], None]


def prepare_data(
    settings: RunSettings, out: Path, table: Frame | None = None, say: Say = lambda line: None
) -> Prepared:
    """The prepared log below `out`, made unless it is there."""
    if not (out / "data").exists():
        started = time.perf_counter()
        say("preparing the log")
        prepare(settings, out / "data", table)
        summary = Prepared.open(out / "data").summary
        examples = sum(split["examples"] for split in summary["splits"].values())
        say(
            f"  {summary['rows']:,} rows, {summary['users']:,} users, {summary['items']:,} items, {examples:,} examples "
            f"in {time.perf_counter() - started:.1f} s"
        )
        for warning in summary["warnings"]:
            say(f"  warning: {warning}")
    return Prepared.open(out / "data")


def build(settings: RunSettings, out: Path, prepared: Prepared, say: Say = lambda line: None) -> MacroGraph:
    """The macro graph below `out`, built unless it is there."""
    if not (out / "graph").exists():
        started = time.perf_counter()
        say("building the macro graph")
        graph = build_graph(source_of(settings, prepared), settings.graph, out / "graph", Watch(say))
        stages = ", ".join(f"{name} {took['seconds']:.1f}" for name, took in graph.meta["stages"].items())
        say(f"  {graph!r} in {time.perf_counter() - started:.1f} s ({stages})")
    graph = MacroGraph.open(out / "graph")
    if graph.meta["changes"]:
        rule = "was changed since it was built for the examples of this run, so that codes and snapshots no longer agree"
        raise OutputError(out / "graph", f"{rule}; build it anew with --overwrite, or choose another --out")
    return graph


def source_of(settings: RunSettings, prepared: Prepared) -> Source:
    """What the graph of a prepared log is built of."""
    return Source(
        history=prepared.history,
        cuts=prepared.cuts,
        users_at=prepared.users_at,
        items_at=prepared.items_at,
        ranks=settings.ranks,
        bucket=seconds(settings.data.bucket) * 1_000_000,
        files={name: prepared.path / name for name in prepared.FILES},
        log=settings.model_dump(mode="json", include={"data", "tasks"}),
    )
