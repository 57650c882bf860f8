"""What an earlier process left: keep what is asked for, remove what is not, repair what is damaged.

A failed disk or an incomplete copy damages files. They are found before any work, and computed again.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from mgoe._util.files import read_json, write_json, write_text
from mgoe.config import dump_settings
from mgoe.errors import OutputError
from mgoe.evaluation import Influence, read_rows
from mgoe.experiments import records
from mgoe.experiments.cell import FIT, INFLUENCE
from mgoe.experiments.consistency import check_choice, checksums_at, note_examples, parts_of
from mgoe.experiments.parts import DONE, Part, outdated, read_checksums
from mgoe.experiments.plan import EXAMPLES, REFERENCES, Cell, Plan
from mgoe.experiments.stages import Say


def settle(
    plan: Plan, cells: Sequence[Cell], overwrite: bool, settings: str, say: Say, command: str = ""
) -> list[Part]:
    """Leave in a folder only what is asked for and can be read.

    Args:
        plan: The run or comparison.
        cells: The chosen cells.
        overwrite: Whether finished results of other settings may be removed.
        settings: Name of the file of the settings, written once nothing can be refused any more.
        say: Callback for lines of progress.
        command: Noted with removed cells.

    Returns:
        All parts of the results.

    Raises:
        MgoeError: A finished result would have to be removed and must not be, or a file may not be read.
    """
    clear_checksums(plan, say)
    parts = parts_of(plan, {cell.key: cell for cell in (*plan.cells, *cells)}.values())
    stale = outdated(parts, overwrite)
    check_choice(plan, cells, stale)
    write_text(plan.out / settings, dump_settings(plan.settings))
    _remove(plan, stale, command)
    clear_shared(plan, say)
    damaged = {*damaged_cells(plan, say), *damaged_searches(plan, parts, say)}
    _remove(plan, [part for part in parts if part.path in damaged], command)
    return parts


def damaged_cells(plan: Plan, say: Say) -> list[Path]:
    """Return the folders of finished cells that must be computed again.

    A file that tables need is damaged, or nothing says any more on which rows the cell was measured.

    Args:
        plan: The comparison.
        say: Callback that receives one line per cell.

    Raises:
        OutputError: A file is there and may not be read.
    """
    found, lines = [], records.latest(plan.out)
    for cell in [cell for cell in plan.cells if cell.done]:
        folder, stage = cell.folder, cell.log.stage(cell.seed)
        facts = records.IMPORTED if (folder / records.IMPORTED).exists() else FIT
        readers = {DONE: read_rows, INFLUENCE: Influence.load, facts: read_json}
        known = (
            facts == records.IMPORTED
            or records.is_finished(cell, lines)
            or any((stage / name).exists() for name in (EXAMPLES, "data"))
        )
        if any(_is_damaged(folder / name, read, say) for name, read in readers.items()):
            found.append(folder)
        elif not known:
            rule = f"its line in {records.RESULTS} is missing, and so is the data that it was measured on"
            say(f"to be computed again: {folder}: {rule}, {stage}")
            found.append(folder)
    return found


def damaged_searches(plan: Plan, parts: Iterable[Part], say: Say) -> list[Path]:
    """Return the files of searches that are damaged, or missing while cells use their results.

    Searches that `results.jsonl` holds are restored. What follows from any other goes with it, since another
    search may choose other settings.

    Args:
        plan: The comparison.
        parts: The parts of all its cells.
        say: Callback that receives one line per file, and one more for each that is restored.

    Returns:
        The searches that cannot be restored.

    Raises:
        OutputError: A file is there and may not be read.
    """
    of, lines, lost = {part.path: part for part in parts}, records.latest(plan.out), []
    for path, cell in {cell.search: cell for cell in plan.cells if cell.search in of}.items():
        known = path.exists() or any((folder / DONE).exists() for folder in of[path].follows)
        if not known or not _is_damaged(path, read_json, say):
            continue
        line = lines.get(records.search_key(cell), {})
        if line.get("asked") == of[path].digest:
            write_json(path, records.search_in(line))
            say(f"  restored from {records.RESULTS}")
        else:
            lost.append(path)
    return lost


def clear_checksums(plan: Plan, say: Say) -> None:
    """Remove damaged checksums of the logs' files, which are then computed again.

    Args:
        plan: The comparison.
        say: Callback that receives one line per damaged file.

    Raises:
        OutputError: A file is there and may not be read.
    """
    for path in map(checksums_at, plan.logs.values()):
        if path.exists() and _is_damaged(path, read_checksums, say):
            path.unlink()


def clear_shared(plan: Plan, say: Say) -> None:
    """Remove damaged files that cells share: rows of the references, and checksums of the rows measured on.

    The latter are written again at once, since the lines of finished cells hold them.

    Args:
        plan: The comparison.
        say: Callback that receives one line per damaged file.

    Raises:
        MgoeError: A file is there and may not be read, or the prepared log may not.
    """
    for log in plan.logs.values():
        references = log.path / REFERENCES
        if references.exists() and _is_damaged(references, read_rows, say):
            references.unlink()
        for stage in map(log.stage, plan.settings.seeds):
            if (stage / EXAMPLES).exists() and _is_damaged(stage / EXAMPLES, read_json, say):
                (stage / EXAMPLES).unlink()
                if (stage / "data").exists():
                    note_examples(stage)


def _is_damaged(path: Path, read: Callable[[Path], Any], say: Say) -> bool:
    try:
        read(path)
    except OutputError as error:
        if (
            isinstance(error.__context__, OSError) and path.exists()
        ):  # no rights, or a disk that may come back
            raise
        say(f"damaged, to be computed again: {error}")
        return True
    return False


def _remove(plan: Plan, parts: Sequence[Part], command: str) -> None:
    """Remove parts, after saying in the lines of their cells that these numbers are outdated."""
    removed, known = {path for part in parts for path in part.paths}, records.latest(plan.out)
    for cell in plan.cells:
        if cell.folder in removed and cell.key in known:
            records.append(plan.out, records.of_outdated(cell, command))
    for part in parts:
        part.remove()
