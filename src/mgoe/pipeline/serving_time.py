"""How long a model takes to serve: milliseconds of one core in which 500 candidates of a user are scored.

The model is bundled and scored as a service scores it, without HTTP and live events. Boosted trees, which no
bundle can hold, are scored by their library. What is measured is the processor time of the scoring thread, so
other work on the machine hardly changes it.
"""

import logging
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from mgoe._util.files import read_json, write_json
from mgoe._util.processes import Job, run_jobs
from mgoe.bundle import Bundle
from mgoe.pipeline import records
from mgoe.pipeline.cell_bundle import write_cell_bundle
from mgoe.pipeline.folder import FIT
from mgoe.pipeline.inputs import Inputs
from mgoe.pipeline.plan import Cell, Plan, is_boosted
from mgoe.pipeline.refit import load_model
from mgoe.serving.scoring.runtime import Runtime
from mgoe.serving.scoring.scorer import Scorer

logger = logging.getLogger(__name__)

CANDIDATES = 500
WARM_UP = 10
"""Requests before the first one that counts."""
Score = Callable[[int, NDArray[np.int64]], object]
"""Scores items for a user, by index."""


def time_models(plan: Plan, cells: Sequence[Cell], until: float | None) -> None:
    """Time the serving of every model of some cells that is not timed yet, one after the other.

    A model that cannot be timed has no figure, and the same command tries it again.

    Args:
        plan: The comparison.
        cells: The chosen cells.
        until: `time.monotonic()` after which no model begins.
    """
    requests = plan.comparison.serving_requests
    waiting = {f"serving of {cell.title}": cell for cell in (untimed(plan, cells) if requests else ())}
    if not waiting:
        return
    logger.info(f"timing the serving of {len(waiting)} models")
    jobs = [Job(name, time_cell, (cell, requests)) for name, cell in waiting.items()]
    with closing(run_jobs(jobs, 1, plan.out, 1, until)) as outcomes:
        for outcome in outcomes:
            name = outcome.job.name
            if outcome.failed:
                logger.info(f"  {name} cannot be timed: {outcome.failed}")
            else:
                records.note_serving(plan.out, waiting[name])
                logger.info(f"  {name}: {outcome.value:.2f} ms per {CANDIDATES} candidates")


def untimed(plan: Plan, cells: Sequence[Cell]) -> list[Cell]:
    """Return one finished cell for each model and log of some cells that has no time yet."""
    chosen, lines = {(cell.log.name, cell.variant.name) for cell in cells}, records.latest(plan.out)
    finished = [cell for cell in plan.cells if cell.done and cell.key[:2] in chosen]
    timed = {cell.key[:2] for cell in finished if lines.get(cell.key, {}).get("serving_ms") is not None}
    found: dict[tuple[str, str], Cell] = {}
    for cell in finished:
        if cell.key[:2] not in timed:
            found.setdefault(cell.key[:2], cell)
    return list(found.values())


def time_cell(cell: Cell, requests: int) -> float:
    """Time the serving of a cell's model and note it in `fit.json`.

    Args:
        cell: A finished cell.
        requests: How many requests to time, of random users and items of the log.

    Returns:
        The median processor time of a request, in milliseconds.
    """
    settings = cell.settings.model_copy(update={"retrieval": "exact"})  # candidates are given
    inputs = Inputs.open(cell.log.stage(cell.seed), settings, cell.graph)
    users, items = (max(1, one.size) for one in (inputs.prepared.users, inputs.prepared.items))
    opened = _trees if is_boosted(cell.variant.settings()) else _served
    with opened(cell, inputs) as (score, engine):
        [taken] = request_times([score], users, items, requests, cell.seed)
    served = {"serving_ms": round(taken, 3), "serving_engine": engine}
    write_json(cell.folder / FIT, read_json(cell.folder / FIT) | served)
    return served["serving_ms"]


def request_times(
    scores: Sequence[Score], users: int, items: int, requests: int, seed: int = 0
) -> list[float]:
    """Return the median processor time of a request with each way to score, in milliseconds.

    A request has 500 candidates of the catalogue. Every way gets the same requests in turn, so that other
    work on the machine slows all of them.

    Args:
        scores: The ways to score.
        users, items: How many there are.
        requests: How many requests to time, of random users and items.
        seed: Of the draws.
    """
    rng, taken = np.random.default_rng(seed), [list[float]() for _ in scores]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # LightGBM follows
    try:
        for _ in range(WARM_UP + requests):
            user, candidates = int(rng.integers(users)), rng.integers(0, items, CANDIDATES)
            for score, times in zip(scores, taken, strict=True):
                started = time.thread_time()
                score(user, candidates)
                times.append(time.thread_time() - started)
    finally:
        torch.set_num_threads(threads)
    return [statistics.median(times[WARM_UP:]) * 1e3 for times in taken]


def open_scorer(bundle: Bundle) -> tuple[Scorer, Runtime]:
    """Return what scores the requests of a service, and what runs it: ONNX Runtime, or PyTorch where a model
    cannot be exported."""
    runtime = Runtime()
    try:
        return Scorer(bundle, runtime=runtime), runtime
    except Exception:  # no extra, or an error of the exporter; these have no class in common
        runtime = Runtime(engine="torch")
        return Scorer(bundle, runtime=runtime), runtime


@contextmanager
def _served(cell: Cell, inputs: Inputs) -> Iterator[tuple[Score, str]]:
    """Score as a service does."""
    with TemporaryDirectory(prefix="mgoe-") as scratch:
        folder = Path(scratch) / "bundle"
        write_cell_bundle(folder, cell, inputs)
        scorer, runtime = open_scorer(Bundle.open(folder, verify=False))
        yield scorer.score, runtime.engine


@contextmanager
def _trees(cell: Cell, inputs: Inputs) -> Iterator[tuple[Score, str]]:
    """Score as LightGBM does, of what the model reads of the latest snapshot."""
    scored = inputs.scored(load_model(cell, inputs), inputs.graph.latest)
    yield lambda user, items: scored.score_indices(np.full(len(items), user), items), "lightgbm"
