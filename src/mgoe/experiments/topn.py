"""Top-N lists of a comparison: every finished cell and every baseline is measured, each in a process."""

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

from mgoe._util.processes import Job, run_jobs
from mgoe.evaluation import REACHABLE
from mgoe.experiments.asked import references_of
from mgoe.experiments.folder import DONE
from mgoe.experiments.plan import Cell, Log, Plan
from mgoe.experiments.topn_cell import measure_baseline
from mgoe.experiments.topn_model import measure_model
from mgoe.experiments.topn_reachable import measure_reachable

logger = logging.getLogger(__name__)


def measure_topn(plan: Plan, cells: Sequence[Cell], until: float | None) -> dict[str, str]:
    """Measure the lists of finished cells, of baselines and of bounds.

    What cannot be measured has no figure, and the same command tries it again.

    Args:
        plan: The comparison.
        cells: The chosen cells.
        until: `time.monotonic()` after which nothing begins.

    Returns:
        Why lists could not be measured, by title.
    """
    jobs = jobs_of(plan, cells)
    if not jobs:
        return {}
    logger.info(f"measuring the lists of {len(jobs)} models and baselines")
    failed, left = {}, [job.name for job in jobs]
    with closing(run_jobs(jobs, plan.settings.jobs, plan.out, plan.threads, until)) as outcomes:
        for outcome in outcomes:
            left.remove(outcome.job.name)
            if outcome.failed:
                failed[outcome.job.name] = outcome.failed
            logger.info(
                f"  {outcome.job.name}: " + (f"failed: {outcome.failed}" if outcome.failed else outcome.value)
            )
    if left:
        logger.info(f"not measured yet: {'; '.join(left)}; the same command resumes")
    return failed


def jobs_of(plan: Plan, cells: Sequence[Cell]) -> list[Job]:
    """Return a job for everything that is not measured yet and whose data are here, models first.
    Models have no lists of next items."""
    topn = plan.comparison.topn
    if topn is None:
        return []
    jobs = []

    def need(log: Log, name: str, seed: int, work: Callable[..., str], args: tuple[Any, ...]) -> None:
        if not (log.lists(name, seed) / DONE).exists():
            jobs.append(Job(f"lists of {log.name}, {name}, seed {seed}", work, args))

    for cell in cells:
        if cell.done and not topn.next_item:
            need(cell.log, cell.variant.name, cell.seed, measure_model, (cell, topn))
    for log in {cell.log.name: cell.log for cell in cells}.values():
        prepared = [seed for seed in plan.settings.seeds if (log.stage(seed) / "data").exists()]
        for name, seed in references_of(plan, log) if prepared else ():
            work = measure_reachable if name == REACHABLE else measure_baseline
            need(log, name, seed, work, (log, name, seed, topn, prepared[0]))
    return jobs
