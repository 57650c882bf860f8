"""From finished cells to tables: whatever is there, so that an unfinished comparison can be read as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import pandas as pd

from mgoe._util.files import atomic_file, write_json, write_text
from mgoe.config import dump_settings
from mgoe.evaluation import (
    Cost,
    Influence,
    Row,
    Standings,
    find_leads,
    group_users,
    latex,
    markdown,
    read_rows,
    report,
)
from mgoe.experiments.cell import DONE, INFLUENCE
from mgoe.experiments.judged_rows import judged_cells, odd_cells
from mgoe.experiments.notes import notes_of
from mgoe.experiments.plan import REFERENCES, Log, Plan
from mgoe.experiments.records import Key

TIDY = "results.parquet"
TIDY_COLUMNS = ("log", "model", "base", "variant", "seed", "split", "slice", "task", "metric", "value")
TABLES = "tables"
LEADS = "leads.json"
REPORT = "comparison.html"


def standings_of(plan: Plan, lines: Mapping[Key, Mapping[str, Any]]) -> list[Standings]:
    """Every table on every log.

    Args:
        plan: Of the comparison.
        lines: The last line of each cell in `results.jsonl`.

    Returns:
        Tables. On a log whose cells were judged on different rows they hold no number, and say which cells are the odd ones.
    """
    found = []
    for log in plan.logs.values():
        done = {
            (entry.contestant.name, entry.seed): entry.cell().folder
            for entry in plan.entries
            if entry.log == log and entry.cell().done
        }
        odd = odd_cells(judged_cells(plan, log, lines))
        if odd:
            done = {}
        rows = {key: read_rows(folder / DONE) for key, folder in done.items()}
        grouped = {key: group_users(Influence.load(folder / INFLUENCE)) for key, folder in done.items()}
        references = read_rows(log.path / REFERENCES) if (log.path / REFERENCES).exists() and not odd else []
        for name, table in plan.settings.all_tables.items():
            reference = table.reference or plan.settings.lead
            models = list(dict.fromkeys([reference, *table.models]))
            of = {model: {seed: grouped[m, seed] for m, seed in grouped if m == model} for model in models}
            found.append(
                Standings(
                    question=table.title or name,
                    log=log.name,
                    reference=reference,
                    models=models,
                    rows=[
                        row for model in models for (m, _), part in rows.items() if m == model for row in part
                    ]
                    + references,
                    leads=find_leads(reference, of[reference], of),
                    costs={
                        model: cost_of([lines[log.name, m, seed] for m, seed in done if m == model])
                        for model in models
                    },
                    missing=_missing(plan, log, models, lines),
                    notes=[odd] * bool(odd)
                    + notes_of(
                        plan, log, models, [lines[log.name, m, seed] for m, seed in done if m in models]
                    ),
                )
            )
    return found


def tidy_rows(plan: Plan) -> pd.DataFrame:
    """Every number of every finished cell: log, model, base, variant, seed, split, slice, task, metric, value."""
    frames = []
    for entry in plan.entries:
        if entry.cell().done:
            who = {"log": entry.log.name, "base": entry.contestant.base, "variant": entry.contestant.variant}
            rows: list[Row] = read_rows(entry.cell().folder / DONE)
            frames.append(
                pd.DataFrame(
                    [{**row, **who, "model": entry.contestant.name} for row in rows],
                    columns=list(TIDY_COLUMNS),
                )
            )
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(TIDY_COLUMNS))


def write_outcome(plan: Plan, standings: Sequence[Standings], command: str) -> None:
    """Write `results.parquet`, `leads.json`, `tables.md`, `tables.tex` and `comparison.html`."""
    with atomic_file(plan.out / TIDY) as unfinished:
        tidy_rows(plan).to_parquet(unfinished, index=False)
    write_json(plan.out / LEADS, [_plain(one, lead) for one in standings for lead in one.leads])
    write_text(plan.out / f"{TABLES}.md", markdown(standings))
    write_text(plan.out / f"{TABLES}.tex", latex(standings))
    facts = {
        "logs": len(plan.logs),
        "models": len(plan.settings.models),
        "variants": len(plan.settings.variants),
    }
    done = sum(entry.cell().done for entry in plan.entries)
    facts |= {"seeds": len(plan.settings.seeds), "cells": f"{done} of {len(plan.entries)}"}
    name = f"{plan.settings.lead} and its baselines on {', '.join(plan.logs)}"
    report.write_comparison(plan.out / REPORT, name, standings, facts, dump_settings(plan.settings), command)


def _plain(standings: Standings, lead: Any) -> dict[str, Any]:
    names = (
        "model",
        "baseline",
        "task",
        "metric",
        "value",
        "low",
        "high",
        "p",
        "adjusted",
        "by_seed",
        "users",
    )
    return {
        "question": standings.question,
        "log": standings.log,
        **{name: getattr(lead, name) for name in names},
    }


def cost_of(lines: Sequence[Mapping[str, Any]]) -> Cost:
    """Means over cells; NaN where one does not say."""
    table = pd.DataFrame(lines, columns=[part.name for part in fields(Cost)], dtype=float)
    return Cost(*table.mean(skipna=False))


def _missing(
    plan: Plan, log: Log, models: Sequence[str], lines: Mapping[Key, Mapping[str, Any]]
) -> dict[str, str]:
    found = {}
    for model in models:
        cells = [
            entry
            for entry in plan.entries
            if entry.log == log and entry.contestant.name == model and not entry.cell().done
        ]
        failed = [
            (entry.seed, lines[entry.key]["reason"])
            for entry in cells
            if lines.get(entry.key, {}).get("state") == "failed"
        ]
        parts = [f"failed with seed {seed}: {reason}" for seed, reason in failed]
        if len(cells) > len(failed):
            parts.append(f"{len(cells) - len(failed)} of {len(plan.settings.seeds)} seeds are not run yet")
        if parts:
            found[model] = "; ".join(parts)
    return found
