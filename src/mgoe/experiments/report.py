"""From finished cells to tables, leads and the page of a comparison.

Whatever is finished is used, so that an unfinished comparison can be read as well.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pandas as pd

from mgoe._util.files import atomic_file, read_json, write_json, write_text
from mgoe.bundle import MANIFEST, Bundle
from mgoe.config import dump_settings, load_settings
from mgoe.errors import OutputError
from mgoe.evaluation import (
    Estimate,
    Influence,
    Row,
    Standings,
    estimate,
    find_leads,
    group_users,
    markdown,
    read_rows,
    report,
)
from mgoe.experiments.incumbent import INCUMBENT, read_incumbent
from mgoe.experiments.notices import of_results
from mgoe.experiments.topn_report import topn_rows
from mgoe.pipeline.consistency import measured_cells, odd_cells
from mgoe.pipeline.folder import DONE, INFLUENCE, SERVED, SETTINGS, STATE
from mgoe.pipeline.plan import NOTICES, REFERENCES, Cell, Log, Plan, is_boosted, is_done
from mgoe.pipeline.records import Key, Line, cost_of

TIDY_COLUMNS = ("log", "model", "base", "variant", "seed", "split", "slice", "task", "metric", "value")
LEADS = "leads.json"
SEVERAL = {
    "revision": "Cells were made by several revisions of the code",
    "precision": "Cells were trained in several precisions",
    "processor": (
        "Costs (training s, CPU s, scored/s, ms per 500) were measured on several processors and do not "
        "compare between them"
    ),
    "serving_engine": "Serving was timed with several engines",
}
"""Notes of a table, by the key under which its cells differ. None of these is compared as settings are."""


def standings_of(plan: Plan, lines: Mapping[Key, Line]) -> list[Standings]:
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
        rows = {(cell.variant.name, cell.seed): read_rows(cell.folder / DONE) for cell in cells}
        influence = {
            (cell.variant.name, cell.seed): group_users(Influence.load(cell.folder / INFLUENCE))
            for cell in cells
        }
        for seed, of_rows, other in read_incumbent(log.path, plan.settings.seeds if cells else ()):
            rows[INCUMBENT, seed], influence[INCUMBENT, seed] = of_rows, group_users(other)
        of_log = {"notices": [], "shape": ""}
        if (log.path / NOTICES).exists():
            of_log |= read_json(log.path / NOTICES)
        references = read_rows(log.path / REFERENCES) if (log.path / REFERENCES).exists() and not odd else []
        for name, table in plan.comparison.all_tables.items():
            reference = table.reference or plan.comparison.lead
            own = list(dict.fromkeys([reference, *table.models]))
            models = [*own, *{m for m, _ in influence if m == INCUMBENT}]
            of = {model: {s: influence[m, s] for m, s in influence if m == model} for model in models}
            leads = find_leads(reference, of[reference], of)
            shown = [row for m in models for seed in of[m] for row in rows[m, seed]]
            first = [cell for cell in cells if cell.variant.name == reference]
            estimates = estimate(reference, [*of[reference].values()]) if first else []
            costs = {m: cost_of([lines[log.name, m, seed] for seed in of[m]]) for m in own}
            said = of_results(first, shown, estimates, leads, str(of_log["shape"])) if first else []
            found.append(
                Standings(
                    question=table.title or name,
                    log=log.name,
                    reference=reference,
                    models=models,
                    rows=shown + references,
                    leads=leads,
                    costs=costs,
                    missing=_missing(plan, log, own, lines),
                    notes=[odd] * bool(odd)
                    + notes_of(plan, log, own, [lines[log.name, m, s] for m, s in rows if m in own]),
                    notices=[*of_log["notices"], *said],
                    served=read_json(served)["why"] if (served := plan.out / SERVED).exists() else "",
                )
            )
    return found


def own_estimates(plan: Plan) -> list[Estimate]:
    """Return the test metrics of every model with their intervals, over all of its seeds."""
    return [
        one
        for name in plan.variants
        for one in estimates_of([cell for cell in plan.cells if cell.variant.name == name])
    ]


def estimates_of(cells: Sequence[Cell]) -> list[Estimate]:
    """Return the test metrics of one model with their intervals, over the seeds of its cells."""
    return estimate(cells[0].variant.name, [Influence.load(cell.folder / INFLUENCE) for cell in cells])


def rows_of(cells: Iterable[Cell]) -> list[Row]:
    """Return the measurements of finished cells."""
    return [row for cell in cells for row in read_rows(cell.folder / DONE)]


def write_leads(plan: Plan, standings: Sequence[Standings]) -> None:
    """Write `leads.json`: every lead of every table."""
    write_json(plan.out / LEADS, [lead for one in standings for lead in plain_leads(one)])


def plain_leads(standings: Standings) -> list[dict[str, Any]]:
    """Return the leads of a table as plain values."""
    return [
        {"question": standings.question, "log": standings.log, **asdict(lead)} for lead in standings.leads
    ]


def write_comparison(plan: Plan, standings: Sequence[Standings], command: str) -> None:
    """Write `results.parquet`, `leads.json`, `tables.md` and `comparison.html`."""
    with atomic_file(plan.out / "results.parquet") as unfinished:
        tidy_rows(plan).to_parquet(unfinished, index=False)
    write_leads(plan, standings)
    write_text(plan.out / "tables.md", markdown(standings))
    facts = {
        "logs": len(plan.logs),
        "models": len(plan.comparison.models),
        "variants": len(plan.comparison.variants),
        "seeds": len(plan.settings.seeds),
        "cells": f"{sum(cell.done for cell in plan.cells)} of {len(plan.cells)}",
    }
    page = report.render_comparison(
        f"{plan.comparison.lead} and its baselines on {', '.join(plan.logs)}",
        standings,
        facts,
        dump_settings(plan.settings),
        command,
    )
    write_text(plan.out / "comparison.html", page)


def tidy_rows(plan: Plan) -> pd.DataFrame:
    """Return every number of every finished cell, one per row."""
    return pd.DataFrame(
        [
            {
                **row,
                "log": cell.log.name,
                "model": cell.variant.name,
                "base": cell.variant.base,
                "variant": cell.variant.label,
            }
            for cell in plan.cells
            if cell.done
            for row in read_rows(cell.folder / DONE)
        ]
        + topn_rows(plan),
        columns=list(TIDY_COLUMNS),
    )


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
            path, "holds neither a run nor a bundle; name the folder of a run, or the `bundle` inside it"
        )
    if (path / "metrics.json").exists():
        return read_rows(path / "metrics.json")
    plan = Plan(load_settings(path / SETTINGS), path)
    rows = [
        row
        for name in plan.variants  # not its cells: `mgoe train` takes any seed
        for file in sorted((path / "cells" / name).glob(f"*/{DONE}"), key=lambda file: int(file.parent.name))
        for row in read_rows(file)
    ]
    if not rows:
        raise OutputError(path, "holds a run that has measured nothing yet; give its command again to resume")
    return rows


def leads(path: Path | str) -> list[Estimate]:
    """Return the first model's leads on the mean over tasks in a finished run; empty elsewhere."""
    file = Path(path) / LEADS
    if not ((Path(path) / STATE).exists() and file.exists()):
        return []
    found: list[dict[str, Any]] = [
        {part.name: math.nan if lead[part.name] is None else lead[part.name] for part in fields(Estimate)}
        for lead in json.loads(file.read_text(encoding="utf-8"))
    ]
    return [Estimate(**one) for one in found if (one["task"], one["metric"]) == ("all", "ranking")]


def _missing(plan: Plan, log: Log, models: Sequence[str], lines: Mapping[Key, Line]) -> dict[str, str]:
    """Say which cells of models are missing: failed, or not run yet."""
    found = {}
    for model in models:
        cells = [
            cell for cell in plan.cells if (cell.log, cell.variant.name, cell.done) == (log, model, False)
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
    boosted = {name for name, one in plan.variants.items() if is_boosted(one.settings())}
    networks = [line for line in lines if line["model"] not in boosted]  # trees know one precision
    bases = dict.fromkeys(plan.variants[model].base for model in models if plan.comparison.tune)
    searches = {base: read_json(log.search(base))["trials"] for base in bases if is_done(log.search(base))}
    return [
        *failed_trials(searches),
        *several("revision", lines),
        *several("precision", networks),
        *several("processor", lines),
        *several("serving_engine", networks),
    ]


def failed_trials(searches: Mapping[str, Sequence[Line]]) -> Iterator[str]:
    """Yield one sentence per model whose search lost trials, with the most common reason."""
    for model, trials in searches.items():
        reasons = Counter(trial["failed"] for trial in trials if trial["value"] is None)
        if reasons:
            [(reason, _)] = reasons.most_common(1)
            yield f"search of {model}: {reasons.total()} of {len(trials)} trials failed ({reason})"


def several(key: str, lines: Iterable[Line]) -> list[str]:
    """Return a sentence of `SEVERAL`, with each value and its number of cells, if lines hold several."""
    unknown = "unknown" if key == "revision" else None
    counts = Counter(filter(None, (line.get(key) or unknown for line in lines)))
    listed = ", ".join(f"{value} ({cells})" for value, cells in counts.most_common())
    return [f"{SEVERAL[key]}: {listed}."] if len(counts) > 1 else []
