"""Building a macro graph: history in, one folder of snapshots out.

The pairs of all snapshots come from one pass over the log, which its own engine sorts. Then each snapshot in
turn starts from the macro nodes of the previous one. Nothing in a snapshot depends on later events. A build
works in a folder of its own, which takes its place when it is complete; a build that was interrupted resumes
there.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import ibis.expr.types as ir
import numpy as np
from numpy.typing import NDArray

from mgoe._util.arrays import mapped, save_arrays
from mgoe._util.tables import checksum, mixed
from mgoe.config import MEMORY, GraphSettings, SparkSettings
from mgoe.errors import GraphError
from mgoe.graph.build.plan import GraphPlan, snapshot_folder
from mgoe.graph.build.rate_counter import RECORDS, RatePlan, write_sorted
from mgoe.graph.build.sizes import check_memory, choose_resolutions
from mgoe.graph.build.snapshot_builder import SnapshotBuilder
from mgoe.graph.build.workplace import WORK, Observer, Stages, finish, workplace
from mgoe.graph.engines.local import SORT_SHARE, Batches, Engine
from mgoe.graph.fold import MOST_TASKS, SnapshotCuts
from mgoe.graph.macro_graph import MacroGraph
from mgoe.graph.manifest import FORMAT, BuiltSettings, GraphManifest, Spent
from mgoe.graph.pair_rows import Side
from mgoe.graph.rates import automatic, listed, parse_groups
from mgoe.graph.scores import merging_score
from mgoe.graph.snapshot import read_content

DAY = 86_400_000_000


@dataclass(frozen=True)
class Exposures:
    """What was shown, of an exposure log.

    Attributes:
        records: Of `mgoe.data.exposure_history.exposure_history`.
        categories: Categories of each node by the name of the axis, such as `items.tag`, -1 after the last.
            Shape (n, L).
        sizes: Number of categories by the name of the axis, those of the context included.
        regressions: Whether each task is a regression, by name.
        several: Axes of the context that are lists.
    """

    records: ir.Table
    categories: Mapping[str, NDArray[np.int32]]
    sizes: Mapping[str, int]
    regressions: Mapping[str, bool]
    several: Container[str] = ()


@dataclass(frozen=True)
class Source:
    """What a graph is built from, beside its settings.

    Attributes:
        history: One row per event and task: `user`, `item`, `time` (microseconds), `task`. A table of any
            Ibis backend.
        cuts: Last bucket of each snapshot but the latest. Shape (n,).
        users_at, items_at: Number of nodes known at each snapshot. Shape (n + 1,).
        ranks: Of the tasks, weakest first. Shape (T,).
        bucket: Length of a bucket, in microseconds.
        exposures: What was shown; None for a log of events.
        facts: `events`, the `first` and `last` moment, and a `checksum` of the history. If they are not
            given, the history is read for them.
        files: Files to keep with the graph, by name: the vocabularies that an update needs.
        log: How the log was read, which an update repeats.
        spent: What reading the log and numbering its ids took, noted with the stages of the build.
        content: What nodes of a side are about, see `SideFeatures.content`.
        batches: Of `mgoe.data.history.WholeLog`: the rows of `history`, faster than by its engine.

    Example:
        >>> import ibis
        >>> import pandas as pd
        >>> rows = pd.DataFrame({"user": [0, 0, 1], "item": [0, 1, 1], "time": [0, 1, 2], "task": [0, 0, 1]})
        >>> nodes = np.array([2])
        >>> source = Source(ibis.memtable(rows), np.zeros(0, np.int32), nodes, nodes, ranks=[1.0, 2.0])
        >>> source.read_facts()["events"]
        3
    """

    history: ir.Table
    cuts: NDArray[np.int32]
    users_at: NDArray[np.int64]
    items_at: NDArray[np.int64]
    ranks: Sequence[float]
    bucket: int = DAY
    exposures: Exposures | None = None
    facts: Mapping[str, int] | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    log: Mapping[str, Any] = field(default_factory=dict)
    spent: Mapping[str, Spent] = field(default_factory=dict)
    content: Mapping[Side, NDArray[np.float32]] = field(default_factory=dict)
    batches: Batches | None = None

    def read_facts(self) -> dict[str, int]:
        """Return `facts`, read from the history unless they are given."""
        if self.facts is not None:
            return dict(self.facts)
        h: Any = self.history
        read = h.aggregate(
            events=h.count(),
            first=h.time.min(),
            last=h.time.max(),
            checksum=checksum(mixed(h.user, h.item, h.time, h.task)),
        )
        facts = read.to_pyarrow().to_pylist()[0]
        return {name: value for name, value in facts.items() if value is not None}  # null without events

    @property
    def snapshot_cuts(self) -> SnapshotCuts:
        """Where the snapshots end."""
        return SnapshotCuts((self.cuts.astype(np.int64) + 1) * self.bucket, self.users_at, self.items_at)


def build_graph(
    source: Source,
    settings: GraphSettings,
    out: Path,
    observer: Observer | None = None,
    keep: MacroGraph | None = None,
    memory: float = MEMORY,
    spark: SparkSettings = SparkSettings(),
    noted: str | None = None,
) -> MacroGraph:
    """Build every snapshot and save the graph, or resume such a build.

    Args:
        source: What to build it from.
        settings: Of the graph.
        out: Folder to write, complete or absent; beside it, `<name>.building` holds what is done.
        observer: Receives the progress.
        keep: A graph whose macro nodes are kept, snapshot by snapshot, instead of learning them.
        memory: Limit of anonymous memory in GiB, also for changes of the graph; the rest is spilled to disk.
        spark: The cluster of `graph.engine: spark`.
        noted: `built` of the manifest of a graph that is built again, over which another one is not written.

    Raises:
        GraphError: History, nodes or memory are too little, a sum would overflow, or what was noted differs.
        OutputError: The disk is full, or another process builds the same graph.

    Example:
        >>> import ibis
        >>> rows = {"user": [0, 0, 1], "item": [0, 1, 1], "time": [0, 1, 2], "task": [0, 0, 0]}
        >>> two, cuts = np.array([2]), np.zeros(0, np.int32)
        >>> source = Source(ibis.memtable(rows), cuts, users_at=two, items_at=two, ranks=[1.0])
        >>> build_graph(source, GraphSettings(resolutions=[[1, 1]], rank=1), Path("graph")).sizes
        ((1, 1),)
    """
    users, items, tasks = int(source.users_at[-1]), int(source.items_at[-1]), len(source.ranks)
    if keep is None:
        check_memory(users, items, settings, memory)
    with workplace(out) as folder, _engine(settings, spark, folder, memory) as engine:
        facts = source.read_facts()
        if not facts["events"]:
            raise GraphError("graph", "there is no history to build from: the log holds no event of any task")
        stages = Stages(folder, observer or Observer(), _identity(source, settings, facts, keep))
        ends = source.snapshot_cuts
        snapshots = [snapshot_folder(folder, s) for s in range(len(ends))]
        write_pairs = partial(engine.write_pairs, source.history, ends, tasks, snapshots, rows=source.batches)
        stages.run("pairs", facts["events"], write_pairs, unit="events")
        pairs = [len(mapped(snapshot / "pairs.item.npy")) for snapshot in snapshots]
        if keep is None:
            check_memory(users, items, settings, memory, pairs[-1])
        sizes = keep.sizes if keep else _resolutions_of(settings, snapshots[0])
        rates = _rate_plan(source, settings, folder, len(sizes), stages, memory * SORT_SHARE)
        counted = {} if rates is None else rates.facts()
        save_arrays(folder, {f"content.{side}": values for side, values in source.content.items()})
        content = read_content(folder, source.content)
        plan = GraphPlan(folder, settings, source.ranks, source.bucket, sizes, stages, engine, rates, content)
        cuts = [*map(int, source.cuts), last_bucket(facts | counted, source.bucket)]
        builders = [
            SnapshotBuilder(plan, s, cut, snapshots[s - 1] if s else None, keep.folder(s) if keep else None)
            for s, cut in enumerate(cuts)
        ]
        for builder in builders:
            builder.build()
        masks, ranks = np.arange(1 << tasks), np.asarray(source.ranks, float)
        manifest = GraphManifest(
            format=FORMAT,
            engine=engine.name,
            settings=BuiltSettings(**settings.model_dump(), memory=memory, spark=spark),
            log=dict(source.log),
            ranks=list(source.ranks),
            bucket=source.bucket,
            task_mask_scores=merging_score(masks, ranks, settings.beta, settings.code).tolist(),
            resolutions=list(sizes),
            dense=plan.dense,
            cuts=cuts,
            since=None,
            users=source.users_at.tolist(),
            items=source.items_at.tolist(),
            pairs=pairs,
            drift=builders[-1].drift,
            changes=[],
            rates=None if rates is None else rates.described(),
            content=_telling(builders, content),
            events=facts["events"],
            first=facts["first"],
            last=facts["last"],
            checksum=facts["checksum"],
        ).with_changes(**counted)
        finish(folder, out, manifest, source.files, stages, source.spent, noted)
    return MacroGraph.open(out)


def _resolutions_of(settings: GraphSettings, snapshot: Path) -> tuple[tuple[int, int], ...]:
    """Return the macro nodes (users, items) of each resolution, from the nodes that have pairs at first."""
    indptr = (mapped(snapshot / f"pairs.{name}.npy") for name in ("indptr", "item_indptr"))
    return choose_resolutions(settings, *(int((np.diff(one) > 0).sum()) for one in indptr))


def _telling(builders: Sequence[SnapshotBuilder], sides: Iterable[Side]) -> tuple[Side, ...]:
    """Return the sides whose content tells where new nodes belong, judged on all snapshots but the latest."""
    judges = builders[:-1] or builders
    return tuple(side for side in sides if any(judge.tells(side) for judge in judges))


def last_bucket(facts: Mapping[str, int], bucket: int) -> int:
    """Return the last bucket of events and exposures."""
    return max(facts["last"] // bucket, facts.get("last_bucket", facts["last"] // bucket))


def _rate_plan(
    source: Source, settings: GraphSettings, folder: Path, resolutions: int, stages: Stages, memory: float
) -> RatePlan | None:
    """Return how exposures are counted, and keep their records with the graph; None without them."""
    if source.exposures is None:
        if settings.rates not in ("auto", []):
            raise GraphError("graph.rates", "counts exposures, found a log of events; leave it out")
        return None
    given, file = source.exposures, folder / RECORDS
    stages.run("exposures", 0, lambda _: write_sorted(given.records, file, memory), unit="records")
    parse = partial(
        parse_groups,
        sizes=given.sizes,
        several=given.several,
        resolutions=resolutions,
        dense=settings.dense_of(resolutions),
    )
    plan = partial(
        RatePlan,
        records=file,
        categories=given.categories,
        regressions=given.regressions,
        memory=memory,
    )
    if settings.rates == "auto":
        categories = plan(parse([([name], None) for name in given.sizes if not name.startswith("users.")]))
        sizes: dict[Side, int] = {"user": int(source.users_at[0]), "item": int(source.items_at[0])}
        first = int(source.cuts[0]) if len(source.cuts) else np.iinfo(np.int32).max
        wanted = automatic(categories.evidence(folder / WORK, first, sizes))
    else:
        wanted = listed(settings.rates, source.bucket)
    found = plan(parse(wanted))
    found.save_categories(folder)
    return found


def _engine(
    settings: GraphSettings, spark: SparkSettings, folder: Path, memory: float
) -> AbstractContextManager[Engine]:
    """Return the engine that the settings ask for, until the build in a folder ends."""
    if settings.engine == "spark":
        from mgoe.graph.engines.spark.engine import Spark

        return Spark(folder, spark, memory)
    return nullcontext(Engine(folder, memory))


def _identity(
    source: Source, settings: GraphSettings, facts: dict[str, Any], keep: MacroGraph | None
) -> dict[str, Any]:
    """Return what must be the same for a build to resume."""
    if len(source.ranks) > MOST_TASKS:
        raise GraphError(
            "tasks", f"a graph merges at most {MOST_TASKS} tasks, found {len(source.ranks)}; leave some out"
        )
    return {
        "what": "build",
        "log": {**facts, "users": source.users_at.tolist(), "items": source.items_at.tolist()},
        "settings": settings.model_dump(mode="json", exclude={"engine"})
        | {"cuts": source.cuts.tolist(), "ranks": list(source.ranks), "bucket": source.bucket},
        "keep": None if keep is None else keep.checksum,
    }
