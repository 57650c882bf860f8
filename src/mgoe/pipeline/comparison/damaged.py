"""What is finished and cannot be read any more, by a disk that failed or a copy that was cut off: found before any work, and made anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mgoe.errors import OutputError
from mgoe.evaluation import Influence, read_rows
from mgoe.files import read_json
from mgoe.pipeline.cells import DONE
from mgoe.pipeline.comparison import records, work
from mgoe.pipeline.comparison.plan import Plan
from mgoe.pipeline.stages import Say


def cells(plan: Plan, say: Say) -> list[Path]:
    """Folders of finished cells of which a file that tables need is damaged.

    Args:
        plan: Of the comparison.
        say: Called with a line a cell: its first damaged file.

    Raises:
        OutputError: A file is there and may not be read.
    """
    found = []
    for folder in [entry.cell().folder for entry in plan.entries if entry.cell().done]:
        facts = records.TAKEN if (folder / records.TAKEN).exists() else "fit.json"
        readers = {DONE: read_rows, "test.npz": Influence.load, facts: read_json}
        if any(_is_damaged(folder / name, read, say) for name, read in readers.items()):
            found.append(folder)
    return found


def clear_shared(plan: Plan, say: Say) -> None:
    """Take away damaged files that cells share: searches, rows of the references, checksums of what is judged. The last are noted anew
    at once, since lines of finished cells tell them.

    Args:
        plan: Of the comparison.
        say: Called with a line a damaged file.

    Raises:
        MgoeError: A file is there and may not be read, or so is the prepared log.
    """
    for path in dict.fromkeys(entry.tuned for entry in plan.entries):
        if path.exists() and _is_damaged(path, read_json, say):
            path.unlink()
    for log in plan.logs.values():
        references = log.path / work.REFERENCES
        if references.exists() and _is_damaged(references, read_rows, say):
            references.unlink()
        for stage in map(log.stage, plan.settings.seeds):
            if (stage / work.EXAMPLES).exists() and _is_damaged(stage / work.EXAMPLES, read_json, say):
                (stage / work.EXAMPLES).unlink()
                if (stage / "data").exists():
                    work.note_examples(stage)


def _is_damaged(path: Path, read: Callable[[Path], Any], say: Say) -> bool:
    try:
        read(path)
    except OutputError as error:
        if isinstance(error.__context__, OSError) and path.exists():  # no rights, or a disk that may come back
            raise
        say(f"damaged, to be made anew: {error}")
        return True
    return False
