"""What top-N lists are to find, what models order items by, and what lists are compared with: those of
baselines, and the best reachable ones."""

from collections.abc import Iterable

from mgoe.bundle.objective import Objective, ObjectiveError, read_objective
from mgoe.bundle.sampling import chain
from mgoe.config import RunSettings, TopNSettings
from mgoe.errors import ConfigError
from mgoe.evaluation import REACHABLE
from mgoe.pipeline.folder import DONE
from mgoe.pipeline.plan import Cell, Log, Plan
from mgoe.topn import Baseline, find_baseline


def relevant_tasks(settings: RunSettings, topn: TopNSettings) -> list[str]:
    """Return the names of the tasks that make an item relevant."""
    return topn.tasks or [task.name for task in settings.tasks if task.kind == "binary"]


def list_objective(settings: RunSettings, topn: TopNSettings) -> Objective:
    """Return what models order items by: by default the sum of the probabilities of the relevant tasks, each
    of which counts with the probability that it is done at all.

    Raises:
        ConfigError: `topn.objective` breaks the grammar, or names no task of the log.
    """
    done = (" * ".join(chain(name, settings.tasks)) for name in relevant_tasks(settings, topn))
    try:
        return read_objective(topn.objective or " + ".join(done), settings.task_names)
    except ObjectiveError as error:
        raise ConfigError("topn.objective", error.message) from None


def references_of(plan: Plan, log: Log) -> list[tuple[str, int]]:
    """Return the name and seed of the lists that those of models are compared with on a log.

    They are those of baselines, with the first seed alone if nothing is drawn, and the best reachable ones,
    which are known of a simulated world by time, and not of next items.
    """
    topn, seeds = plan.comparison.topn, plan.settings.seeds
    if topn is None:
        return []
    known = log.settings(seeds[0]).data.truth is not None and not topn.next_item
    return [
        *((name, seed) for name in topn.baselines for seed in (seeds if is_drawn(plan, name) else seeds[:1])),
        *[(REACHABLE, seeds[0])] * known,
    ]


def baselines_of(plan: Plan) -> dict[str, Baseline]:
    """Return the baselines of a plan's lists by name.

    Raises:
        ConfigError: One of an extension cannot be imported.
    """
    topn = plan.comparison.topn
    return {name: find_baseline(name) for name in (() if topn is None else topn.baselines)}


def is_drawn(plan: Plan, name: str) -> bool:
    """Tell whether the lists of a model or baseline depend on its seed."""
    return name not in (known := baselines_of(plan)) or known[name].random


def unmeasured_baselines(plan: Plan, cells: Iterable[Cell]) -> dict[str, Baseline]:
    """Return the baselines whose lists on a log of some cells are not measured yet, by name."""
    logs, baselines = {cell.log.name: cell.log for cell in cells}.values(), baselines_of(plan)
    return {
        name: baselines[name]
        for log in logs
        for name, seed in references_of(plan, log)
        if name in baselines and not (log.lists(name, seed) / DONE).exists()
    }
