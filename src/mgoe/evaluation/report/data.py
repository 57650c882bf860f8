"""The content of a report as plain values; everything but the rows may be missing."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from mgoe.evaluation.intervals import Estimate
from mgoe.evaluation.rows import ALL, Row


class Curve(NamedTuple):
    """Training of a model with one seed, as points over epochs.

    Attributes:
        monitor: Name of what validation measures.
        validation: Epoch and value; NaN where it does not exist.
        loss: Epoch and training loss, summed over tasks.
        best: The point of `validation` whose weights were kept.
    """

    monitor: str
    validation: list[tuple[float, float]]
    loss: list[tuple[float, float]]
    best: tuple[float, float]

    @classmethod
    def of(cls, run: Mapping[str, Any]) -> Self:
        """Read what `curves.json` holds."""
        validation = [(e["epoch"], math.nan if e["monitor"] is None else e["monitor"]) for e in run["epochs"]]
        losses = [(e["epoch"], [v for v in e["losses"].values() if v is not None]) for e in run["epochs"]]
        return cls(
            run.get("monitor", "validation"),
            validation,
            [(epoch, sum(v for v in of_tasks if math.isfinite(v))) for epoch, of_tasks in losses],
            (run["best_epoch"], dict(validation).get(run["best_epoch"], math.nan)),
        )


@dataclass(frozen=True)
class MacroView:
    """The macro graph of one snapshot and resolution, prepared for people.

    Attributes:
        lift: Score between macro nodes over the score expected from their sums, smoothed. Shape (Ku, Ki).
        user_sizes, item_sizes: Members. Shape (Ku,), (Ki,).
        user_members, item_members: Ids of a few members, those of the highest score sums first; a list a
            macro node.
        cold_users, cold_items: Nodes without a macro node.
    """

    lift: NDArray[np.float64]
    user_sizes: NDArray[np.int64]
    item_sizes: NDArray[np.int64]
    user_members: list[list[str]]
    item_members: list[list[str]]
    cold_users: int
    cold_items: int

    @classmethod
    def of(
        cls,
        edges: NDArray[np.floating],
        user_macro: NDArray[np.integer],
        item_macro: NDArray[np.integer],
        user_sums: NDArray[np.floating],
        item_sums: NDArray[np.floating],
        user_ids: Callable[[NDArray[np.int64]], Iterable[Any]],
        item_ids: Callable[[NDArray[np.int64]], Iterable[Any]],
        examples: int = 5,
    ) -> Self:
        """Make the view from a snapshot's arrays.

        Args:
            edges: Score between macro nodes. Shape (Ku, Ki).
            user_macro, item_macro: Own macro node; Ku or Ki where cold. Shape (U,), (I,).
            user_sums, item_sums: Score sums of nodes. Shape (U,), (I,).
            user_ids, item_ids: Functions from indices to ids.
            examples: Members to name per macro node.
        """
        ku, ki = edges.shape
        edges = edges.astype(np.float64)
        expected = edges.sum(1, keepdims=True) * edges.sum(0) / max(edges.sum(), 1e-12)
        users, items = np.bincount(user_macro, minlength=ku + 1), np.bincount(item_macro, minlength=ki + 1)
        return cls(
            lift=(edges + 0.3) / (expected + 0.3),
            user_sizes=users[:ku],
            item_sizes=items[:ki],
            user_members=_members(user_macro, user_sums, ku, user_ids, examples),
            item_members=_members(item_macro, item_sums, ki, item_ids, examples),
            cold_users=int(users[ku]),
            cold_items=int(items[ki]),
        )

    def order(self, most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the largest user and item macro nodes, ordered so that similar ones are adjacent.

        Args:
            most: Number of macro nodes per side, at most.
        """
        users, items = (
            np.sort(np.argsort(-sizes, kind="stable")[:most]) for sizes in (self.user_sizes, self.item_sizes)
        )
        if min(len(users), len(items)) > 1:
            depth = np.clip(np.log2(np.maximum(self.lift[np.ix_(users, items)], 1e-9)), -3, 3)
            left = np.linalg.svd(depth - depth.mean(), full_matrices=False)[0][:, 0]
            rows = np.argsort(left * np.sign(left[np.abs(left).argmax()]), kind="stable")
            users, items = users[rows], items[np.argsort(depth[rows].argmax(0), kind="stable")]
        return users, items


@dataclass(frozen=True)
class ReportData:
    """Everything a report can show.

    Attributes:
        title: Of the page.
        rows: Of `metrics.json`, all models, seeds, splits and slices; models in the order of the tables.
        lead: The model the report is about; the first of the rows if not given.
        facts: Short facts of the run by name, shown as given (users, rows, seconds ...).
        estimates: Intervals of models (`estimate`) and of differences (`compare`).
        curves: Model, then seed, to what `curves.json` holds.
        reliability: Model, then task, to points as `reliability` makes them.
        macro: The macro graph.
        history_age: How old the history of examples is.
        negatives: How negatives were drawn.
        notes: More paragraphs on how this was measured.
        settings: The resolved settings, YAML.
        command: The command that makes it again.
    """

    title: str
    rows: Sequence[Row]
    lead: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)
    estimates: Sequence[Estimate] = ()
    curves: Mapping[str, Mapping[int, Mapping[str, Any]]] = field(default_factory=dict)
    reliability: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]] = field(default_factory=dict)
    macro: MacroView | None = None
    history_age: str = ""
    negatives: str = ""
    notes: Sequence[str] = ()
    settings: str = ""
    command: str = ""

    @property
    def models(self) -> list[str]:
        """In order of appearance."""
        return list(dict.fromkeys(row["model"] for row in self.rows))

    @property
    def tasks(self) -> list[str]:
        """In order of appearance."""
        return list(dict.fromkeys(row["task"] for row in self.rows if row["task"] != ALL))

    @property
    def leader(self) -> str:
        """The model the report is about."""
        return self.lead or next(iter(self.models), "")


def _members(
    macro: NDArray[np.integer],
    sums: NDArray[np.floating],
    k: int,
    ids: Callable[[NDArray[np.int64]], Iterable[Any]],
    examples: int,
) -> list[list[str]]:
    order = np.lexsort((-np.asarray(sums), macro))
    by_macro = np.split(order, np.searchsorted(macro[order], np.arange(k + 1)))
    chosen = [nodes[:examples] for nodes in by_macro[1:-1]]
    names = map(str, ids(np.concatenate(chosen).astype(np.int64)))
    return [list(itertools.islice(names, len(nodes))) for nodes in chosen]
