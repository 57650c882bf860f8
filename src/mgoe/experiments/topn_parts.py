"""What top-N results are made with, so that tables hold only what is asked for."""

from collections.abc import Iterable
from typing import Any

from mgoe.config import TopNSettings
from mgoe.evaluation import REACHABLE
from mgoe.experiments.folder import DONE
from mgoe.experiments.plan import Cell, Log, Plan
from mgoe.topn import BASELINES


def baselines_of(plan: Plan) -> list[tuple[str, int]]:
    """Return the name and seed of each baseline: the first seed alone for those that draw nothing."""
    topn, seeds = plan.comparison.topn, plan.settings.seeds
    return [
        (name, seed)
        for name in (topn.baselines if topn is not None else ())
        for seed in (seeds if BASELINES[name].random else seeds[:1])
    ]


def bounds_of(plan: Plan, log: Log) -> list[tuple[str, int]]:
    """Return the name and seed of the best reachable lists, which are known of a simulated world by time."""
    seed = plan.settings.seeds[0]
    known = plan.comparison.topn is not None and log.settings(seed).data.truth is not None
    return [(REACHABLE, seed)] if known else []


def lists_of(plan: Plan) -> list[tuple[Log, str, int]]:
    """Return the log, name and seed of all lists that are asked for, of models, baselines and bounds."""
    if plan.comparison.topn is None:
        return []
    models = [(cell.log, cell.variant.name, cell.seed) for cell in plan.cells]
    others = {name: baselines_of(plan) + bounds_of(plan, log) for name, log in plan.logs.items()}
    return models + [(plan.logs[name], *one) for name, found in others.items() for one in found]


def unmeasured_baselines(plan: Plan, cells: Iterable[Cell]) -> set[str]:
    """Return the baselines whose lists on a log of some cells are not measured yet."""
    logs = {cell.log.name: cell.log for cell in cells}.values()
    asked = baselines_of(plan)
    return {name for log in logs for name, seed in asked if not (log.lists(name, seed) / DONE).exists()}


def topn_of_model(topn: TopNSettings) -> dict[str, Any]:
    """Return what decides the lists of a fitted model, as plain values."""
    return {"topn": topn.model_dump(mode="json", exclude={"baselines", "trials"})}


def topn_of_baseline(topn: TopNSettings, name: str) -> dict[str, Any]:
    """Return what decides the lists of a baseline on prepared data, as plain values."""
    baseline = BASELINES[name]
    space = {
        key: values if isinstance(values, list) else values.model_dump()
        for key, values in baseline.space.items()
    }
    searched = {"baseline": name, "start": dict(baseline.start), "space": space}
    return {
        "topn": topn.model_dump(mode="json", exclude={"baselines", "exact_users", "retrieval"}) | searched
    }


def topn_of_bound(topn: TopNSettings) -> dict[str, Any]:
    """Return what decides the best reachable lists, as plain values."""
    return {"topn": topn.model_dump(mode="json", include={"k", "tasks", "hide_known"}), "bound": REACHABLE}
