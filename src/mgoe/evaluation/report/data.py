"""The content of a report as plain values; everything but the rows may be missing."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from mgoe.evaluation.intervals import Estimate
from mgoe.evaluation.rows import ALL, Row
from mgoe.features.macro_nodes import MacroNode


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
    """The macro graph of one snapshot, prepared for people.

    Attributes:
        lift: See `mgoe.graph.matrices.lift`. Shape (Ku, Ki).
        users, items: Its macro nodes, by number.
        cold_users, cold_items: Nodes without a macro node.
    """

    lift: NDArray[np.float64]
    users: Sequence[MacroNode]
    items: Sequence[MacroNode]
    cold_users: int = 0
    cold_items: int = 0

    def order(self, most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the largest user and item macro nodes, ordered so that similar ones are adjacent.

        Args:
            most: Number of macro nodes per side, at most.
        """
        sizes = ([-node.members for node in side] for side in (self.users, self.items))
        users, items = (np.sort(np.argsort(of_side, kind="stable")[:most]) for of_side in sizes)
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
        notices: What is odd about the log or the results, said above the tables.
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
    notices: Sequence[str] = ()
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
