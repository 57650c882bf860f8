"""Top-N lists of a comparison: every finished cell and every baseline measured, and the tables of both."""

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import pandas as pd

from mgoe._util.files import read_json
from mgoe.evaluation import Cost, Influence, Row, Standings, find_leads, group_users, read_rows
from mgoe.experiments.consistency import parts_of
from mgoe.experiments.folder import DONE, FIT, INFLUENCE
from mgoe.experiments.plan import Cell, Log, Plan
from mgoe.experiments.processes import Job, run_jobs
from mgoe.experiments.stages import Say
from mgoe.experiments.topn_cell import measure_baseline, measure_model
from mgoe.experiments.topn_parts import baselines_of
from mgoe.topn import BASELINES

SLICE = "topn"
"""Slice of these rows in `results.parquet`, where every other row is about examples."""
Measured = tuple[str, int]
"""A model or baseline and its seed."""


def measure_topn(plan: Plan, cells: Sequence[Cell], say: Say, until: float | None) -> dict[str, str]:
    """Measure the lists of the baselines, and of those finished cells that have their weights here.

    What cannot be measured has no figure, and the same command tries it again.

    Args:
        plan: The comparison.
        cells: The chosen cells.
        say: Callback for lines of progress.
        until: `time.monotonic()` after which nothing begins.

    Returns:
        Why lists could not be measured, by title.
    """
    jobs = jobs_of(plan, cells)
    if not jobs:
        return {}
    for part in parts_of(plan, cells):
        part.begin()
    say(f"measuring the lists of {len(jobs)} models and baselines")
    failed = {}
    with closing(run_jobs(jobs, plan.settings.jobs, plan.out, _threads(plan), until)) as outcomes:
        for outcome in outcomes:
            if outcome.failed:
                failed[outcome.job.name] = outcome.failed
            say(
                f"  {outcome.job.name}: " + (f"failed: {outcome.failed}" if outcome.failed else outcome.value)
            )
    return failed


def jobs_of(plan: Plan, cells: Sequence[Cell]) -> list[Job]:
    """Return a job for everything that is not measured yet and whose data are here, models first."""
    topn, searched = plan.comparison.topn, plan.comparison.tune is not None
    if topn is None:
        return []
    jobs = []

    def need(log: Log, name: str, seed: int, work: Callable[..., str], args: tuple[Any, ...]) -> None:
        if not (log.lists(name, seed) / DONE).exists():
            jobs.append(Job(f"lists of {log.name}, {name}, seed {seed}", work, args))

    for cell in cells:
        here = all(path.exists() for path in (cell.folder / "spec.json", cell.graph))
        if cell.done and here and (cell.log.stage(cell.seed) / "data").exists():
            need(cell.log, cell.contestant.name, cell.seed, measure_model, (cell, topn, searched))
    data = plan.settings.seeds[0]
    for log in {cell.log.name: cell.log for cell in cells}.values():
        for name, seed in baselines_of(plan) if (log.stage(data) / "data").exists() else ():
            need(log, name, seed, measure_baseline, (log, name, seed, topn, data))
    return jobs


def topn_standings(plan: Plan) -> list[Standings]:
    """Return a table of lists per log, models first; of what is measured."""
    topn = plan.comparison.topn
    if topn is None:
        return []
    found = []
    for log in plan.logs.values():
        influence, costs, rows = dict[str, dict[int, Influence]](), {}, list[Row]()
        for name, seed in measured_lists(plan, log):
            folder = log.lists(name, seed)
            one = group_users(Influence.load(folder / INFLUENCE))
            drawn = name not in BASELINES or BASELINES[name].random
            for each in [seed] if drawn else plan.settings.seeds:  # equal for every seed
                influence.setdefault(name, {})[each] = one
                rows += [Row(**{**row, "seed": each}) for row in read_rows(folder / DONE)]
            costs.setdefault(name, []).append(read_json(folder / FIT))
        lead = plan.comparison.lead
        if influence:
            found.append(
                Standings(
                    question=f"Top-N lists, {_protocol(log, topn.hide_known)}",
                    log=log.name,
                    reference=lead,
                    models=list(influence),
                    rows=rows,
                    leads=find_leads(lead, influence.get(lead, {}), influence),
                    costs={name: _cost(facts) for name, facts in costs.items()},
                    missing=_missing(plan, log, influence),
                    notes=[_chosen(costs)],
                )
            )
    return found


def topn_rows(plan: Plan) -> list[dict[str, Any]]:
    """Return every number of the lists, as `results.parquet` holds them."""
    found = []
    for log in plan.logs.values() if plan.comparison.topn is not None else ():
        for name, seed in measured_lists(plan, log):
            contestant = plan.contestants.get(name)
            whose = {
                "log": log.name,
                "base": contestant.base if contestant else name,
                "variant": contestant.variant if contestant else "",
                "slice": SLICE,
            }
            found += [{**row, **whose} for row in read_rows(log.lists(name, seed) / DONE)]
    return found


def measured_lists(plan: Plan, log: Log) -> list[Measured]:
    """Return whose lists on a log are measured."""
    asked = [(cell.contestant.name, cell.seed) for cell in plan.cells if cell.log == log and cell.done]
    asked += baselines_of(plan)
    return [one for one in asked if (log.lists(*one) / DONE).exists()]


def _protocol(log: Log, hide_known: bool | str) -> str:
    hide = hide_known if hide_known != "auto" else log.whole is not None
    last = "each user's last item held out" if log.whole is not None else "by time"
    return f"{last}, known items {'hidden' if hide else 'included'}"


def _cost(facts: Sequence[dict[str, Any]]) -> Cost:
    means = pd.DataFrame(facts, columns=["training_seconds", "cpu_seconds"], dtype=float).mean(skipna=False)
    return Cost(training_seconds=float(means.iloc[0]), cpu_seconds=float(means.iloc[1]))


def _missing(plan: Plan, log: Log, measured: dict[str, Any]) -> dict[str, str]:
    asked = dict.fromkeys([*plan.contestants, *(name for name, _ in baselines_of(plan))])
    return {name: "lists are not measured yet" for name in asked if name not in measured}


def _chosen(costs: dict[str, list[dict[str, Any]]]) -> str:
    """Say what validation chose, of how many trials."""
    chosen = []
    for name, facts in costs.items():
        best = facts[0]["best"]
        texts = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in best.items()}
        chosen.append(f"{name}: {', '.join(f'{key} {text}' for key, text in texts.items())}")
    return f"Settings that validation chose (first seed): {'; '.join(chosen)}."


def _threads(plan: Plan) -> int:
    return max(log.settings(0).training.threads for log in plan.logs.values())
