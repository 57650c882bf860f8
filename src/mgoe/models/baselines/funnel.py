"""The task that each task follows from: ESMM multiplies along this order, AITM calibrates by it."""

from collections.abc import Sequence
from typing import Literal

from mgoe.models.baselines.single_task import SingleTaskOptions
from mgoe.models.spec import TaskSpec

Funnel = Literal["first", "chain"]


class FunnelOptions(SingleTaskOptions):
    """Switches of a model with a funnel."""

    funnel: Funnel = "first"
    """What a task without `given` follows from: the first binary task, as conversions follow from a click,
    or, in a `chain`, the binary task before it. A chain fits if every behaviour presupposes the one before,
    unlike favouring and buying."""


def parents(tasks: Sequence[TaskSpec], funnel: Funnel) -> list[int | None]:
    """Return the task that each task follows from.

    None for the first binary task, for regressions, and for tasks given by a regression.
    """
    found: list[int | None] = []
    steps: list[int] = []
    for t, task in enumerate(tasks):
        default = None if not steps else steps[0 if funnel == "first" else -1]
        parent = default if task.given is None else task.given
        follows = task.kind == "binary" and parent is not None and tasks[parent].kind == "binary"
        found.append(parent if follows else None)
        if task.kind == "binary":
            steps.append(t)
    return found
