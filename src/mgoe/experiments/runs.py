"""`mgoe run`, `mgoe train` and `mgoe compare`: from settings to a bundle and a report, or to tables.

The phases: check the settings, remove or repair what is stored, import from elsewhere, execute, report. Each
stage of a run is also a command of its own, which leaves a folder that `run` resumes.
"""

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mgoe._util.files import atomic_folder, exclusive, read_json, write_text
from mgoe._util.processes import wait_for_orphans
from mgoe._util.tables import Frame
from mgoe.bundle.held import write_held
from mgoe.config import (
    SEEDS,
    ComparisonSettings,
    ModelSettings,
    RunSettings,
    TuneSettings,
    check_settings,
    deep_merge,
    did_you_mean,
    dump_settings,
    load_comparison,
    load_settings,
    make_settings,
    nested,
)
from mgoe.data import Prepared, check_ids, read_settings
from mgoe.errors import ConfigError, OutputError
from mgoe.evaluation import Row, markdown, markdown_table, read_rows, write_rows
from mgoe.experiments.checks import check, check_inputs, check_installed
from mgoe.experiments.forecast import announce
from mgoe.experiments.incumbent import write_incumbent
from mgoe.experiments.pages import write_run_report
from mgoe.experiments.report import (
    estimates_of,
    own_estimates,
    rows_of,
    standings_of,
    write_comparison,
    write_leads,
)
from mgoe.experiments.results import ComparisonResult, RunResult
from mgoe.experiments.served import choose_served
from mgoe.experiments.topn_report import topn_standings
from mgoe.pipeline import records
from mgoe.pipeline.cell import fit_cell, fit_served, lacks_served, summary_line
from mgoe.pipeline.cell_bundle import write_cell_bundle
from mgoe.pipeline.consistency import measured_cells, odd_cells
from mgoe.pipeline.execute import execute, measure_topn, note_finished, reconcile
from mgoe.pipeline.folder import (
    DONE,
    SERVED,
    SETTINGS,
    is_finished,
    mark,
    run_folder,
    take_folder,
)
from mgoe.pipeline.inputs import Inputs
from mgoe.pipeline.nodes import nodes_of
from mgoe.pipeline.plan import Cell, Plan, is_boosted, training_of, with_choices
from mgoe.pipeline.prepare import prepare_log
from mgoe.pipeline.serving_time import time_models, untimed
from mgoe.pipeline.sources import held_by_files
from mgoe.pipeline.stages import build
from mgoe.pipeline.tuning import OF_A_RUN, search
from mgoe.training import joined, track_bundle
from mgoe.work.store import Store

logger = logging.getLogger(__name__)

COMPARISON = "comparison.yaml"
"""Settings of a comparison, in its folder."""
QUICK = 60
"""Seconds of a build of a graph up to which it is repeated, rather than kept, for who reads its earlier
snapshots.
"""


def run(
    settings: RunSettings | Path | str,
    out: Path | str,
    *,
    overwrite: bool = False,
    reuse: bool = False,
    incumbent: Path | str | None = None,
    tune: str | None = None,
    table: Frame | None = None,
    force: bool = False,
    show_progress: bool = True,
    command: str = "",
) -> RunResult:
    """Run everything, or resume an interrupted run.

    Args:
        settings: Settings of the run, or the YAML file that holds them.
        out: Folder of the results.
        overwrite: Replace the run that the folder holds.
        reuse: Keep the finished run that the folder holds, and its bundle, if its first model and its seeds
            are these: train only the models that it lacks, and return at once if it lacks none. All snapshots
            of the graph stay, for models to come. Otherwise a finished run keeps the latest alone if the
            graph is built within a minute; who reads an earlier one builds it again.
        incumbent: File with the scores of another ranker, such as the present one, for the test rows that
            `rows` returns; it becomes a row of the table, `incumbent`. A finished run is kept.
        tune: A time such as `10m`, in which batch size, learning rate and epochs are searched before: those
            that are best for the first model on validation, with the first seed, are those of the run.
        table: An Ibis table, or a frame of pandas, polars or Arrow, to read instead of `data.log`.
        force: Start even if memory or disk do not suffice for certain.
        show_progress: Show progress bars on a terminal or in a notebook.
        command: The command that makes the report again, printed in it.

    Returns:
        The finished run: its numbers, its table and its bundle.

    Raises:
        MgoeError: Settings, log, graph or output folder break a rule; what was finished stays.

    Example:
        >>> run(settings, folder, reuse=True).bundle.tasks
        ('click', 'buy')
    """
    started = time.perf_counter()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "torchrun", "trains one model on many processes, found `mgoe run`; use `torchrun -m mgoe train`"
        )
    settings, out = read_settings(settings, table=table), Path(out)
    if table is None:
        announce(settings, out, overwrite, force)
    if tune is not None:
        settings, overwrite = _tuned(settings, out, tune, overwrite, table), False
    plan = Plan(settings, out, from_table=table is not None)
    _check_bundled(plan.variants[settings.serve or plan.comparison.lead].settings())
    kept = (reuse or incumbent is not None) and not overwrite and _holds_bundle_of(plan, settings)
    if kept:
        Store(out, nodes_of(plan, plan.cells, table)).stale(overwrite=False)  # refuses what differs
        if incumbent is not None:  # before the run counts as unfinished
            write_incumbent(out, settings, Prepared.open(out / "data"), incumbent)
        elif all(cell.done for cell in plan.cells):
            return RunResult.of(plan)
    with begin(plan, plan.cells, overwrite, table, extend=kept) as (prepared, store):
        inputs = Inputs(settings, prepared, build(settings, prepared, out / "graph"))
        if incumbent is not None and not kept:
            write_incumbent(out, settings, prepared, incumbent)  # a mistake in it shall not wait for training
        execute(plan, plan.cells, store, command, inputs=inputs, show_progress=show_progress)
        best = choose_served(plan, kept)
        result = RunResult.of(plan)
        write_rows(out / "metrics.json", result.rows)
        write_text(out / "table.md", markdown_table(result.rows) + "\n")
        write_leads(plan, [result.standings])
        own = own_estimates(plan)
        if not kept:
            of_seeds = [cell for cell in plan.cells if cell.variant == best.variant]
            of_best = [one for one in own if one.model == best.variant.name]
            if lacks_served(best):
                fit_served(best, inputs, show_progress)
            write_cell_bundle(out / "bundle", best, inputs, rows_of(of_seeds), of_best)
            track_bundle(settings.training.track, best.folder, out / "bundle")
        seconds = time.perf_counter() - started
        write_run_report(plan, inputs, result.standings, own, best, command, seconds)
        if not reuse and inputs.graph.manifest.seconds <= QUICK:
            with atomic_folder(out / "graph") as folder:
                inputs.graph.save_latest(folder)
        mark(out, "finished", seconds=round(seconds, 1), command=command)
        logger.info(f"done in {seconds:,.0f} s: {out / 'report.html'}")
        return result


def train(
    settings: RunSettings | Path | str,
    out: Path | str,
    model: str | None = None,
    seed: int | None = None,
    *,
    overwrite: bool = False,
    resume: bool = True,
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
        show_progress: Show progress bars on a terminal or in a notebook.

    Returns:
        The measurements on validation and test.

    Raises:
        MgoeError: Settings, log, graph or output folder break a rule.
    """
    settings, out = read_settings(settings), Path(out)
    plan = Plan(settings, out)
    if model is not None and model not in plan.variants:
        raise ConfigError(
            "model", f"the configuration has no model {model!r}{did_you_mean(model, [*plan.variants])}"
        )
    if seed is not None and not 0 <= seed < SEEDS:
        raise ConfigError(
            "seed",
            f"must lie between 0 and {SEEDS - 1}, found {seed}; leave it out for the first of the settings",
        )
    variant = plan.variants[model or plan.comparison.lead]
    cell = Cell(plan.logs[""], variant, settings.seeds[0] if seed is None else seed)
    _check_bundled(variant.settings())
    with joined(settings.training.device) as processes:
        processes.check_batch(training_of(settings, variant.settings()).batch_size)
        if not processes.leads:
            if not processes.agree(False):  # the first process has prepared everything
                fit_cell(cell, resume=resume)
            if processes.agree(False):  # the cell is measured
                fit_served(cell, resume=resume)
            return []
        with begin(plan, [cell], overwrite) as (prepared, store):
            inputs = Inputs(settings, prepared, build(settings, prepared, out / "graph"))
            for node in store.nodes.values():
                node.begin()
            if not resume:
                shutil.rmtree(cell.folder, ignore_errors=True)
            if not processes.agree(cell.done):
                logger.info(
                    f"training {cell.title}"
                    + (f" on {processes.size} processes" if processes.size > 1 else "")
                )
                logger.info(f"{cell.title}: {summary_line(fit_cell(cell, inputs, show_progress, resume))}")
            note_finished(plan, [cell], "")
            if processes.agree(lacks_served(cell)):
                fit_served(cell, inputs, show_progress, resume)
            rows = read_rows(cell.folder / DONE)
            write_cell_bundle(out / "bundle", cell, inputs, rows, estimates_of([cell]))
            track_bundle(settings.training.track, cell.folder, out / "bundle")
            return rows


@contextmanager
def begin(
    plan: Plan,
    cells: list[Cell],
    overwrite: bool,
    table: Frame | None = None,
    extend: bool = False,
) -> Iterator[tuple[Prepared, Store]]:
    """Check everything before any work, hold the output folder for this process, and prepare the log.

    Args:
        plan: The run.
        cells: The cells that are to be trained.
        overwrite: Replace the run that the folder holds.
        table: Read instead of the log's files.
        extend: Add to the finished run that the folder holds.

    Yields:
        The prepared log, and all that the cells are made of.

    Raises:
        MgoeError: The settings, the log or the folder break a rule.
    """
    check(plan, cells)
    check_inputs(cells)
    check_installed(plan, cells)
    [log] = plan.logs.values()
    if table is None and (overwrite or not (plan.out / "data").exists()):
        check_ids(log.source)
    with exclusive(plan.out, "a run"):
        wait_for_orphans(plan.out)
        with run_folder(plan.out, overwrite, extend) as resumed:
            if resumed:
                logger.info(
                    f"{'adding to the finished' if extend else 'resuming the unfinished'} run in {plan.out}"
                )
            store = reconcile(plan, cells, False, SETTINGS, table=table)
            for node in store.nodes.values():
                if node.kind in ("data", "graph", "search"):
                    node.begin()
            if not (plan.out / "data").exists():  # later the files may have been written over
                write_held(plan.out, {} if table is not None else held_by_files(log.source))
            prepared = prepare_log(plan, log, plan.settings.seeds[0], table)
        yield prepared, store


def compare(
    settings: ComparisonSettings | Path | str,
    out: Path | str,
    *,
    models: list[str] | None = None,
    seeds: list[int] | None = None,
    logs: list[str] | None = None,
    stop_after: float | None = None,
    overwrite: bool = False,
    command: str = "",
) -> ComparisonResult:
    """Run a comparison, or resume one.

    Finished cells are kept. Models, seeds, logs and variants may be added.

    Args:
        settings: Settings of the comparison, or the YAML file that holds them.
        out: Folder of the results.
        models, seeds, logs: Run only these; tables show everything that is finished.
        stop_after: Seconds after which no cell begins.
        overwrite: Compute again what was made with other settings. Refused if that would remove more than the
            chosen cells.
        command: Noted with every cell.

    Raises:
        MgoeError: Settings or the folder break a rule, or cells of a log were measured on different rows; the
            latter is raised after the tables of the others are written. What fails inside a cell fails that
            cell alone.

    Example:
        >>> from mgoe.config import ComparisonSettings
        >>> own = {"data": {"log": str(log)}, "tasks": ["click", "buy"], "split": {"cuts": [0.4, 0.6, 0.8]}}
        >>> arena = ComparisonSettings(logs={"own": own}, models=["shared-bottom", "rates"], seeds=[0])
        >>> compare(arena, "results", models=["rates"]).waiting
        1
    """
    until = None if stop_after is None else time.monotonic() + stop_after
    settings = settings if isinstance(settings, ComparisonSettings) else load_comparison(settings)
    plan = Plan(with_choices(settings), Path(out))
    cells = plan.chosen(models, seeds, logs)
    check(plan, cells)
    with exclusive(plan.out, "a comparison"):
        wait_for_orphans(plan.out)
        take_folder(plan.out, COMPARISON, "comparison")
        if not (plan.out / COMPARISON).exists():
            write_text(plan.out / COMPARISON, dump_settings(plan.settings))
        store = reconcile(plan, cells, overwrite, COMPARISON, command)
        check_installed(plan, cells)  # after damaged ones are removed: finished cells need no library
        execute(plan, cells, store, command, until)
        unmeasured = measure_topn(plan, cells, store, until)
        lists = topn_standings(plan)
        if lists and plan.comparison.serving_requests and untimed(plan, cells):
            logger.info(markdown(lists))  # timing takes a while, and is stopped by some
        time_models(plan, cells, until)
        lines = records.latest(plan.out)
        standings = [*standings_of(plan, lines), *lists]
        write_comparison(plan, standings, command)
    for log in plan.logs.values():
        if odd := odd_cells(measured_cells(plan, log, lines)):
            raise OutputError(log.path, odd)
    undone = {cell.title: lines.get(cell.key, {}) for cell in plan.cells if not cell.done}
    failed = {title: line["reason"] for title, line in undone.items() if line.get("state") == "failed"}
    return ComparisonResult(plan.out, standings, failed | unmeasured, len(undone) - len(failed))


def _tuned(
    settings: RunSettings, out: Path, budget: str, overwrite: bool, table: Frame | None
) -> RunSettings:
    """Search settings of training for the first model of a run, and return its settings with the best ones.

    What the model sets itself is not searched. A finished search is kept, and an interrupted one resumes.
    """
    cell = Plan(settings, out).cells[0]
    space = {
        key: values
        for key, values in OF_A_RUN["space"].items()
        if key.partition(".")[2] not in cell.variant.settings().training
    }
    tune = check_settings(TuneSettings, {**OF_A_RUN, "space": space, "budget": budget}, "tune")
    searching = Plan(settings, out, table is not None, tune)
    nodes = Store(out, nodes_of(searching, [cell], table)).nodes
    if overwrite or nodes[cell.search].state() != "done":
        with begin(searching, searching.cells, overwrite, table) as (prepared, _):
            build(settings, prepared, cell.graph)
            logger.info(f"searching {', '.join(space)} of {cell.variant.name} for {budget}")
            search(cell, tune, cell.search)
    found = read_json(cell.search)
    best = next(trial for trial in found["trials"] if trial["settings"] == found["best"])
    changes = ", ".join(f"{key} {value:.4g}" for key, value in best["settings"].items())
    logger.info(
        f"  best of {len(found['trials'])} trials, with {best['value']:.4f} on validation: "
        f"{changes or 'the settings as given'} ({cell.search})"
    )
    return make_settings(deep_merge(settings.model_dump(mode="json"), nested(best["settings"])), "tune")


def _holds_bundle_of(plan: Plan, settings: RunSettings) -> bool:
    """Tell whether the folder of a run holds a finished one whose bundle may stay: with the same first model,
    seeds and `serve`, and of a model that is still one of the run."""
    if not is_finished(plan.out):
        return False
    held = load_settings(plan.out / SETTINGS)
    asked, made = ((Plan(one, plan.out).comparison.lead, one.seeds, one.serve) for one in (settings, held))
    file = plan.out / SERVED
    return asked == made and (not file.exists() or read_json(file)["model"] in plan.variants)


def _check_bundled(model: ModelSettings) -> None:
    """Refuse boosted trees, which no bundle can hold."""
    if is_boosted(model):
        raise ConfigError(
            f"models.{model.name}",
            "a bundle holds a model of weights, found boosted trees; "
            "name another model first or in `serve`, and this one after it to compare",
        )
