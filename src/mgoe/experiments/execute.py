"""Do the work of a plan: every chosen cell that is not finished, and what it needs."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from mgoe._util.files import read_json, write_json
from mgoe._util.processes import Job, Outcome, run_jobs
from mgoe._util.tables import Frame
from mgoe.config import RunSettings, seconds
from mgoe.data import Prepared
from mgoe.errors import OutputError, TrainingError
from mgoe.evaluation import ALL, UNIFORM, Row, measure, write_rows
from mgoe.experiments import records
from mgoe.experiments.cell import fit_cell, summary_line
from mgoe.experiments.consistency import Measured, measured_cells, odd_seed
from mgoe.experiments.folder import EXAMPLES, FIT
from mgoe.experiments.held_out import hold_out_last
from mgoe.experiments.inputs import Inputs
from mgoe.experiments.notices import of_log, shape_of
from mgoe.experiments.parts import Part
from mgoe.experiments.plan import NOTICES, REFERENCES, Cell, Log, Plan
from mgoe.experiments.stages import build, examples_of, prepare_data
from mgoe.experiments.tuning import note_killed, search
from mgoe.simulation import Truth, reachable, simulate

logger = logging.getLogger(__name__)


def execute(
    plan: Plan,
    cells: Sequence[Cell],
    parts: Sequence[Part],
    command: str = "",
    until: float | None = None,
    inputs: Inputs | None = None,
    show_progress: bool = False,
) -> None:
    """Fit every chosen cell that is not finished, and note each result in `results.jsonl`.

    A cell that fails leaves the others alone. Given `inputs`, what they belong to is a run, which stops at
    the first failure; with one job its cells are fitted in this process.

    Args:
        plan: What they are part of.
        cells: The chosen cells, in order.
        parts: All that they are made of, and searches for their models.
        command: Noted with every cell.
        until: `time.monotonic()` after which no cell begins.
        inputs: The log and the graph of a run.
        show_progress: Show a progress bar of cells that are fitted in this process.

    Raises:
        TrainingError: A cell of a run failed.
    """
    for part in parts:
        part.begin()
    note_finished(plan, plan.cells, command)
    jobs, waiting = jobs_of(plan, cells)
    logger.info(f"training {len(waiting)} of {len(cells)} cells, {plan.settings.jobs} at a time")
    here = inputs is not None and (plan.settings.jobs == 1 or len(jobs) <= 1)
    started, done = time.perf_counter(), 0
    with closing(run_jobs(jobs, plan.settings.jobs, plan.out, plan.threads, until)) as outcomes:
        for outcome in map(Outcome, jobs) if here else outcomes:
            cell = waiting.get(outcome.job.name)
            if here and cell is not None:
                fit_cell(cell, inputs=inputs, show_progress=show_progress)
            note_finished(plan, plan.cells, command)
            if cell is None:
                if outcome.lost and outcome.job.work is search:
                    note_killed(outcome.job.args[-1])
                logger.info(
                    f"  {outcome.job.name}" + (f" failed: {outcome.failed}" if outcome.failed else "")
                )
                continue
            failed = "" if cell.done else outcome.failed  # a process may be killed after its last write
            if failed and inputs is not None:
                killed = f"a process of {plan.settings.jobs} was killed; memory may have run out: take fewer"
                raise TrainingError(
                    "jobs" if outcome.lost else outcome.job.name,
                    f"{killed}, the same command resumes" if outcome.lost else failed,
                )
            if failed:
                records.append(plan.out, records.line_of(cell, "failed", command, reason=failed))
            done += 1
            ended = f"failed: {failed}" if failed else summary_line(read_json(cell.folder / FIT))
            left = timedelta(seconds=round((time.perf_counter() - started) / done * (len(waiting) - done)))
            rest = f"; about {left} left" if done < len(waiting) else ""
            logger.info(f"  [{done}/{len(waiting)}] {cell.title}: {ended}{rest}")


def jobs_of(plan: Plan, cells: Sequence[Cell]) -> tuple[list[Job], dict[str, Cell]]:
    """Return the jobs of unfinished cells, each after those that it needs, and the cells by their titles."""
    jobs: dict[str, Job] = {}
    seeds, lines = tuple(plan.settings.seeds), records.latest(plan.out)
    measured = {name: measured_cells(plan, log, lines) for name, log in plan.logs.items()}

    def need(name: str, there: bool, work: Callable[..., Any], args: tuple, *needs: str) -> str:
        if not there:
            jobs.setdefault(name, Job(name, work, args, tuple(one for one in needs if one in jobs)))
        return name

    def prepared(log: Log, seed: int) -> str:
        stage, drawn = log.stage(seed), log.world is None or (log.path / "world").exists()
        world = need(f"world of {log.name}", drawn, draw_world, (log,))
        apart = log.whole is None or log.rest.exists()
        rest = need(f"last items of {log.name}", apart, hold_out_last, (log.whole, log.rest))
        there = all(path.exists() for path in (stage / "data", stage / EXAMPLES, log.path / REFERENCES))
        there = there and not odd_seed(log, seed, seeds, measured[log.name])
        return need(
            f"examples of {log.name}, seed {seed}",
            there,
            prepare_log,
            (log, seed, seeds, measured[log.name]),
            world,
            rest,
        )

    def built(cell: Cell) -> str:
        label = f", {cell.variant.label}" if cell.variant.graph else ""
        title = f"graph of {cell.log.name}, seed {cell.seed}{label}"
        return need(title, cell.graph.exists(), build_graph_of, (cell,), prepared(cell.log, cell.seed))

    waiting = {cell.title: cell for cell in cells if not cell.done}
    for log in {cell.log.name: cell.log for cell in cells}.values():
        missing = log.settings(seeds[0]).data.truth is not None and not (log.path / REFERENCES).exists()
        if missing and all(cell.log.name != log.name for cell in waiting.values()):  # they were damaged
            prepared(log, seeds[0])
    tune = plan.comparison.tune
    for title, cell in waiting.items():
        needs = [built(cell)]
        if cell.waits:
            base = plan.searched(cell)
            name = f"search of {cell.log.name}, {base.variant.name}"
            needs.append(need(name, False, search, (base, tune, cell.search), built(base)))
        need(title, False, fit_cell, (cell,), *needs)
    return list(jobs.values()), waiting


def note_finished(plan: Plan, cells: Iterable[Cell], command: str) -> None:
    """Add a line for every finished cell that has none: a process may be killed before it adds one.

    Args:
        plan: The run or comparison.
        cells: The cells that may have a line.
        command: Noted with every result.
    """
    lines = records.latest(plan.out)
    for cell in cells:
        if cell.done and lines.get(cell.key, {}).get("state") != "finished":
            records.append(plan.out, records.of_cell(cell, command))


def draw_world(log: Log) -> None:
    """Draw a simulated log."""
    assert log.world is not None
    simulate(log.world, log.path / "world", form=log.settings(0).form)


def prepare_log(
    log: Log,
    seed: int,
    seeds: Sequence[int],
    cells: Measured,
    table: Frame | None = None,
) -> Prepared:
    """Prepare a log with the training negatives of a seed, and note the rows that it is measured on.

    Args:
        log: The log.
        seed: Seed of the negatives.
        seeds: All seeds that are asked for.
        cells: The finished cells by the rows that they were measured on.
        table: Read instead of the log's files.

    Raises:
        OutputError: Its cells would be measured on other rows than the log's other cells.
    """
    settings, folder = log.settings(seed), log.stage(seed)
    prepared = prepare_data(settings, folder, table)
    examples_of(folder)
    if odd := odd_seed(log, seed, seeds, cells):
        raise OutputError(folder, odd)
    if not (log.path / NOTICES).exists():
        said = {"notices": of_log(prepared, settings), "shape": shape_of(prepared, settings)}
        write_json(log.path / NOTICES, said)
    if not (log.path / REFERENCES).exists():
        write_rows(log.path / REFERENCES, reference_rows(settings, prepared))
    return prepared


def build_graph_of(cell: Cell) -> None:
    """Build the graph that a cell reads."""
    build(cell.settings, Prepared.open(cell.log.stage(cell.seed) / "data"), cell.graph)


def reference_rows(settings: RunSettings, prepared: Prepared) -> Iterator[Row]:
    """Yield rows of `chance` and `best-reachable` on validation and test, and on uniformly shown test rows.

    There are none unless `data.truth` names a simulated world. Chance predicts one half for every example,
    and for a regression the mean of the training labels.
    """
    if settings.data.truth is None:
        return
    truth = Truth.open(Path(settings.data.truth))
    labels, features = prepared.streamed("train").labels, prepared.context_features
    chance = [
        0.5 if task.kind == "binary" else np.nanmean(labels[:, t], dtype=np.float64)
        for t, task in enumerate(settings.tasks)
    ]
    for split in ("valid", "test"):
        examples = prepared.examples(split)
        parts: dict[str, tuple[Any, bool | None]] = {ALL: (slice(None), None)}
        if split == "test" and settings.data.uniform is not None:
            parts[UNIFORM] = prepared.streamed(split).column("uniform") > 0, True
        users = prepared.users.ids(examples.user).to_numpy(zero_copy_only=False)
        items = prepared.items.ids(examples.item).to_numpy(zero_copy_only=False)
        times = (
            (examples.bucket.astype(np.int64) * seconds(settings.data.bucket)).astype("datetime64[s]")
            if examples.moment is None
            else examples.moment.astype("datetime64[us]")
        )
        known: dict[str, Any] = {}  # as models know it too
        for name in {"device", "scenario"}.intersection(features.names("categorical")):
            indices = examples.context[name].astype(np.int64) - 1
            known[name] = np.array(features.vocabularies[name].ids(indices).to_pylist(), object)
        for name, (part, uniform) in parts.items():
            ids, seen = (users[part], items[part], times[part]), {k: v[part] for k, v in known.items()}
            best = reachable(truth, settings, *ids, uniform=uniform, **seen)
            for model, scores in (("chance", np.broadcast_to(chance, best.shape)), ("best-reachable", best)):
                of_part = measure(
                    scores,
                    examples.labels[part],
                    examples.user[part],
                    settings.tasks,
                    model=model,
                    seed=settings.seeds[0],
                    split=split,
                )
                yield from (Row(**{**row, "slice": name}) for row in of_part)
