"""Do the work of a plan: remove what is stale or damaged, make every chosen cell and what it needs, then
measure lists."""

import logging
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

from mgoe._util.files import read_json, write_text
from mgoe._util.tables import Frame
from mgoe.config import dump_settings
from mgoe.errors import OutputError, TrainingError
from mgoe.evaluation import read_rows
from mgoe.pipeline import records
from mgoe.pipeline.cell import summary_line
from mgoe.pipeline.folder import CHECKSUMS, EXAMPLES, FIT, read_checksums
from mgoe.pipeline.inputs import Inputs
from mgoe.pipeline.nodes import nodes_of
from mgoe.pipeline.plan import NOTICES, REFERENCES, Cell, Plan
from mgoe.pipeline.tuning import note_killed
from mgoe.work.node import Node, is_damaged
from mgoe.work.store import Store

logger = logging.getLogger(__name__)


def reconcile(
    plan: Plan,
    cells: Sequence[Cell],
    overwrite: bool,
    settings: str,
    command: str = "",
    table: Frame | None = None,
) -> Store:
    """Leave in a folder only what is asked for and can be read.

    A failed disk or an incomplete copy damages files; they are found before any work, and computed again.

    Args:
        plan: The run or comparison.
        cells: The chosen cells.
        overwrite: Whether finished results of other settings may be removed.
        settings: Name of the file of the settings, written once nothing can be refused any more.
        command: Noted with removed cells.
        table: Read instead of the log's files.

    Returns:
        All that the chosen cells are made of, and searches for their models.

    Raises:
        MgoeError: A finished result would have to be removed and must not be, or a file may not be read.
    """
    small = [(log.path / CHECKSUMS, read_checksums) for log in plan.logs.values()]
    small += [(log.path / REFERENCES, read_rows) for log in plan.logs.values()]
    small += [(log.path / NOTICES, read_json) for log in plan.logs.values()]
    small += [
        (log.stage(seed) / EXAMPLES, read_json) for log in plan.logs.values() for seed in plan.settings.seeds
    ]
    for file, read in small:  # what they hold is computed again
        if file.exists() and is_damaged(file, read):
            file.unlink()
    store = Store(plan.out, nodes_of(plan, [*plan.cells, *cells], table))
    searched = map(plan.searched, cells)  # searches are of the first seed
    chosen = Store(plan.out, nodes_of(plan, [*cells, *searched], table))
    stale = store.stale(overwrite)
    check_choice(plan, cells, chosen, stale)
    write_text(plan.out / settings, dump_settings(plan.settings))
    _remove(plan, stale, command)
    _remove(plan, store.damaged(), command)
    return chosen


def check_choice(plan: Plan, cells: Sequence[Cell], chosen: Store, stale: Sequence[Node]) -> None:
    """Refuse to remove results outside the chosen cells.

    They cannot stay either, beside results of other settings.

    Args:
        plan: The comparison.
        cells: The chosen cells.
        chosen: All that they are made of, and searches for their models.
        stale: The nodes that must be removed.

    Raises:
        OutputError: A finished result must be removed that does not belong to the chosen cells alone.
    """
    spared = {cell.folder for cell in plan.cells if cell.done} - {cell.folder for cell in cells}
    needed = chosen.nodes.keys() - spared
    for node in stale:
        if spared.intersection(node.paths) or (node.is_result and node.path not in needed):
            lost = len(spared.intersection(path for one in stale for path in one.paths))
            raise OutputError(
                node.path,
                "must be computed again and does not belong to the chosen cells alone, "
                f"found {lost} finished cells of others that would be removed; choose another folder, or "
                "choose all models, seeds and logs to compute all of it again",
            )


def execute(
    plan: Plan,
    cells: Sequence[Cell],
    store: Store,
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
        store: All that they are made of, and searches for their models.
        command: Noted with every cell.
        until: `time.monotonic()` after which no cell begins.
        inputs: The log and the graph of a run.
        show_progress: Show a progress bar of cells that are fitted in this process.

    Raises:
        TrainingError: A cell of a run failed.
    """
    note_finished(plan, plan.cells, command)
    waiting = {cell.folder: cell for cell in cells if not cell.done}
    logger.info(f"training {len(waiting)} of {len(cells)} cells, {plan.settings.jobs} at a time")
    wanted, jobs = [*map(store.nodes.__getitem__, waiting), *_lost_references(plan, cells, store)], 0
    if inputs is not None and (plan.settings.jobs == 1 or len(wanted) <= 1):
        wanted = [replace(node, args=(*node.args, inputs, show_progress)) for node in wanted]
    else:
        jobs = plan.settings.jobs
    started, done = time.perf_counter(), 0
    with closing(store.bring(wanted, jobs, plan.threads, until)) as ended:
        for node, outcome in ended:
            cell = waiting.get(node.path)
            if cell is None:
                if outcome.lost and node.kind == "search":
                    note_killed(node.path)
                logger.info(f"  {node.title}" + (f" failed: {outcome.failed}" if outcome.failed else ""))
                continue
            note_finished(plan, [cell], command)
            failed = "" if cell.done else outcome.failed  # a process may be killed after its last write
            if failed and inputs is not None:
                killed = f"a process of {plan.settings.jobs} was killed; memory may have run out: take fewer"
                raise TrainingError(
                    "jobs" if outcome.lost else node.title,
                    f"{killed}, the same command resumes" if outcome.lost else failed,
                )
            if failed:
                records.append(plan.out, records.line_of(cell, "failed", command, reason=failed))
            done += 1
            how = f"failed: {failed}" if failed else summary_line(read_json(cell.folder / FIT))
            left = timedelta(seconds=round((time.perf_counter() - started) / done * (len(waiting) - done)))
            rest = f"; about {left} left" if done < len(waiting) else ""
            logger.info(f"  [{done}/{len(waiting)}] {node.title}: {how}{rest}")


def measure_topn(plan: Plan, cells: Sequence[Cell], store: Store, until: float | None) -> dict[str, str]:
    """Measure the lists of finished cells, of baselines and of bounds.

    What cannot be measured has no figure, and the same command tries it again.

    Args:
        plan: The comparison.
        cells: The chosen cells.
        store: All that they are made of, and their lists.
        until: `time.monotonic()` after which nothing begins.

    Returns:
        Why lists could not be measured, by title.
    """
    lists = unmeasured(plan, cells, store)
    if not lists:
        return {}
    logger.info(f"measuring the lists of {len(lists)} models and baselines")
    failed, left = {}, [node.title for node in lists]
    with closing(store.bring(lists, plan.settings.jobs, plan.threads, until)) as ended:
        for node, outcome in ended:
            left.remove(node.title)
            if outcome.failed:
                failed[node.title] = outcome.failed
            how = f"failed: {outcome.failed}" if outcome.failed else outcome.value
            logger.info(f"  {node.title}: {how}")
    if left:
        logger.info(f"not measured yet: {'; '.join(left)}; the same command resumes")
    return failed


def unmeasured(plan: Plan, cells: Sequence[Cell], store: Store) -> list[Node]:
    """Return the lists that are not measured yet and whose data are here, those of models first."""
    of_models = {cell.log.lists(cell.variant.name, cell.seed): cell.done for cell in cells}
    prepared = {
        cell.log.path / "topn"
        for cell in cells
        for seed in plan.settings.seeds
        if (cell.log.stage(seed) / "data").exists()
    }
    found = [
        node
        for node in store.nodes.values()
        if node.kind == "lists"
        and not node.finished
        and of_models.get(node.path, node.path.parents[1] in prepared)
    ]
    return sorted(found, key=lambda node: node.path not in of_models)


def _lost_references(plan: Plan, cells: Sequence[Cell], store: Store) -> list[Node]:
    """Return the data of logs whose best reachable results were damaged, and whose cells are finished."""
    first = plan.settings.seeds[0]
    lost = [
        log
        for log in {cell.log.name: cell.log for cell in cells}.values()
        if log.settings(first).data.truth is not None and not (log.path / REFERENCES).exists()
    ]
    return [store.nodes[log.stage(first) / "data"] for log in lost]


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


def _remove(plan: Plan, nodes: Sequence[Node], command: str) -> None:
    """Remove nodes, after saying in the lines of their cells that these numbers are outdated."""
    removed, known = {path for node in nodes for path in node.paths}, records.latest(plan.out)
    for cell in plan.cells:
        if cell.folder in removed and cell.key in known:
            records.append(plan.out, records.line_of(cell, "outdated", command))
    for node in nodes:
        node.remove()
