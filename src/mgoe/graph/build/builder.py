"""Building a macro graph: history in, one folder of snapshots out.

Pairs of all snapshots come from one pass over the log, which its own engine brings in order. Then each snapshot in turn starts from the
macro nodes of the one before. Nothing a snapshot holds depends on later events. A build works in a folder of its own, which takes its place
when it is whole; one that was cut off goes on after the last stage that was done.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ibis.expr.types as ir
import numpy as np
from numpy.typing import NDArray

from mgoe._util.arrays import mapped
from mgoe._util.tables import checksum, mixed
from mgoe.config import GraphSettings
from mgoe.errors import GraphError
from mgoe.graph.build.assemble import assemble
from mgoe.graph.build.disk import disk_needed
from mgoe.graph.build.learned import Learned
from mgoe.graph.build.memory import check_memory
from mgoe.graph.build.resolutions import choose_resolutions
from mgoe.graph.build.stages import Observer, Silent, Spent, Stages
from mgoe.graph.engines.engine import Assembler, Engine
from mgoe.graph.engines.local import Embedded
from mgoe.graph.fold import MOST_TASKS, SnapshotCuts
from mgoe.graph.macro_graph import FORMAT, MacroGraph
from mgoe.graph.scores import merging_score, score_table
from mgoe.graph.workplace import begin, finish, workplace

DAY = 86_400_000_000


@dataclass(frozen=True)
class Source:
    """What a graph is built of, beside its settings.

    Attributes:
        history: One row an event and task: `user`, `item`, `time` (microseconds), `task`. A table of any Ibis backend.
        cuts: Last bucket of each snapshot but the latest. Shape (n,).
        users_at, items_at: Nodes known at each snapshot. Shape (n + 1,).
        ranks: Of the tasks, weakest first. Shape (T,).
        bucket: Its length, microseconds.
        facts: `events`, `first` and `last` moment and a `checksum` of the history, where they are known; else it is read for them.
        files: Kept with the graph, by name: the vocabularies that an update needs.
        log: How the log was read, which an update repeats.
        spent: What reading and numbering it took, noted with the stages of the build.
    """

    history: ir.Table
    cuts: NDArray[np.int32]
    users_at: NDArray[np.int64]
    items_at: NDArray[np.int64]
    ranks: Sequence[float]
    bucket: int = DAY
    facts: Mapping[str, int] | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    log: Mapping[str, Any] = field(default_factory=dict)
    spent: Mapping[str, Spent] = field(default_factory=dict)

    def told(self) -> dict[str, int]:
        """`facts`, read from the history unless they are known."""
        if self.facts is not None:
            return dict(self.facts)
        h: Any = self.history
        mix = mixed(h.user, h.item, h.time, h.task)
        told = h.aggregate(events=h.count(), first=h.time.min(), last=h.time.max(), checksum=checksum(mix))
        return told.to_pyarrow().to_pylist()[0]

    @property
    def moments(self) -> SnapshotCuts:
        """What each snapshot holds."""
        return SnapshotCuts((self.cuts.astype(np.int64) + 1) * self.bucket, self.users_at, self.items_at)


def build_graph(
    source: Source,
    settings: GraphSettings,
    out: Path,
    observer: Observer | None = None,
    keep: MacroGraph | None = None,
) -> MacroGraph:
    """Build every snapshot and save the graph, or go on with a build of the same that was cut off.

    Args:
        source: What to build it of.
        settings: Of the graph.
        out: Folder to write; it appears only when it is whole. Beside it, `<name>.building` holds what is done.
        observer: Told how far the build is.
        keep: A graph whose macro nodes are kept, snapshot by snapshot, instead of learning them.

    Raises:
        GraphError: There is no history, an explicit number of macro nodes exceeds the nodes, a sum would overflow, the memory does not
            suffice, or the log or the settings changed since the build was begun.
        OutputError: The disk is full, or another process builds the same graph.
    """
    observer = observer or Silent()
    users, items = int(source.users_at[-1]), int(source.items_at[-1])
    if keep is None:
        check_memory(users, items, settings)
    with workplace(out) as folder, make_engine(folder, settings) as engine:
        facts = source.told()
        if not facts["events"]:
            raise GraphError(
                "graph", "there is no history to build from: no event of any task lies in the log"
            )
        stages = begin(folder, observer, _begun(source, settings, facts, keep))
        tasks, moments = len(source.ranks), source.moments
        needed = disk_needed(facts["events"], moments, settings, tasks)
        observer.note(f"up to {needed / 1e9:,.1f} GB of disk are needed in {out.parent}")
        snapshots = [folder / "snapshots" / f"{s:02d}" for s in range(len(moments))]
        stages.run(
            "pairs",
            facts["events"],
            lambda advance: engine.write_pairs(source.history, moments, tasks, snapshots, advance),
            unit="events",
        )
        if keep is None:
            check_memory(users, items, settings, len(mapped(snapshots[-1] / "pairs.item.npy")))
        sizes = choose_resolutions(settings, *_linked(snapshots[0])) if keep is None else keep.sizes
        assembler = make_assembler(settings, source.ranks, source.bucket, sizes, stages, engine)
        cuts = [*map(int, source.cuts), facts["last"] // source.bucket]
        for s, snapshot in enumerate(snapshots):
            learned = Learned.of(keep.folder(s), len(sizes), settings.scale) if keep else None
            assemble(
                assembler,
                s,
                snapshot,
                folder / "work" / snapshot.name,
                cuts[s],
                snapshots[s - 1] if s else None,
                learned,
            )
            if s < len(snapshots) - 1:
                shutil.rmtree(folder / "work" / snapshot.name, ignore_errors=True)
        ranks = np.asarray(source.ranks, float)
        meta = {
            "format": FORMAT,
            "engine": engine.name,
            "settings": settings.model_dump(mode="json"),
            "log": dict(source.log),
            "ranks": list(source.ranks),
            "bucket": source.bucket,
            "task_mask_scores": merging_score(
                np.arange(1 << tasks), ranks, settings.beta, settings.code
            ).tolist(),
            "resolutions": [list(size) for size in sizes],
            "dense": assembler.dense,
            "cuts": cuts,
            "since": None,
            "users": source.users_at.tolist(),
            "items": source.items_at.tolist(),
            "pairs": [len(mapped(snapshot / "pairs.item.npy")) for snapshot in snapshots],
            "drift": assembler.drift(folder / "work" / snapshots[-1].name),
            "changes": [],
            **facts,
        }
        finish(folder, out, meta, source.files, stages, source.spent)
    return MacroGraph.open(out)


def make_assembler(
    settings: GraphSettings,
    ranks: Sequence[float],
    bucket: int,
    sizes: tuple[tuple[int, int], ...],
    stages: Stages,
    engine: Engine,
) -> Assembler:
    """What makes the snapshots of a graph."""
    scores = score_table(np.asarray(ranks, float), settings.beta, settings.code)
    return Assembler(
        settings, len(ranks), scores, bucket, sizes, settings.dense_of(len(sizes)), stages, engine
    )


@contextmanager
def make_engine(folder: Path, settings: GraphSettings) -> Iterator[Engine]:
    """The engine that the settings ask for, until the graph is built."""
    if settings.engine == "embedded":
        yield Embedded(settings.memory)
        return
    from mgoe.graph.engines.spark import Spark

    with Spark(folder, settings) as engine:
        yield engine


def _linked(snapshot: Path) -> tuple[int, int]:
    """Users and items with history."""
    indptr = (mapped(snapshot / f"pairs.{name}.npy") for name in ("indptr", "item_indptr"))
    users, items = (int((np.diff(starts) > 0).sum()) for starts in indptr)
    return users, items


def _begun(
    source: Source, settings: GraphSettings, facts: dict[str, Any], keep: MacroGraph | None
) -> dict[str, Any]:
    """What must be the same for a build to go on."""
    if len(source.ranks) > MOST_TASKS:
        raise GraphError(
            "tasks", f"a graph merges at most {MOST_TASKS} tasks, found {len(source.ranks)}; leave some out"
        )
    return {
        "what": "build",
        "log": {**facts, "users": source.users_at.tolist(), "items": source.items_at.tolist()},
        "settings": settings.model_dump(mode="json", exclude={"memory", "engine", "spark"})
        | {"cuts": source.cuts.tolist(), "ranks": list(source.ranks), "bucket": source.bucket},
        "keep": None if keep is None else keep.checksum,
    }
