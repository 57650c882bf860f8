"""Which task each one follows from: what ESMM multiplies along, and what AITM's calibrator holds to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mgoe.models.baselines.single_task import SingleTaskOptions
from mgoe.models.spec import TaskSpec

Funnel = Literal["first", "chain"]


class FunnelOptions(SingleTaskOptions):
    """Switches of a model that knows a funnel."""

    funnel: Funnel = "first"
    """What a task without `given` follows from: the first binary task, as conversions follow from a click, or, in a `chain`, the binary
    task before it. A chain is right where every behaviour presupposes the one before, which favouring and buying do not."""


def parents(tasks: Sequence[TaskSpec], funnel: Funnel) -> list[int | None]:
    """The task that each one follows from; none for the first binary task, for regressions, and for what is given by a regression."""
    found: list[int | None] = []
    steps: list[int] = []
    for t, task in enumerate(tasks):
        usual = None if not steps else steps[0 if funnel == "first" else -1]
        parent = usual if task.given is None else task.given
        follows = task.kind == "binary" and parent is not None and tasks[parent].kind == "binary"
        found.append(parent if follows else None)
        steps += [t] if task.kind == "binary" else []
    return found
