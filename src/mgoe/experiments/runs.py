"""`mgoe run` and `mgoe train`: prepare, build, train every model with every seed, bundle and report.

Each stage is also a command of its own, which leaves a folder that `run` resumes.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mgoe._util.files import exclusive, write_text
from mgoe._util.tables import Frame
from mgoe.bundle import Bundle, write_bundle
from mgoe.config import SEEDS, RunSettings, did_you_mean, load_settings
from mgoe.data import Prepared
from mgoe.errors import ConfigError
from mgoe.evaluation import Row, markdown_table, read_rows, write_rows
from mgoe.experiments import records
from mgoe.experiments.cell import Inputs, check_bundled, summary_line, training_of
from mgoe.experiments.consistency import parts_of
from mgoe.experiments.execute import execute, fit_cell, note_finished, prepare_log
from mgoe.experiments.folder import SETTINGS, mark, run_folder
from mgoe.experiments.pages import write_run_report
from mgoe.experiments.parts import DONE
from mgoe.experiments.plan import REFERENCES, Cell, Plan
from mgoe.experiments.processes import wait_for_orphans
from mgoe.experiments.report import own_estimates, rows_of, standings_of, write_leads
from mgoe.experiments.resume import settle
from mgoe.experiments.stages import Say, build
from mgoe.training import joined


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        path: Its folder.
        rows: The rows of `metrics.json`.
    """

    path: Path
    rows: list[Row]

    @property
    def metrics(self) -> pd.DataFrame:
        """One metric per row: model, seed, split, slice, task, metric, value."""
        return pd.DataFrame(self.rows)

    @property
    def bundle(self) -> Bundle:
        """The bundle of the first model, with its best seed on validation."""
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
    """Run everything, or resume an interrupted run.

    Args:
        settings: Settings of the run, or the YAML file that holds them.
        out: Folder of the results.
        overwrite: Replace the run that the folder holds.
        table: An Ibis table, or a frame of pandas, polars or Arrow, to read instead of `data.log`.
        say: Callback for lines of progress.
        show_progress: Show progress bars where standard error is a terminal.
        command: The command that makes the report again, printed in it.

    Raises:
        MgoeError: Settings, log, graph or output folder break a rule; what was finished stays.
    """
    started = time.perf_counter()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "torchrun", "trains one model on many processes, found `mgoe run`; use `torchrun -m mgoe train`"
        )
    settings, out = settings if isinstance(settings, RunSettings) else load_settings(settings), Path(out)
    plan = Plan(settings, out, from_table=table is not None)
    check_bundled(plan.contestants[plan.comparison.lead].settings())
    with begin(plan, plan.cells, overwrite, say, table) as prepared:
        inputs = Inputs(settings, prepared, build(settings, prepared, out / "graph", say))
        execute(plan, plan.cells, say, command, inputs=inputs, show_progress=show_progress)
        by_model = sorted(plan.cells, key=lambda cell: [*plan.contestants].index(cell.contestant.name))
        rows = rows_of(by_model) + read_rows(out / REFERENCES)
        standings = standings_of(plan, records.latest(out))
        write_rows(out / "metrics.json", rows)
        write_text(out / "table.md", markdown_table(rows) + "\n")
        write_leads(plan, standings)
        of_lead = [cell for cell in plan.cells if cell.contestant.name == plan.comparison.lead]
        best = max(of_lead, key=lambda cell: cell.validation)
        _write_bundle(best, inputs, rows_of(of_lead))
        estimates = [*own_estimates(plan), *standings[0].leads]
        seconds = time.perf_counter() - started
        write_run_report(plan, inputs, rows, estimates, best, command, seconds)
        mark(out, "finished", seconds=round(seconds, 1), command=command)
        say(f"done in {seconds:,.0f} s: {out / 'report.html'}")
        return RunResult(out, rows)


def train(
    settings: RunSettings | Path | str,
    out: Path | str,
    model: str | None = None,
    seed: int | None = None,
    *,
    overwrite: bool = False,
    resume: bool = True,
    say: Say = lambda line: None,
    show_progress: bool = True,
) -> list[Row]:
    """Train one model of a run with one seed, and write its bundle.

    Under `torchrun` all processes train together: the first one prepares, measures and writes; the others
    return no rows.

    Args:
        settings: Settings of the run, or the YAML file that holds them.
        out: Folder of the results.
        model: Name of one of the run's models; the first by default.
        seed: The seed; the first of the settings by default.
        overwrite: Replace the run that the folder holds.
        resume: Resume interrupted training from its checkpoint, and leave a finished cell as it is.
        say: Callback for lines of progress.
        show_progress: Show progress bars where standard error is a terminal.

    Returns:
        The measurements on validation and test.

    Raises:
        MgoeError: Settings, log, graph or output folder break a rule.
    """
    settings, out = settings if isinstance(settings, RunSettings) else load_settings(settings), Path(out)
    plan = Plan(settings, out)
    if model is not None and model not in plan.contestants:
        hint = did_you_mean(model, list(plan.contestants))
        raise ConfigError("--model", f"the configuration has no model {model!r}{hint}")
    if seed is not None and not 0 <= seed < SEEDS:
        raise ConfigError(
            "seed",
            f"must lie between 0 and {SEEDS - 1}, found {seed}; leave it out for the first of the settings",
        )
    contestant = plan.contestants[model or plan.comparison.lead]
    cell = Cell(plan.logs[""], contestant, settings.seeds[0] if seed is None else seed)
    check_bundled(contestant.settings())
    with joined(settings.training.device) as processes:
        processes.check_batch(training_of(settings.training, contestant.settings()).batch_size)
        if not processes.leads:
            if not processes.agree(False):  # the first process has prepared everything
                fit_cell(cell, resume=resume)
            return []
        with begin(plan, [cell], overwrite, say) as prepared:
            inputs = Inputs(settings, prepared, build(settings, prepared, out / "graph", say))
            for part in parts_of(plan, [cell]):
                part.begin()
            if not resume:
                shutil.rmtree(cell.folder, ignore_errors=True)
            if not processes.agree(cell.done):
                say(
                    f"training {cell.title}"
                    + (f" on {processes.size} processes" if processes.size > 1 else "")
                )
                say(f"{cell.title}: {summary_line(fit_cell(cell, False, inputs, show_progress, resume))}")
            note_finished(plan, [cell], "")
            rows = read_rows(cell.folder / DONE)
            _write_bundle(cell, inputs, rows)
            return rows


@contextmanager
def begin(
    plan: Plan, cells: list[Cell], overwrite: bool, say: Say, table: Frame | None = None
) -> Iterator[Prepared]:
    """Check everything before any work, hold the output folder for this process, and prepare the log.

    Args:
        plan: The run.
        cells: The cells that are to be trained.
        overwrite: Replace the run that the folder holds.
        say: Callback for lines of progress.
        table: Read instead of the log's files.

    Yields:
        The prepared log.

    Raises:
        MgoeError: The settings, the log or the folder break a rule.
    """
    plan.check(cells)
    plan.check_installed(cells)
    [log] = plan.logs.values()
    with exclusive(plan.out, "a run"):
        wait_for_orphans(plan.out)
        with run_folder(plan.out, overwrite) as resumed:
            if resumed:
                say(f"resuming the unfinished run in {plan.out}")
            parts = settle(plan, cells, False, SETTINGS, say)
            for part in parts:
                if part.path in (plan.out / "data", plan.out / "graph"):
                    part.begin()
            seeds = plan.settings.seeds
            prepared = prepare_log(log, seeds[0], seeds, {}, table, say)
        yield prepared


def _write_bundle(cell: Cell, inputs: Inputs, rows: list[Row]) -> None:
    write_bundle(
        cell.log.path / "bundle",
        settings=cell.settings,
        model=inputs.decided(cell.contestant.settings()),
        cell=cell.folder,
        prepared=inputs.prepared,
        graph=inputs.graph,
        metrics=rows,
    )
