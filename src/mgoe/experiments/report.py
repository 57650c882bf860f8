"""From finished cells to tables and reports.

Whatever is finished is used, so that an unfinished comparison can be read as well.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pandas as pd

from mgoe._util.files import atomic_file, read_json, write_json, write_text
from mgoe.bundle import MANIFEST, Bundle
from mgoe.config import dump_settings, load_settings
from mgoe.errors import OutputError
from mgoe.evaluation import (
    Cost,
    Estimate,
    Influence,
    Row,
    Standings,
    estimate,
    find_leads,
    group_users,
    latex,
    markdown,
    read_rows,
    report,
)
from mgoe.experiments.cell import INFLUENCE, is_boosted
from mgoe.experiments.consistency import measured_cells, odd_cells
from mgoe.experiments.folder import SETTINGS, STATE
from mgoe.experiments.parts import DONE
from mgoe.experiments.plan import REFERENCES, Cell, Log, Plan
from mgoe.experiments.records import Key
from mgoe.experiments.tuning import is_done

Line = Mapping[str, Any]
TIDY_COLUMNS = ("log", "model", "base", "variant", "seed", "split", "slice", "task", "metric", "value")
LEADS = "leads.json"


def standings_of(plan: Plan, lines: Mapping[Key, Mapping[str, Any]]) -> list[Standings]:
    """Return every table on every log.

    Args:
        plan: The run or comparison.
        lines: The last line of each cell in `results.jsonl`.

    Returns:
        Tables. On a log whose cells were measured on different rows they hold no number, and name the odd
        cells.
    """
    found = []
    for log in plan.logs.values():
        odd = odd_cells(measured_cells(plan, log, lines))
        cells = [] if odd else [cell for cell in plan.cells if cell.log == log and cell.done]
        rows = {(cell.contestant.name, cell.seed): read_rows(cell.folder / DONE) for cell in cells}
        influence = {(cell.contestant.name, cell.seed): group_users(_influence(cell)) for cell in cells}
        references = read_rows(log.path / REFERENCES) if (log.path / REFERENCES).exists() and not odd else []
        for name, table in plan.comparison.all_tables.items():
            reference = table.reference or plan.comparison.lead
            models = list(dict.fromkeys([reference, *table.models]))
            of = {model: {s: influence[m, s] for m, s in influence if m == model} for model in models}
            costs = {m: cost_of([lines[log.name, m, seed] for seed in of[m]]) for m in models}
            in_table = [lines[log.name, m, seed] for m, seed in rows if m in models]
            found.append(
                Standings(
                    question=table.title or name,
                    log=log.name,
                    reference=reference,
                    models=models,
                    rows=[row for m in models for seed in of[m] for row in rows[m, seed]] + references,
                    leads=find_leads(reference, of[reference], of),
                    costs=costs,
                    missing=_missing(plan, log, models, lines),
                    notes=[odd] * bool(odd) + notes_of(plan, log, models, in_table),
                )
            )
    return found


def cost_of(lines: Sequence[Mapping[str, Any]]) -> Cost:
    """Return the mean costs of cells; NaN where a cell does not hold one."""
    table = pd.DataFrame(lines, columns=[part.name for part in fields(Cost)], dtype=float)
    return Cost(*table.mean(skipna=False))


def own_estimates(plan: Plan) -> list[Estimate]:
    """Return the test metrics of every model with their intervals, over all of its seeds."""
    return [
        one
        for name in plan.contestants
        for one in estimate(name, [_influence(cell) for cell in plan.cells if cell.contestant.name == name])
    ]


def rows_of(cells: Iterable[Cell]) -> list[Row]:
    """Return the measurements of finished cells."""
    return [row for cell in cells for row in read_rows(cell.folder / DONE)]


def write_leads(plan: Plan, standings: Sequence[Standings]) -> None:
    """Write `leads.json`: every lead of every table."""
    write_json(plan.out / LEADS, [lead for one in standings for lead in plain_leads(one)])


def plain_leads(standings: Standings) -> list[dict[str, Any]]:
    """Return the leads of a table as plain values."""
    about = {"question": standings.question, "log": standings.log}
    return [about | asdict(lead) for lead in standings.leads]


def write_comparison(plan: Plan, standings: Sequence[Standings], command: str) -> None:
    """Write `results.parquet`, `leads.json`, `tables.md`, `tables.tex` and `comparison.html`."""
    with atomic_file(plan.out / "results.parquet") as unfinished:
        tidy_rows(plan).to_parquet(unfinished, index=False)
    write_leads(plan, standings)
    write_text(plan.out / "tables.md", markdown(standings))
    write_text(plan.out / "tables.tex", latex(standings))
    facts = {
        "logs": len(plan.logs),
        "models": len(plan.comparison.models),
        "variants": len(plan.comparison.variants),
        "seeds": len(plan.settings.seeds),
        "cells": f"{sum(cell.done for cell in plan.cells)} of {len(plan.cells)}",
    }
    title = f"{plan.comparison.lead} and its baselines on {', '.join(plan.logs)}"
    settings = dump_settings(plan.settings)
    page = report.render_comparison(title, standings, facts, settings, command)
    write_text(plan.out / "comparison.html", page)


def tidy_rows(plan: Plan) -> pd.DataFrame:
    """Return every number of every finished cell, one per row."""
    rows = []
    for cell in plan.cells:
        if cell.done:
            base, variant = cell.contestant.base, cell.contestant.variant
            about = {"log": cell.log.name, "base": base, "variant": variant, "model": cell.contestant.name}
            rows += [{**row, **about} for row in read_rows(cell.folder / DONE)]
    return pd.DataFrame(rows, columns=list(TIDY_COLUMNS))


def measured(path: Path | str) -> list[Row]:
    """Return the measurements of a run, of the finished cells of an unfinished one, or of a bundle.

    Raises:
        OutputError: The folder holds neither, or nothing is measured yet.
        BundleError: The bundle is damaged.
    """
    path = Path(path)
    if (path / MANIFEST).exists():
        return read_rows(Bundle.open(path).path / "metrics.json")
    if not (path / STATE).exists():
        raise OutputError(
            path, "holds neither a run nor a bundle; name the --out of `mgoe run`, or the `bundle` inside it"
        )
    if (path / "metrics.json").exists():
        return read_rows(path / "metrics.json")
    plan = Plan(load_settings(path / SETTINGS), path)
    folders = [path / "cells" / name for name in plan.contestants]  # `mgoe train` takes any seed
    files = [
        file
        for folder in folders
        for file in sorted(folder.glob(f"*/{DONE}"), key=lambda file: int(file.parent.name))
    ]
    rows = [row for file in files for row in read_rows(file)]
    if not rows:
        raise OutputError(path, "holds a run that has measured nothing yet; give its command again to resume")
    return rows


def leads(path: Path | str) -> list[Estimate]:
    """Return the first model's leads on the mean over tasks in a finished run; empty elsewhere."""
    file = Path(path) / LEADS
    if not ((Path(path) / STATE).exists() and file.exists()):
        return []
    found = []
    for lead in json.loads(file.read_text(encoding="utf-8")):
        known = {part.name: lead[part.name] for part in fields(Estimate)}
        numbers: dict[str, Any] = {name: math.nan if one is None else one for name, one in known.items()}
        found.append(Estimate(**numbers))
    return [one for one in found if (one.task, one.metric) == ("all", "ranking")]


def _influence(cell: Cell) -> Influence:
    return Influence.load(cell.folder / INFLUENCE)


def _missing(
    plan: Plan, log: Log, models: Sequence[str], lines: Mapping[Key, Mapping[str, Any]]
) -> dict[str, str]:
    """Say which cells of models are missing: failed, or not run yet."""
    found = {}
    for model in models:
        cells = [
            cell for cell in plan.cells if (cell.log, cell.contestant.name, cell.done) == (log, model, False)
        ]
        failed = [cell for cell in cells if lines.get(cell.key, {}).get("state") == "failed"]
        parts = [f"failed with seed {cell.seed}: {lines[cell.key]['reason']}" for cell in failed]
        if len(cells) > len(failed):
            parts.append(f"{len(cells) - len(failed)} of {len(plan.settings.seeds)} seeds are not run yet")
        if parts:
            found[model] = "; ".join(parts)
    return found


def notes_of(plan: Plan, log: Log, models: Iterable[str], lines: Sequence[Line]) -> list[str]:
    """Return the notes of a table on a log.

    Args:
        plan: The comparison.
        log: The log.
        models: The models of the table.
        lines: The lines of its finished cells.
    """
    boosted = {name for name, one in plan.contestants.items() if is_boosted(one.settings())}
    networks = [line for line in lines if line["model"] not in boosted]  # trees know one precision
    tuned = plan.comparison.tune is not None
    bases = dict.fromkeys(plan.contestants[model].base for model in models if tuned)
    searches = {base: read_json(log.search(base))["trials"] for base in bases if is_done(log.search(base))}
    return [*failed_trials(searches), *revisions_of(lines), *precisions_of(networks), *processors_of(lines)]


def failed_trials(searches: Mapping[str, Sequence[Line]]) -> list[str]:
    """Return one sentence per model whose search lost trials, with the most common reason."""
    found = []
    for model, trials in searches.items():
        reasons = Counter(trial["failed"] for trial in trials if trial["value"] is None)
        if reasons:
            lost = f"{reasons.total()} of {len(trials)} trials failed ({reasons.most_common(1)[0][0]})"
            found.append(f"search of {model}: {lost}")
    return found


def revisions_of(lines: Iterable[Line]) -> list[str]:
    """Return a sentence if cells were made by different code, which is not compared as settings are."""
    values = (line["revision"] or "unknown" for line in lines)
    return _several("Cells were made by several revisions of the code: {}.", values)


def precisions_of(lines: Iterable[Line]) -> list[str]:
    """Return a sentence if cells were trained in different precisions, which `auto` leaves to the machine."""
    values = (line.get("precision") for line in lines)
    return _several("Cells were trained in several precisions: {}.", values)


def processors_of(lines: Iterable[Line]) -> list[str]:
    """Return a sentence if costs cannot be compared because processors differ."""
    costs = "Costs (training s, CPU s, scored/s) were measured on several processors and do not compare"
    return _several(f"{costs} between them: {{}}.", (line.get("processor") for line in lines))


def _several(sentence: str, values: Iterable[str | None]) -> list[str]:
    """Return the sentence with each value and its number of cells if there are several values."""
    counts = Counter(value for value in values if value is not None)
    listed = ", ".join(f"{value} ({cells})" for value, cells in counts.most_common())
    return [sentence.format(listed)] if len(counts) > 1 else []
