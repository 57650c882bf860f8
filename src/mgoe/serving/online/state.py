"""The live state: nodes and pairs as a snapshot and every event since have made them.

An event changes its user and its item at once, as the next update of the graph will: the pair's tasks and
score, both nodes' counts, 1st-order edges at every resolution and recent neighbours (ties among newcomers
aside, see `Nodes.rank`). Their 2nd-order edges to their own macro nodes change by the counterpart's edges as
of the snapshot; newcomers have none. All other nodes stay as the snapshot has them until the next update, and
so do all other 2nd-order edges, the macro task table, and what is read of recent neighbours: their macro
nodes and vectors. `mgoe.graph.moments` follows the same rules, so that rows that are read as of moments in
training are what a service reads then.

Of the 2nd order, a snapshot has `N_u2[u] = sum_i s_ui (N_i1[i] - s_ui e_c(u))`: over two steps to everyone
else who touched `i`, since `s_ui e_c(u)` is what `u` itself gave to `N_i1[i]`. These others are kept as they
were, `N_i1[i] - s0_ui e_c(u)` with the snapshot's `s0_ui`. So when `s_ui` changes by `ds_ui`,

    dN_u2[u] = ds_ui (N_i1[i] - s0_ui e_c(u)),

with the snapshot's values in the brackets: the sum depends on the events, not on their order. The same holds
for items. What belongs to others waits for the next update: vectors, masses, totals, task shares, and the cut
from which idle buckets are counted.

The state is a fold over a set of events: unions, maxima and integer sums. Nodes that the snapshot has not
placed are placed by `ColdStart`, at 1, 2, 4, 8, ... neighbours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from mgoe.bundle.ids import canonical_id
from mgoe.data import FeatureEncoders, Vocabulary
from mgoe.graph import MacroGraph, Snapshot
from mgoe.graph.counts import task_share, tasks_done
from mgoe.graph.fold import MOST_EVENTS
from mgoe.graph.likelihood import Placement
from mgoe.graph.pair_rows import OTHER, SIDES, PairRows, Side
from mgoe.graph.snapshot import score_sums
from mgoe.serving.events.event import Event, Id, SeenEvents, with_ids_of
from mgoe.serving.events.exposure import read_context
from mgoe.serving.online.base_values import BaseValues, item_rows
from mgoe.serving.online.cold_start import ColdStart
from mgoe.serving.online.kernels import Change
from mgoe.serving.online.live_rates import Changes, ExposureBatch, LiveRates
from mgoe.serving.online.touched import LivePairs, Nodes


@dataclass(frozen=True)
class LiveBase:
    """What live states of one bundle start from and share.

    Attributes:
        snapshot: The graph's latest, memory-mapped.
        vocabularies: Ids of known nodes.
        task_masks: Tasks that each behaviour does.
        context: Encoders of the context of an exposure.
        scores: Fixed-point score of every task mask. Shape (2^T,).
        values: What the snapshot holds of each side's nodes.
        placements: Places newcomers of each side.
        newest: Time of the snapshot's newest event.
        since: Time from which events count as recent; None: all do.
        seen: Events that the snapshot holds, as far as they are known.
    """

    snapshot: Snapshot
    vocabularies: Mapping[Side, Vocabulary]
    task_masks: Mapping[str, int]
    context: FeatureEncoders
    scores: NDArray[np.int64]
    values: Mapping[Side, BaseValues]
    placements: Mapping[Side, Placement]
    newest: int
    since: int | None
    seen: SeenEvents

    @classmethod
    def of(
        cls,
        graph: MacroGraph,
        vocabularies: Mapping[Side, Vocabulary],
        task_masks: Mapping[str, int],
        index: Path | None = None,
        context: FeatureEncoders = FeatureEncoders(),
    ) -> Self:
        """Read what is read once.

        Args:
            graph: Of the bundle.
            vocabularies: Its ids.
            task_masks: Tasks that each behaviour does.
            index: Folder for the pairs by item, see `item_rows`.
            context: Encoders of the context of an exposure.
        """
        for vocabulary in vocabularies.values():
            vocabulary.look_up([])  # builds the table of ids before the first request
        manifest, snapshot, scores = graph.manifest, graph.latest, graph.fixed_scores
        rows: dict[Side, PairRows] = {
            "user": PairRows.by_user(graph.folder(-1)),
            "item": item_rows(graph, index),
        }
        masks = rows["user"].task_mask
        share = task_share(tasks_done(masks, len(manifest.ranks)), len(masks))
        sums = {side: score_sums(snapshot, side) for side in SIDES}
        return cls(
            snapshot=snapshot,
            vocabularies=vocabularies,
            task_masks=task_masks,
            context=context,
            scores=scores,
            values={
                side: BaseValues(side, snapshot, scores, rows[side], share, sums[OTHER[side]])
                for side in SIDES
            },
            placements=Placement.both(graph, sums["user"]),
            newest=manifest.last,
            since=None if graph.since is None else (graph.since + 1) * manifest.bucket,
            seen=SeenEvents(),
        )

    def understood(self, events: Sequence[Event]) -> list[Event]:
        """Return events that do a task and have possible ids, these as the vocabularies hold them."""
        return [
            event
            for event in with_ids_of(events, {side: ids.type for side, ids in self.vocabularies.items()})
            if event is not None and event.behavior in self.task_masks
        ]


class Batch(NamedTuple):
    """New events, looked up and ready to be added. Shape (n,) each unless stated otherwise.

    Attributes:
        nodes: Index of the node of each event, by side.
        newcomers: Ids that will get indices, by side. Shape (any,).
        values: Base values of nodes that are untouched so far, by side.
        task_mask: Tasks that are new.
        time: Microseconds.
        events: What each adds to the event count of its pair: one per task, none if it is older than that
            counts.
        seen: All events of the batch.
        counts: Changes of `LiveState.counts`.
    """

    nodes: dict[Side, NDArray[np.int64]]
    newcomers: dict[Side, list[Id]]
    values: dict[Side, dict[str, NDArray]]
    task_mask: NDArray[np.int64]
    time: NDArray[np.int64]
    events: NDArray[np.int64]
    seen: SeenEvents
    counts: dict[str, int]


class LiveState:
    """What events have changed since a snapshot.

    A batch is added in two steps: `prepare` reads what it needs, `commit` changes the state. If `commit`
    fails, the state may hold a part of the batch, and has to be replaced by one to which all events are added
    again.

    Args:
        base: What the state starts from.
        version: Of a state without events.

    Attributes:
        sides: Touched nodes.
        pairs: Touched pairs.
        cold_start: Places newcomers.
        rates: Counts of exposures.
        version: Grows with every batch that changes something.
        now: First moment after all events, in microseconds.
        counts: Events that counted, that repeated others, that are unknown (a behaviour that does no task, or
            an id that cannot be the bundle's), and those of them that are older than the snapshot's newest
            event (`late`).
    """

    def __init__(self, base: LiveBase, version: int = 0):
        self.base, self.version = base, version
        self.sides: dict[Side, Nodes] = {
            side: Nodes(base.values[side], base.vocabularies[side].size) for side in SIDES
        }
        self.pairs = LivePairs()
        self.cold_start = ColdStart(base.snapshot, base.placements, base.scores, self.sides, self.pairs)
        self.rates = LiveRates(base.snapshot.rates)
        self.now = base.snapshot.now
        self.counts = {"events": 0, "duplicates": 0, "unknown": 0, "late": 0}
        self._seen = SeenEvents()

    def indices(self, side: Side, ids: Sequence[Id]) -> NDArray[np.int64]:
        """Return indices of ids, newcomers included; -1 for those never seen. Shape (n,)."""
        index = self.base.vocabularies[side].look_up(ids)
        if self.sides[side].new_ids:
            missing = np.flatnonzero(index < 0).tolist()
            index[missing] = self.newcomers(side, [ids[row] for row in missing])
        return index

    def newcomers(self, side: Side, ids: Sequence[Any]) -> list[int]:
        """Return indices of newcomers, -1 for other ids."""
        kind, known = self.base.vocabularies[side].type, self.sides[side].new_ids
        return [known.get(canonical_id(one, kind) or "", -1) for one in ids]

    def prepare(self, events: Sequence[Event]) -> Batch:
        """Look up which events are new, and read the base values of the nodes that they touch first."""
        base, seen = self.base, SeenEvents(self.base.seen, self._seen)
        understood = base.understood(events)
        new: list[tuple[Event, int]] = []
        for event in understood:
            if interactions := seen.add(event, base.task_masks[event.behavior]):
                new.append((event, sum(1 << task for *_, task in interactions)))
        time = np.array([event.time for event, _ in new], np.int64)
        task_mask = np.array([mask for _, mask in new], np.int64)
        index: dict[Side, NDArray[np.int64]] = {}
        newcomers: dict[Side, list[Id]] = {}
        values: dict[Side, dict[str, NDArray]] = {}
        for side in SIDES:
            ids, nodes = [getattr(event, side) for event, _ in new], self.sides[side]
            index[side] = self.indices(side, ids)
            unknown = np.flatnonzero(index[side] < 0).tolist()
            numbers = {
                one: nodes.indexed + k for k, one in enumerate(dict.fromkeys(ids[row] for row in unknown))
            }
            index[side][unknown] = [numbers[ids[row]] for row in unknown]
            newcomers[side] = list(numbers)
            if len(first := nodes.untouched(index[side])):
                values[side] = base.values[side].read(first)
        recent = [
            mask.bit_count() if base.since is None or event.time >= base.since else 0 for event, mask in new
        ]
        counts = {
            "events": len(new),
            "duplicates": len(understood) - len(new),
            "unknown": len(events) - len(understood),
            "late": int((time <= base.newest).sum()),
        }
        return Batch(index, newcomers, values, task_mask, time, np.array(recent, np.int64), seen, counts)

    def commit(self, batch: Batch) -> int:
        """Add the events of a batch that was prepared on the present state.

        Returns:
            How many changed something.
        """
        if batch.counts["events"]:
            self.now = max(self.now, int(batch.time.max()) + 1)
            for side in SIDES:
                self.sides[side].add_newcomers(batch.newcomers[side])
            for side, values in batch.values.items():
                self.sides[side].touch(values)
            self._add(batch)
        self._seen.update(batch.seen)
        self.counts = {name: count + batch.counts[name] for name, count in self.counts.items()}
        return batch.counts["events"]

    def prepare_exposures(self, changes: Changes) -> ExposureBatch:
        """Look up what has become known of exposures; ids that the vocabulary cannot hold are left out."""
        read: dict[Side, list[Id | None]] = {}
        for side in self.rates.sides:
            kind = self.base.vocabularies[side].type
            read[side] = [canonical_id(one, kind) for one in getattr(changes, side)]
        kept = [row for row in range(len(changes.item)) if all(ids[row] is not None for ids in read.values())]
        features = [feature for feature in self.base.context.features if feature.name in self.rates.contexts]
        values = read_context([changes.context[row] for row in kept], features)
        context = self.base.context.encode(
            {feature.name: value for feature, value in zip(features, values, strict=True)}, len(kept)
        )
        ids: dict[Side, list[Id]] = {
            side: [one for row in kept if (one := found[row]) is not None] for side, found in read.items()
        }
        nodes: dict[Side, NDArray[np.int64]] = {side: self.indices(side, ids[side]) for side in ids}
        return ExposureBatch(ids, nodes, context, changes.counts[kept], changes.values[kept])

    def commit_exposures(self, batch: ExposureBatch) -> None:
        """Add what was prepared on the present state. Nodes that are new get an index."""
        index: dict[Side, NDArray[np.int64]] = {}
        for side, ids in batch.ids.items():
            nodes, found = self.sides[side], batch.nodes[side].copy()
            unknown = np.flatnonzero(found < 0).tolist()
            nodes.add_newcomers([*dict.fromkeys(ids[row] for row in unknown)])
            found[unknown] = [nodes.new_ids[ids[row]] for row in unknown]
            index[side] = found
        self.version += 1
        self.rates.add(batch._replace(nodes=index), self.version)

    def _add(self, batch: Batch) -> None:
        pairs, scores = self.pairs, self.base.scores
        key, inverse = np.unique(batch.nodes["user"] << 32 | batch.nodes["item"], return_inverse=True)
        user, item = key >> 32, key & (1 << 32) - 1
        changed = pairs.add(user, item, self.sides, self.base.values["user"].rows)
        old_task_mask, old_events = pairs.task_mask[changed], pairs.events[changed]
        each, old_total, many = changed[inverse], pairs.total[changed], np.bitwise_count(batch.task_mask)
        np.bitwise_or.at(pairs.task_mask, each, batch.task_mask)
        np.maximum.at(pairs.time, each, batch.time)
        np.minimum.at(pairs.first, each, batch.time)
        np.add.at(pairs.total, each, many)
        np.add.at(pairs.events, each, batch.events)
        pairs.events[changed] = np.minimum(pairs.events[changed], MOST_EVENTS)
        task_mask = pairs.task_mask[changed]
        slots: dict[Side, NDArray[np.int64]] = {
            side: getattr(pairs, side)[changed].astype(np.int64) for side in SIDES
        }
        for side in SIDES:
            other = self.sides[OTHER[side]]
            self.sides[side].add(
                Change(
                    own=slots[side],
                    other=other.index[slots[OTHER[side]]],
                    other_macro=other.macro[slots[OTHER[side]]],
                    score=scores[task_mask],
                    old_score=scores[old_task_mask],
                    base_score=scores[pairs.base_task_mask[changed]],
                    task_mask=task_mask,
                    old_task_mask=old_task_mask,
                    events=pairs.events[changed] - old_events,
                    gained=pairs.total[changed] - old_total,
                    time=pairs.time[changed],
                    first=pairs.first[changed],
                ),
                other,
            )
        self.version += 1
        touched: dict[Side, NDArray[np.int64]] = {side: np.unique(slots[side]) for side in SIDES}
        slot = {side: self.sides[side].slots(batch.nodes[side]) for side in SIDES}
        for side in SIDES:
            self.sides[side].add_times(slot[side], batch.time, many)
        waiting: dict[Side, NDArray[np.int64]] = {
            side: self.cold_start.add(side, slot[side], batch.nodes[OTHER[side]], batch.time, batch.task_mask)
            for side in SIDES
        }
        for side, moved in self.cold_start.place(waiting, touched).items():
            self.sides[side].finish(moved, self.version)
