"""Top-N lists of a baseline with one seed on one log: settings are chosen on validation, lists measured on
test.
"""

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mgoe._util.files import read_json, write_json
from mgoe.config import RunSettings, TopNSettings
from mgoe.data import Prepared
from mgoe.errors import MgoeError
from mgoe.evaluation import ALL, Influence, Row, write_rows
from mgoe.experiments.folder import DONE, FIT, INFLUENCE
from mgoe.experiments.held_out import held_pairs
from mgoe.experiments.plan import Log
from mgoe.experiments.topn_objective import relevant_tasks
from mgoe.experiments.tuning import best_trial, propose
from mgoe.topn import Budget, Events, NextItems, Queries, Scores, find_baseline, measure_lists

TRIALS = "trials.json"
"""Settings that were tried on validation."""


def queries_of(
    log: Log, settings: RunSettings, prepared: Prepared, topn: TopNSettings
) -> tuple[Queries, Queries]:
    """Return the queries of a log: some users on validation, and all on test.

    Validation is by time in every log, so that what is chosen there is chosen on what models do not know.
    """
    tasks = [t for t, task in enumerate(settings.tasks) if task.name in relevant_tasks(settings, topn)]
    hide, kind = topn.hides(log.whole is not None), NextItems if topn.next_item else Queries
    valid = kind.by_time(prepared, "valid", tasks, hide).sample(topn.tuning_users, topn.seed)
    if log.whole is None:
        return valid, kind.by_time(prepared, "test", tasks, hide)
    return valid, Queries.held_out(prepared, *held_pairs(log.rest, prepared), hide)


def measure_baseline(log: Log, name: str, seed: int, topn: TopNSettings, data: int) -> str:
    """Search the settings of a baseline on validation, and measure its lists on test.

    An interrupted search resumes.

    Args:
        log: The log.
        name: Of the baseline.
        seed: Of the baseline.
        topn: What is measured, and the number of trials.
        data: The seed whose prepared data are read; history and test rows are the same for all.

    Returns:
        The result in a few words.

    Raises:
        TrainingError: Every trial failed.
    """
    settings, folder, baseline = log.settings(data), log.lists(name, seed), find_baseline(name)
    prepared = Prepared.open(log.stage(data) / "data")
    valid, test = queries_of(log, settings, prepared, topn)
    depth = topn.k[0]
    file = folder / TRIALS
    trials = read_json(file)["trials"] if file.exists() else []
    spent = np.zeros(2)  # by the clock, and by the processor

    def fit(changed: Mapping[str, Any], budget: Budget, events: Events) -> Scores:
        begin = np.array([time.perf_counter(), time.process_time()])
        scores = baseline.fit(events, changed, seed, budget)
        spent[:] += np.array([time.perf_counter(), time.process_time()]) - begin
        return scores

    while len(trials) < topn.trials:
        changed = propose(baseline.space, trials, topn.seed, lower_is_better=False, first=[baseline.start])
        started, value, failed = time.process_time(), None, ""
        budget = Budget(60 * topn.trial_minutes)
        try:
            lists = valid.lists(partial(fit, changed, budget), depth)
            value = value_of(measure_lists(lists, valid, [depth]), f"ndcg@{depth}")
        except (MgoeError, ArithmeticError, np.linalg.LinAlgError) as error:
            failed = " ".join(str(error).split())
        seconds = round(time.process_time() - started, 1)
        trials.append(
            {
                "settings": changed,
                "value": value,
                "failed": failed,
                "cpu_seconds": seconds,
                "stopped_after_epochs": budget.stopped,
            }
        )
        write_json(file, {"trials": trials})
    best = best_trial(f"topn, {name}", trials, lower_is_better=False)
    budget, started, spent[:] = Budget(60 * topn.trial_minutes), time.process_time(), 0
    lists = test.lists(partial(fit, best, budget), max(topn.k))
    seconds = time.process_time() - started - spent[1]
    about = {
        "training_seconds": round(spent[0], 2),
        "cpu_seconds": round(spent[1], 2),
        "stopped_after_epochs": budget.stopped,
        "lists_cpu_seconds": round(seconds, 2),
    }
    if isinstance(test, NextItems):
        about |= {"queries": len(test.row), "unseen": float(test.unseen.mean())}
    found = measure_lists(lists, test, topn.k)
    return write_result(folder, name, seed, {"trials": trials, "best": best, **about}, found)


def value_of(found: Influence, metric: str) -> float:
    return float(found.values[found.names.index((ALL, metric))])


def write_result(folder: Path, name: str, seed: int, about: Mapping[str, Any], found: Influence) -> str:
    """Write what lists are worth, the metrics last, and return the first ones in words."""
    rows = [
        Row(model=name, seed=seed, split="test", slice=ALL, task=task, metric=metric, value=float(value))
        for (task, metric), value in zip(found.names, found.values, strict=True)
    ]
    write_json(folder / FIT, dict(about))
    found.save(folder / INFLUENCE)
    write_rows(folder / DONE, rows)
    return ", ".join(
        f"{metric} {value:.4f}" for (_, metric), value in zip(found.names[:2], found.values[:2], strict=True)
    )
