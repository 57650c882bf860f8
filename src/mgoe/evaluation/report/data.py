"""The content of a report as plain values; everything but the rows may be missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mgoe.evaluation.intervals import Estimate
from mgoe.evaluation.rows import ALL
from mgoe.evaluation.standings import Standings
from mgoe.features.macro_nodes import MacroNode

DOUBLINGS = 3
"""Doublings of the score between macro nodes at which the colour of a heat map is full."""
MOST = 60
"""Macro nodes of each side that are shown, the largest."""
Bins: TypeAlias = Mapping[str, Sequence[float]]
"""Points of a reliability diagram, see `evaluation.reliability`; empty where there are none."""


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

    @cached_property
    def doublings(self) -> NDArray[np.float64]:
        """Doublings of the score over the expected one, at most `DOUBLINGS` up or down. Shape (Ku, Ki)."""
        return np.clip(np.log2(np.maximum(self.lift, 1e-9)), -DOUBLINGS, DOUBLINGS)

    @property
    def shown(self) -> tuple[list[MacroNode], list[MacroNode]]:
        """The `MOST` largest user and item macro nodes, ordered so that similar ones are adjacent."""
        sizes = ([-node.members for node in side] for side in (self.users, self.items))
        users, items = (np.sort(np.argsort(of_side, kind="stable")[:MOST]) for of_side in sizes)
        if min(len(users), len(items)) > 1:
            depth = self.doublings[np.ix_(users, items)]
            left = np.linalg.svd(depth - depth.mean(), full_matrices=False)[0][:, 0]
            rows = np.argsort(left * np.sign(left[np.abs(left).argmax()]), kind="stable")
            users, items = users[rows], items[np.argsort(depth[rows].argmax(0), kind="stable")]
        return [self.users[k] for k in users], [self.items[k] for k in items]


@dataclass(frozen=True)
class ReportData:
    """Everything a report can show.

    Attributes:
        title: Of the page.
        standings: The table of the run, whose reference the report is about.
        facts: Short facts of the run by name, shown as given (users, rows, seconds ...).
        estimates: Metrics of models with their intervals (`estimate`).
        curves: Model, then seed, to what `curves.json` holds.
        reliability: Model, then task, to points as `reliability` makes them.
        macro: The macro graph.
        notes: Paragraphs on how this was measured.
        settings: The resolved settings, YAML.
        command: The command that makes it again.
    """

    title: str
    standings: Standings
    facts: Mapping[str, object] = field(default_factory=dict)
    estimates: Sequence[Estimate] = ()
    curves: Mapping[str, Mapping[int, Mapping[str, Any]]] = field(default_factory=dict)
    reliability: Mapping[str, Mapping[str, Bins]] = field(default_factory=dict)
    macro: MacroView | None = None
    notes: Sequence[str] = ()
    settings: str = ""
    command: str = ""

    @property
    def tasks(self) -> list[str]:
        """In order of appearance."""
        return list(dict.fromkeys(row["task"] for row in self.standings.rows if row["task"] != ALL))
