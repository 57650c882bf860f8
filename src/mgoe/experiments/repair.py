"""What is finished and cannot be read any more, by a disk that failed or a copy that was cut off: found before any work, and made anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mgoe._util.files import read_json, write_json
from mgoe.errors import OutputError
from mgoe.evaluation import Influence, read_rows
from mgoe.experiments import consistency, records
from mgoe.experiments import jobs as work
from mgoe.experiments.cell import DONE, FIT, INFLUENCE
from mgoe.experiments.consistency import Part
from mgoe.experiments.plan import EXAMPLES, REFERENCES, Plan
from mgoe.experiments.stages import Say


def cells(plan: Plan, say: Say) -> list[Path]:
    """Folders of finished cells of which a file that tables need is damaged, or nothing tells on which rows they were judged.

    Args:
        plan: Of the comparison.
        say: Called with a line a cell: its first damaged file, or its folder.

    Raises:
        OutputError: A file is there and may not be read.
    """
    found, lines = [], records.latest(plan.out)
    for entry in [entry for entry in plan.entries if entry.cell().done]:
        folder, stage = entry.cell().folder, entry.log.stage(entry.seed)
        facts = records.TAKEN if (folder / records.TAKEN).exists() else FIT
        readers = {DONE: read_rows, INFLUENCE: Influence.load, facts: read_json}
        if any(_is_damaged(folder / name, read, say) for name, read in readers.items()):
            found.append(folder)
        elif facts == FIT and not (
            records.is_finished(entry, lines) or (stage / EXAMPLES).exists() or (stage / "data").exists()
        ):
            say(
                f"to be made anew: {folder}: its line in {records.RESULTS} is gone, and so is the data that it was judged on, {stage}"
            )
            found.append(folder)
    return found


def searches(plan: Plan, parts: Iterable[Part], say: Say) -> list[Path]:
    """Files of searches that are damaged, or gone while cells are there whose settings they chose. Those that `results.jsonl` tells are put
    back; with any other goes what follows from it, since another search may choose otherwise.

    Args:
        plan: Of the comparison.
        parts: Of all its cells.
        say: Called with a line a file, and one for each that is put back.

    Returns:
        Those that cannot be put back.

    Raises:
        OutputError: A file is there and may not be read.
    """
    of, lines, lost = {part.path: part for part in parts}, records.latest(plan.out), []
    for path, entry in {entry.tuned: entry for entry in plan.entries if entry.tuned in of}.items():
        known = path.exists() or any((folder / DONE).exists() for folder in of[path].follows)
        if not known or not _is_damaged(path, read_json, say):
            continue
        line = lines.get(records.search_key(entry), {})
        if line.get("asked") in of[path].digests:
            write_json(path, records.search_in(line))
            say(f"  put back from {records.RESULTS}")
        else:
            lost.append(path)
    return lost


def clear_sources(plan: Plan, say: Say) -> None:
    """Take away damaged checksums of the logs' files, which are then read anew.

    Args:
        plan: Of the comparison.
        say: Called with a line a damaged file.

    Raises:
        OutputError: A file is there and may not be read.
    """
    for path in map(consistency.sources_at, plan.logs.values()):
        if path.exists() and _is_damaged(path, consistency.read_sources, say):
            path.unlink()


def clear_shared(plan: Plan, say: Say) -> None:
    """Take away damaged files that cells share: rows of the references, checksums of what is judged. The latter are noted anew at once,
    since lines of finished cells tell them.

    Args:
        plan: Of the comparison.
        say: Called with a line a damaged file.

    Raises:
        MgoeError: A file is there and may not be read, or so is the prepared log.
    """
    for log in plan.logs.values():
        references = log.path / REFERENCES
        if references.exists() and _is_damaged(references, read_rows, say):
            references.unlink()
        for stage in map(log.stage, plan.settings.seeds):
            if (stage / EXAMPLES).exists() and _is_damaged(stage / EXAMPLES, read_json, say):
                (stage / EXAMPLES).unlink()
                if (stage / "data").exists():
                    work.note_examples(stage)


def _is_damaged(path: Path, read: Callable[[Path], Any], say: Say) -> bool:
    try:
        read(path)
    except OutputError as error:
        if (
            isinstance(error.__context__, OSError) and path.exists()
        ):  # no rights, or a disk that may come back
            raise
        say(f"damaged, to be made anew: {error}")
        return True
    return False
