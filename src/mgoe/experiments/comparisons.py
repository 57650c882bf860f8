"""`mgoe compare`: every model with every seed on every log, and tables that answer the questions asked.

The phases: validate the settings, remove or repair what is stored, import from elsewhere, execute, report.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mgoe._util.files import exclusive, write_text
from mgoe.config import ComparisonSettings, dump_settings, load_comparison
from mgoe.errors import OutputError
from mgoe.evaluation import Standings, markdown
from mgoe.experiments import records
from mgoe.experiments.consistency import measured_cells, odd_cells
from mgoe.experiments.execute import execute
from mgoe.experiments.folder import take_folder
from mgoe.experiments.imports import take as take_lines
from mgoe.experiments.plan import Plan
from mgoe.experiments.processes import wait_for_orphans
from mgoe.experiments.report import standings_of, write_comparison
from mgoe.experiments.resume import settle
from mgoe.experiments.stages import Say

SETTINGS = "comparison.yaml"


@dataclass(frozen=True)
class ComparisonResult:
    """The state of a comparison.

    Attributes:
        path: Its folder.
        standings: Every table on every log.
        failed: Titles of cells that failed, with the reason.
        waiting: Number of cells that are not run yet.
    """

    path: Path
    standings: Sequence[Standings]
    failed: dict[str, str]
    waiting: int

    @property
    def results(self) -> pd.DataFrame:
        """One metric per row: log, model, base, variant, seed, split, slice, task, metric, value."""
        return pd.read_parquet(self.path / "results.parquet")

    def __repr__(self) -> str:
        return f"ComparisonResult({self.path})\n{markdown(self.standings)}"


def compare(
    settings: ComparisonSettings | Path | str,
    out: Path | str,
    *,
    models: list[str] | None = None,
    seeds: list[int] | None = None,
    logs: list[str] | None = None,
    stop_after: float | None = None,
    overwrite: bool = False,
    take: Sequence[Path | str] = (),
    say: Say = lambda line: None,
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
        take: Files such as `results.jsonl`, or folders of them, from which cells and searches of the same
        settings and log are imported.
        say: Callback for lines of progress.
        command: Noted with every cell.

    Raises:
        MgoeError: Settings or the folder break a rule, or cells of a log were measured on different rows; the
            latter is raised after the tables of the others are written. What fails inside a cell fails that
            cell alone.
    """
    until = None if stop_after is None else time.monotonic() + stop_after
    settings = settings if isinstance(settings, ComparisonSettings) else load_comparison(settings)
    plan = Plan(settings, Path(out))
    cells = plan.chosen(models, seeds, logs)
    plan.check(cells)
    lines_of = {}
    for path in map(Path, take):
        for file in sorted(path.glob("*.jsonl")) if path.is_dir() else [path]:
            lines_of[file] = list(records.read(file))
    with exclusive(plan.out, "a comparison"):
        wait_for_orphans(plan.out)
        take_folder(plan.out, SETTINGS, "comparison")
        if not (plan.out / SETTINGS).exists():
            write_text(plan.out / SETTINGS, dump_settings(settings))
        settle(plan, cells, overwrite, SETTINGS, say, command)
        take_lines(plan, lines_of, say)
        plan.check_installed(cells)  # after imports: finished cells need no library
        execute(plan, cells, say, command, until)
        lines = records.latest(plan.out)
        standings = standings_of(plan, lines)
        write_comparison(plan, standings, command)
    for log in plan.logs.values():
        if odd := odd_cells(measured_cells(plan, log, lines)):
            raise OutputError(log.path, odd)
    undone = [cell for cell in plan.cells if not cell.done]
    failed = {
        cell.title: lines[cell.key]["reason"]
        for cell in undone
        if lines.get(cell.key, {}).get("state") == "failed"
    }
    return ComparisonResult(plan.out, standings, failed, len(undone) - len(failed))
