"""Which model of a run is served: the first of `models`, unless validation puts another one ahead of it.

A model is ahead if its mean of the score that chooses epochs is better, with an interval above zero when
users are redrawn in pairs, as for the leads of a table. Tasks that too few users of validation do for an
interval are left out of that mean. Test has no part in the choice: figures on test are not of a model that
they chose.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from mgoe._util.files import read_json, write_json
from mgoe.evaluation import Estimate, Influence, find_leads
from mgoe.pipeline.folder import SERVED, VALID_INFLUENCE
from mgoe.pipeline.plan import Cell, Plan, is_boosted
from mgoe.training import Monitor


def choose_served(plan: Plan, kept: bool) -> Cell:
    """Return the cell whose bundle is served, and note its model and the reason in the folder of the run.

    Args:
        plan: A run whose cells are finished.
        kept: The bundle of the run stays, and so does what is noted.

    Returns:
        The best seed on validation of the model that is served.
    """
    file = plan.out / SERVED
    if not (kept and file.exists()):
        name, why = _choice(plan)
        write_json(file, {"model": name, "why": why})
    name = read_json(file)["model"]
    return max((one for one in plan.cells if one.variant.name == name), key=lambda cell: cell.validation)


def _choice(plan: Plan) -> tuple[str, str]:
    """Return the model of a run that is served, and why."""
    first, settings = plan.comparison.lead, plan.cells[0].settings  # of the run, as every cell's
    if settings.serve is not None:
        return settings.serve, f"{settings.serve} is served, because `serve` names it."
    if len(plan.variants) == 1:
        return first, f"{first} is served, the only one of `models`."
    if not all((cell.folder / VALID_INFLUENCE).exists() for cell in plan.cells):
        return first, (
            f"{first} is served, the first of `models`: an earlier version of mgoe has trained some of them, "
            "which kept no results of users on validation."
        )
    monitor = Monitor.parse(settings.training.monitor, settings.tasks)
    losses = {name: dict[int, Influence]() for name in plan.variants}
    sign = 1 if monitor.lower_is_better else -1
    tasks = _carried(plan.cells[0], monitor)
    for cell in plan.cells:
        mean = Influence.load(cell.folder / VALID_INFLUENCE).mean_of(tasks, monitor.parts)
        losses[cell.variant.name][cell.seed] = replace(
            mean, values=sign * mean.values, parts=sign * mean.parts
        )
    boosted = {name for name, one in plan.variants.items() if is_boosted(one.settings())}
    score = monitor.text if len(tasks) == len(monitor.tasks) else f"{monitor.text} of {', '.join(tasks)}"
    return decide(first, find_leads(first, losses[first], losses), boosted, score)


def _carried(cell: Cell, monitor: Monitor) -> Sequence[str]:
    """Return the tasks of a score that enough users of validation do for an interval; all if none has them.
    Only labels decide it, so it holds for every model."""
    found = Influence.load(cell.folder / VALID_INFLUENCE)
    columns = zip(found.names, found.parts.T, strict=True)
    known = {name: not np.isnan(influence).any() for name, influence in columns}
    carried = [task for task in monitor.tasks if all(known[task, part] for part in monitor.parts)]
    return carried or monitor.tasks


def decide(first: str, gains: Sequence[Estimate], boosted: Collection[str], score: str) -> tuple[str, str]:
    """Return the model that is served, and why.

    Args:
        first: The first of `models`.
        gains: What each other model gains over it on validation.
        boosted: Models that no bundle can hold.
        score: Name of the score that is compared.
    """

    def by(gain: Estimate) -> str:
        return f"{gain.value:+.4f}, 95 % interval {gain.low:+.4f} to {gain.high:+.4f}"

    known = sorted((one for one in gains if one.low == one.low), key=lambda one: -one.value)
    if not known:
        return first, (
            f"{first} is served, the first of `models`: too few users of validation have what {score} "
            "compares, so no other can be measurably ahead."
        )
    ahead = [one for one in known if one.low > 0]
    best = next((one for one in ahead if one.baseline not in boosted), None)
    name = first if best is None or best.baseline is None else best.baseline
    better = [one for one in ahead if one.baseline in boosted and (best is None or one.value > best.value)]
    but = "".join(
        f" {one.baseline} gains more ({by(one)}), but no bundle can hold boosted trees." for one in better
    )
    if best is not None:
        return name, (
            f"{name} is served: on validation it is ahead of {first}, the first of `models`, in {score} "
            f"({by(best)}).{but}"
        )
    level = next((one for one in known if one not in better), None)
    nearest = "" if level is None else f"; {level.baseline} comes nearest ({by(level)})"
    return first, (
        f"{first} is served, the first of `models`: on validation no other that a bundle can hold is "
        f"measurably ahead of it in {score}{nearest}.{but}"
    )
