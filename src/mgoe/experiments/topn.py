"""Top-N lists of a comparison: every finished cell and every baseline is measured, each in a process, and so
are the lists of a simulated world's own truth, which no model can beat except by luck.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgoe._util.processes import Job, run_jobs
from mgoe.config import RunSettings, TopNSettings, seconds
from mgoe.data import Prepared
from mgoe.evaluation import REACHABLE
from mgoe.experiments.asked import references_of
from mgoe.experiments.folder import DONE
from mgoe.experiments.plan import Cell, Log, Plan
from mgoe.experiments.topn_cell import measure_baseline, measure_model, queries_of, write_result
from mgoe.experiments.topn_objective import relevant_tasks
from mgoe.simulation import Truth, check_reachable
from mgoe.simulation.expected import expected_actions
from mgoe.topn import Scores, make_lists, measure_lists

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


def measure_reachable(log: Log, name: str, seed: int, topn: TopNSettings, data: int) -> str:
    """Measure the best reachable lists on the test windows of a log with a truth.

    Args:
        log: The log.
        name: Noted with the result.
        seed: Noted with the result; nothing is drawn.
        topn: What is measured.
        data: The seed whose prepared data are read; history and test rows are the same for all.

    Returns:
        The result in a few words.
    """
    settings = log.settings(data)
    prepared = Prepared.open(log.stage(data) / "data")
    _, test = queries_of(log, settings, prepared, topn)
    scores = true_scores(Truth.open(Path(settings.data.truth or "")), settings, topn, prepared)
    found = measure_lists(make_lists(scores, test, max(topn.k)), test, topn.k)
    return write_result(log.lists(name, seed), name, seed, {}, found)


def true_scores(truth: Truth, settings: RunSettings, topn: TopNSettings, prepared: Prepared) -> Scores:
    """Return scores of known items by how often a user is expected to make them relevant in the test windows.

    Args:
        truth: The world.
        settings: Settings of a run on its log.
        topn: Which tasks make an item relevant.
        prepared: The log.
    """
    behaviors = dict(zip(settings.task_names, check_reachable(truth.settings, settings), strict=True))
    wanted = [behaviors[name] for name in relevant_tasks(settings, topn)]
    snapshot = prepared.valid_window + 1
    ends = np.array([prepared.cuts[snapshot], prepared.examples("test").bucket.max()], np.int64) + 1
    start, end = (ends * seconds(settings.data.bucket)).astype("datetime64[s]")
    items = prepared.items.ids(np.arange(prepared.items_at[snapshot])).to_numpy(zero_copy_only=False)

    def scores(users: NDArray[np.int64]) -> NDArray[np.float64]:
        ids = prepared.users.ids(users).to_numpy(zero_copy_only=False)
        return expected_actions(truth, ids, items, wanted, start, end)

    return scores
