"""The live state: the latest snapshot of a bundle and every event since, as a model reads them.

An event changes its user and its item at once, exactly as the next update of the graph will: the pair's tasks and score, both nodes'
counts, 1st-order edges at every resolution, recents (ties among newcomers aside, see `_rank`) and macro task table. Their 2nd-order edges
change too, by the counterpart's edges as of the snapshot. All other nodes stay as the snapshot has them until the next update.

Of the 2nd order: a snapshot has `N_u2[u] = sum_i s_ui (N_i1[i] - s_ui e_c(u))`, over two steps to whoever else touched `i`, since
`s_ui e_c(u)` is what `u` itself gave to `N_i1[i]`. These others are held as they were, `N_i1[i] - s0_ui e_c(u)` with the snapshot's
`s0_ui`. So when `s_ui` moves by `ds_ui`,

    dN_u2[u] = ds_ui (N_i1[i] - s0_ui e_c(u)),

everything in brackets of the snapshot: the sum depends on the events, not on their order. An item the same way. What belongs to others
waits for the next update: vectors, masses, totals, shares of tasks, the snapshot's cut from which idle buckets are counted.

The state is a fold over a set of events: unions, maxima and integer sums. One thread writes at a time; readers hold `lock`, for the time of
a reading, and see all of a batch of events or nothing of it.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from mgoe.bundle import Bundle
from mgoe.data import Vocabulary, to_arrow
from mgoe.data.events import task_bits
from mgoe.errors import EventError
from mgoe.graph import MacroGraph
from mgoe.graph.counts import task_share
from mgoe.graph.fold import MOST_EVENTS
from mgoe.graph.pair_rows import OTHER, SIDES, PairRows, Side
from mgoe.graph.scores import UNIT
from mgoe.serving.events.event import Event, Interaction, read_id, typed
from mgoe.serving.online.base_values import BaseValues, score_sums, tasks_done
from mgoe.serving.online.cold_start import ColdStart, Sketched, sketched
from mgoe.serving.online.id_lookup import Id, IdLookup
from mgoe.serving.online.item_pairs import item_rows
from mgoe.serving.online.nodes import Change, Nodes
from mgoe.serving.online.overlay import gather_patched, touched
from mgoe.serving.online.pairs import LivePairs

COUNTED = ("events", "duplicates", "unknown", "late")


class LiveNodes:
    """A graph's latest snapshot with live events on top.

    Args:
        graph: Of the bundle.
        users, items: Its vocabularies.
        behaviors: The tasks that each behaviour does, as bits.
        index: Folder for the pairs by item, see `item_rows`.

    Attributes:
        base: The snapshot, memory-mapped.
        sides: Live nodes by `user` and `item`.
        pairs: Live pairs.
        lock: Held by whoever reads `sides` or `pairs`.
        version: Grows with every batch of events that changed something.
    """

    def __init__(
        self,
        graph: MacroGraph,
        users: Vocabulary,
        items: Vocabulary,
        behaviors: Mapping[str, int],
        index: Path | None = None,
    ):
        meta, self.base = graph.meta, graph.latest
        self.vocabularies: dict[Side, Vocabulary] = {"user": users, "item": items}
        self._known = {side: IdLookup(vocabulary) for side, vocabulary in self.vocabularies.items()}
        self.behaviors, self.newest = dict(behaviors), int(meta["last"])
        self._since = None if graph.since is None else (graph.since + 1) * meta["bucket"]
        self.scores = graph.fixed_scores
        rows: dict[Side, PairRows] = {
            "user": PairRows.by_user(graph.folder(-1)),
            "item": item_rows(graph, index),
        }
        self._rows = rows["user"]
        sums = {side: score_sums(self.base, side) for side in SIDES}
        share = task_share(tasks_done(self._rows.task_mask, len(meta["ranks"])), len(self._rows.task_mask))
        before: dict[Side, BaseValues] = {
            side: BaseValues(side, self.base, self.scores, rows[side], share, sums[OTHER[side]])
            for side in SIDES
        }
        self._recents = self.base.arrays["recent_items"].shape[1]
        self._held: set[Interaction] = set()
        self._held_keys: set[str] = set()
        self._begin(before, sketched(graph, sums["user"]))

    def _begin(self, before: Mapping[Side, BaseValues], sketched: dict[Side, Sketched]) -> None:
        """Without live events."""
        self.sides: dict[Side, Nodes] = {
            side: Nodes(before[side], self.vocabularies[side].size) for side in SIDES
        }
        self.pairs = LivePairs()
        self._cold_start = ColdStart(self.sides, self.pairs, self.scores, sketched)
        self._born: dict[Side, dict[int | str, int]] = {"user": {}, "item": {}}
        self._keys: set[str] = set()
        self._seen: set[tuple[int, int, int]] = set()
        self._counted = dict.fromkeys(COUNTED, 0)
        self._writer, self.lock, self.version = threading.Lock(), threading.RLock(), 0

    @classmethod
    def of(cls, bundle: Bundle, index: Path | None = None) -> LiveNodes:
        """Of a bundle without live events."""
        return cls(
            bundle.graph, bundle.encoders.users, bundle.encoders.items, task_bits(bundle.settings), index
        )

    def untouched(self) -> LiveNodes:
        """Another live state on the same snapshot, without events; what is read of the snapshot, and what it holds, is shared."""
        other = copy(self)
        other._begin({side: self.sides[side].base_values for side in SIDES}, self._cold_start.sketched)
        other.version = self.version
        return other

    def become(self, other: LiveNodes) -> None:
        """Go on as another live state, which began as `untouched` and has had every event of this one."""
        with self._writer, self.lock:
            vars(self).update(
                {name: value for name, value in vars(other).items() if name not in ("_writer", "lock")}
            )

    def apply(self, events: Sequence[Event]) -> int:
        """Add events, in any order. Those that are there already change nothing.

        Returns:
            How many changed something.
        """
        with self._writer:
            known = self._understood(events)
            counted, keys = self._new(known)
            changed = self._add(counted) if counted else 0
            self._keys |= (
                keys  # only now, so that events of a batch that failed repeat nothing when it is tried again
            )
            self._counted["unknown"] += len(events) - len(known)
            self._counted["duplicates"] += len(known) - changed
            return changed

    def skip(self, events: Sequence[Event]) -> None:
        """Events up to where the snapshot holds them, in the log's order: one sent again, by its id or with the same time, will not count.
        Those that do no task or repeat an id are not in the snapshot."""
        with self._writer:
            for event in self._understood(events):
                if event.id not in self._held_keys:
                    self._held |= event.interactions(self.behaviors[event.behavior])
                    if event.id is not None:
                        self._held_keys.add(event.id)

    def indices(self, side: Side, ids: ArrayLike | Any) -> NDArray[np.int64]:
        """Codes of ids, newcomers included; -1 where never seen. Shape (n,)."""
        values = to_arrow(ids)
        codes = self.vocabularies[side].indices(values)
        return self._with_newcomers(side, codes, lambda row: values[row].as_py())

    def look_up(self, side: Side, ids: Sequence[Id]) -> NDArray[np.int64]:
        """The same for ids as JSON has them, by a table that is there since the start: of the vocabulary's own, the one of texts takes
        144 bytes an id, and is made when the first is asked for."""
        return self._with_newcomers(side, self._known[side].of(ids), ids.__getitem__)

    def _with_newcomers(
        self, side: Side, codes: NDArray[np.int64], id_of: Callable[[int], Any]
    ) -> NDArray[np.int64]:
        """Return indices (n,) of the vocabulary, and those of newcomers in the rows that it lacks."""
        kind, born = self.vocabularies[side].type, self._born[side]
        if born and (missed := np.flatnonzero(codes < 0)).size:
            with self.lock:
                codes[missed] = [born.get(_plain(id_of(row), kind, side), -1) for row in missed.tolist()]
        return codes

    def ids(self, side: Side, codes: ArrayLike) -> list[Any]:
        """Ids of codes; none for one that is no node's."""
        wanted = np.asarray(codes, np.int64)
        known = (
            self.vocabularies[side]
            .ids(np.where((wanted >= 0) & (wanted < self.sides[side].known), wanted, -1))
            .to_pylist()
        )
        with self.lock:
            born, first = list(self._born[side]), self.sides[side].known
        return [
            born[code - first] if first <= code < first + len(born) else one
            for one, code in zip(known, wanted.tolist(), strict=True)
        ]

    def size(self, side: Side) -> int:
        """Nodes that have a code."""
        return self.sides[side].count

    def gather(
        self, users: NDArray[np.int64], items: NDArray[np.int64], groups: Iterable[str]
    ) -> dict[str, NDArray]:
        """What a model reads of each pair, as `Snapshot.gather` with the live events in it. The form that every faster one must equal.

        Args:
            users, items: Indices; -1 is a node without history. Shape (B,) each.
            groups: Which inputs to bring.
        """
        with self.lock:
            moved = touched(self.base, self.sides, {"user": users, "item": items}, groups := set(groups))
            if not moved.any():
                return self.base.gather(users, items, groups)
            live = gather_patched(self.base, self.sides, self.pairs, users[moved], items[moved], groups)
            if moved.all():
                return live
            held = self.base.gather(users[~moved], items[~moved], groups)
        out = {name: np.empty((len(users), *values.shape[1:]), values.dtype) for name, values in held.items()}
        for name, values in out.items():
            values[moved], values[~moved] = live[name], held[name]
        return out

    def known_items(self, user: int) -> NDArray[np.int32]:
        """Items in a user's history, rising; none for one without."""
        held, nodes = self.base.known_items(user), self.sides["user"]
        with self.lock:
            if not 0 <= user < nodes.count or nodes.slot[user] < 0:
                return held
            _, numbers = self.pairs.of("user", nodes, nodes.slot[[user]].astype(np.int64))
            return np.union1d(held, self.sides["item"].index[self.pairs.item[numbers]]).astype(np.int32)

    def touched(self, side: Side, since: int = 0) -> NDArray[np.int64]:
        """Nodes that have changed after a version."""
        nodes = self.sides[side]
        with self.lock:
            return nodes.index[: nodes.size][nodes.version[: nodes.size] > since]

    def changes(self, side: Side, code: int) -> dict[str, Any]:
        """What live events changed of a node: pairs, events and score before and now, its live neighbours, and whether it is a newcomer."""
        nodes = self.sides[side]
        with self.lock:
            slot = int(nodes.slot[code]) if 0 <= code < nodes.count else -1
            if slot < 0:
                return {}
            before = nodes.base_values.read(np.array([code]), self._recents)
            _, numbers = self.pairs.of(side, nodes, np.array([slot]))
            numbers = numbers[np.argsort(-self.pairs.time[numbers], kind="stable")]
            other = self.sides[OTHER[side]].index[
                (self.pairs.item if side == "user" else self.pairs.user)[numbers]
            ]
            return {
                "new": bool(nodes.level[slot] > 0),
                "pairs": (int(before["degree"][0]), int(nodes.degree[slot])),
                "events": (int(before["events"][0]), int(nodes.events[slot])),
                "score": (float(before["fixed_sum"][0]) / UNIT, float(nodes.fixed_sum[slot]) / UNIT),
                "edges": (before["edges"][0] / UNIT, nodes.edges[slot] / UNIT),
                f"{OTHER[side]}s": self.ids(OTHER[side], other),
            }

    @property
    def stats(self) -> dict[str, int]:
        """Events that counted, repeated others, are unknown (a behaviour that does no task, or an id that is none of the bundle's type), or
        were older than the snapshot's newest; touched nodes and newcomers of each side; bytes held."""
        with self.lock:
            held = {f"touched {side}s": self.sides[side].size for side in SIDES} | {
                f"new {side}s": len(self._born[side]) for side in SIDES
            }
            return (
                self._counted
                | held
                | {"bytes": sum(part.bytes for part in (*self.sides.values(), self.pairs))}
            )

    def _understood(self, events: Sequence[Event]) -> list[Event]:
        """Those that do a task, with ids as the vocabularies hold them; without those whose ids cannot be such."""
        kinds = {side: vocabulary.type for side, vocabulary in self.vocabularies.items()}
        return [
            event for event in typed(events, kinds) if event is not None and event.behavior in self.behaviors
        ]

    def _new(self, events: Iterable[Event]) -> tuple[list[tuple[Event, int]], set[str]]:
        """Events that repeat neither an id nor what the snapshot holds, with those of their tasks, as bits, that do not either; and the ids
        of all that repeat none."""
        keys: set[str] = set()
        counted = []
        for event in events:
            if event.id in self._held_keys or event.id in self._keys or event.id in keys:
                continue
            if event.id is not None:
                keys.add(event.id)
            if tasks := sum(
                1 << t for *_, t in event.interactions(self.behaviors[event.behavior]) - self._held
            ):
                counted.append((event, tasks))
        return counted, keys

    def _add(self, events: list[tuple[Event, int]]) -> int:
        """Read what the snapshot holds of new nodes, then commit; how many changed something."""
        codes: dict[Side, NDArray[np.int64]] = {}
        born: dict[Side, list[int | str]] = {}
        for side in SIDES:
            codes[side], born[side] = self._coded(side, [getattr(event, side) for event, _ in events])
        values = {}
        for side in SIDES:  # readers need not wait for this, and know no newcomer before its state is there
            if len(new := self.sides[side].untouched(codes[side])):
                values[side] = self.sides[side].base_values.read(new, self._recents)
        with self.lock:
            for side in SIDES:
                self._name(side, born[side])
            for side, found in values.items():
                self.sides[side].touch(found)
            return self._commit(events, codes)

    def _coded(self, side: Side, ids: list[int | str]) -> tuple[NDArray[np.int64], list[int | str]]:
        """Codes of ids, and those ids, each once, that will have theirs when `_name` is told."""
        codes = self.look_up(side, ids)
        unknown = np.flatnonzero(codes < 0)
        born = {
            one: self.sides[side].count + k for k, one in enumerate(dict.fromkeys(ids[k] for k in unknown))
        }
        codes[unknown] = [born[ids[k]] for k in unknown]
        return codes, list(born)

    def _name(self, side: Side, born: list[int | str]) -> None:
        """Let newcomers be known by their ids."""
        nodes = self.sides[side]
        self._born[side].update(zip(born, range(nodes.count, nodes.count + len(born)), strict=True))
        nodes.born([_rank(one) for one in born])

    def _commit(self, events: list[tuple[Event, int]], codes: dict[Side, NDArray[np.int64]]) -> int:
        """Bring the state to what it is with these events, and say how many are new to it."""
        key, inverse = np.unique(codes["user"] << 32 | codes["item"], return_inverse=True)
        numbers = self.pairs.add(key >> 32, key & (1 << 32) - 1, self.sides, self._rows)[inverse]
        bits, time = (
            np.array([tasks for _, tasks in events]),
            np.array([event.time for event, _ in events], np.int64),
        )
        fresh, counts, seen = self._fresh(numbers, bits, time)
        changed = np.unique(numbers)
        old = {name: getattr(self.pairs, name)[changed] for name in ("task_mask", "time", "events")}
        np.bitwise_or.at(self.pairs.task_mask, numbers, bits)
        np.maximum.at(self.pairs.time, numbers, time)
        np.add.at(self.pairs.events, numbers, counts)
        self.pairs.events[changed] = np.minimum(self.pairs.events[changed], MOST_EVENTS)
        self.version += 1
        slots: dict[Side, NDArray[np.int64]] = {
            side: getattr(self.pairs, side)[changed].astype(np.int64) for side in SIDES
        }
        for side in SIDES:
            self.sides[side].add(self._change(side, changed, old, slots))
        touched = self._cold_start.settle({side: np.unique(slots[side]) for side in SIDES})
        for side in SIDES:
            self.sides[side].finish(touched[side], self.version)
        self._seen |= seen
        self._counted["events"] += int(fresh.sum())
        self._counted["late"] += int((fresh & (time <= self.newest)).sum())
        return int(fresh.sum())

    def _fresh(
        self, numbers: NDArray[np.int64], bits: NDArray[np.int64], time: NDArray[np.int64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64], set[tuple[int, int, int]]]:
        """Which events are not there yet, how many each adds to the count of its pair, one a task and moment, none where it is late; and
        these pairs, moments and tasks."""
        fresh, counts = np.zeros(len(numbers), bool), np.zeros(len(numbers), np.int64)
        seen: set[tuple[int, int, int]] = set()
        for k, (number, code, moment) in enumerate(
            zip(numbers.tolist(), bits.tolist(), time.tolist(), strict=True)
        ):
            new = {(number, moment, t) for t in range(code.bit_length()) if code >> t & 1} - self._seen - seen
            seen |= new
            fresh[k] = bool(new)
            counts[k] = len(new) if self._since is None or moment >= self._since else 0
        return fresh, counts, seen

    def _change(
        self,
        side: Side,
        changed: NDArray[np.int64],
        old: dict[str, NDArray],
        slots: dict[Side, NDArray[np.int64]],
    ) -> Change:
        pairs, other = self.pairs, self.sides[OTHER[side]]
        return Change(
            own=slots[side],
            other=other.index[slots[OTHER[side]]],
            other_macro=other.macro[slots[OTHER[side]]],
            score=self.scores[pairs.task_mask[changed]],
            old_score=self.scores[old["task_mask"]],
            base_score=self.scores[pairs.base_task_mask[changed]],
            task_mask=pairs.task_mask[changed],
            old_task_mask=old["task_mask"],
            new=old["task_mask"] == 0,
            events=pairs.events[changed] - old["events"],
            time=pairs.time[changed],
            known=other.known,
            rank=other.rank,
        )


def _plain(value: Any, kind: pa.DataType, side: Side) -> Id:
    """An id as newcomers are kept by."""
    try:
        return read_id(value, kind, side)
    except EventError:
        return ""  # which nobody has


def _rank(one: int | str) -> int:
    """Order of newcomers in recents whose time and score are equal: a number made of the id, so that it does not matter who came first. The
    update goes by codes."""
    if isinstance(one, int):
        return one if one < 1 << 63 else one - (1 << 64)
    return int.from_bytes(hashlib.blake2b(one.encode(), digest_size=8).digest(), "big", signed=True)
