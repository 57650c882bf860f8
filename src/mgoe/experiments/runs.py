"""The whole line: prepare, build, train every model with every seed, compare, bundle, report."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mgoe._util.files import exclusive, write_text
from mgoe._util.tables import Frame
from mgoe.bundle import Bundle, write_bundle
from mgoe.config import ModelSettings, RunSettings, load_settings
from mgoe.data import Prepared
from mgoe.errors import ConfigError, TrainingError
from mgoe.evaluation import Row, markdown_table, read_rows, write_rows
from mgoe.experiments.cell import DONE, Cell, Inputs, check_fit, check_installed, run_cell, told
from mgoe.experiments.folder import claim, ends_of, mark
from mgoe.experiments.model_resolution import check_bundled, model_rows, named_models
from mgoe.experiments.processes import Job, run_jobs, wait_for_orphans
from mgoe.experiments.references import reference_rows
from mgoe.experiments.stages import Say, build, prepare_data
from mgoe.experiments.summary import write_report
from mgoe.simulation import Truth, check_reachable


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        path: Its folder.
        rows: Of `metrics.json`.
    """

    path: Path
    rows: list[Row]

    @property
    def metrics(self) -> pd.DataFrame:
        """Tidy: model, seed, split, slice, task, metric, value."""
        return pd.DataFrame(self.rows)

    @property
    def bundle(self) -> Bundle:
        """Of the first model, at its best seed on validation."""
        return Bundle.open(self.path / "bundle")

    def __repr__(self) -> str:
        return f"RunResult({self.path})\n{markdown_table(self.rows)}"


def run(
    settings: RunSettings | Path | str,
    out: Path | str,
    *,
    overwrite: bool = False,
    table: Frame | None = None,
    say: Say = lambda line: None,
    show_progress: bool = True,
    command: str = "",
) -> RunResult:
    """Run everything, or go on with what an interrupted run of the same settings left.

    Args:
        settings: Of the run, or the YAML file that holds them.
        out: Folder of the results.
        overwrite: Replace a finished run, or one of other settings.
        table: An Ibis table, or a frame of pandas, polars or Arrow, to read instead of `data.log`.
        say: Called with a line a stage.
        show_progress: Progress bars, where standard error is a terminal.
        command: What to print in the report as the way to make it again.

    Raises:
        MgoeError: Settings, log, graph or output folder break a rule; what was finished stays.
    """
    started = time.perf_counter()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "torchrun", "trains one model on many processes, found `mgoe run`; use `torchrun -m mgoe train`"
        )
    settings, out = settings if isinstance(settings, RunSettings) else load_settings(settings), Path(out)
    check_bundled(named_models(settings)[0])
    with begin(settings, out, overwrite, say, table) as prepared:
        graph = build(settings, out, prepared, say)
        models = model_rows(settings, prepared)
        train_cells(settings, out, models, say, show_progress)
        rows = collect(settings, out, models)
        rows += reference_rows(settings, prepared)
        write_rows(out / "metrics.json", rows)
        write_text(out / "table.md", markdown_table(rows) + "\n")
        best = best_cell(out, models[0], settings)
        lead = [row for row in rows if row["model"] == models[0].name]
        write_bundle(
            out / "bundle",
            settings=settings,
            model=models[0],
            cell=best.folder,
            prepared=prepared,
            graph=graph,
            metrics=lead,
        )
        write_report(
            settings, out, prepared, graph, models, rows, best, command, seconds=time.perf_counter() - started
        )
        mark(out, "finished", seconds=round(time.perf_counter() - started, 1), command=command)
        say(f"done in {time.perf_counter() - started:,.0f} s: {out / 'report.html'}")
        return RunResult(out, rows)


@contextmanager
def begin(
    settings: RunSettings, out: Path, overwrite: bool, say: Say, table: Frame | None = None
) -> Iterator[Prepared]:
    """Refuse what can be refused before any work is done, hold the output folder for this process, and prepare the log.

    Raises:
        MgoeError: The settings, the log or the folder break a rule.
    """
    for model in named_models(settings):
        check_fit(settings, model)
        check_installed(settings, model)
    if settings.data.truth is not None:
        check_reachable(Truth.open(settings.data.truth).settings, settings)
    with exclusive(out, "a run"):
        wait_for_orphans(out)
        with claim(out, settings, overwrite, None if table is not None else ends_of(settings)) as resumed:
            if resumed:
                say(f"going on with the unfinished run in {out}")
            prepared = prepare_data(settings, out, table, say)
        yield prepared


def train_cells(
    settings: RunSettings, out: Path, models: list[ModelSettings], say: Say, show_progress: bool
) -> None:
    """Every model with every seed that is not finished yet, seed by seed, so that an interrupted run is a fair one of fewer seeds."""
    cells = [Cell(out, model, seed) for seed in settings.seeds for model in models]
    waiting = [cell for cell in cells if not cell.done]
    say(f"training {len(waiting)} of {len(cells)} cells ({len(models)} models, {len(settings.seeds)} seeds)")
    for number, facts in enumerate(_finish(waiting, settings, show_progress), len(cells) - len(waiting) + 1):
        say(f"  [{number}/{len(cells)}] {told(facts)}")


def _finish(cells: list[Cell], settings: RunSettings, show_progress: bool) -> Iterator[dict[str, Any]]:
    if settings.jobs == 1 or len(cells) <= 1:
        inputs = Inputs(cells[0].run, settings) if cells else None
        for cell in cells:
            assert inputs is not None
            yield run_cell(cell, settings, inputs, show_progress)
        return
    jobs = [Job(cell.title, _run_in_child, (cell, settings)) for cell in cells]
    with closing(run_jobs(jobs, settings.jobs, cells[0].run, settings.training.threads)) as outcomes:
        for outcome in outcomes:
            if outcome.lost:
                rule = f"a process of {settings.jobs} was killed; memory may have run out: take fewer, the same command goes on"
                raise TrainingError("jobs", rule)
            if outcome.failed:
                raise TrainingError(outcome.job.name, outcome.failed)
            yield outcome.value


def _run_in_child(cell: Cell, settings: RunSettings) -> dict[str, Any]:
    return run_cell(cell, settings, Inputs(cell.run, settings), show_progress=False)


def collect(settings: RunSettings, out: Path, models: list[ModelSettings]) -> list[Row]:
    """Rows of all cells, models in the order of the settings."""
    return [
        row
        for model in models
        for seed in settings.seeds
        for row in read_rows(Cell(out, model, seed).folder / DONE)
    ]


def best_cell(out: Path, model: ModelSettings, settings: RunSettings) -> Cell:
    """The seed of a model that validation prefers."""
    cells = [Cell(out, model, seed) for seed in settings.seeds]
    return max(cells, key=lambda cell: cell.standing)
