"""Which rows the cells of a log are judged on: a difference on others means nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mgoe._util.files import read_json
from mgoe.experiments.plan import EXAMPLES, Log, Plan

Judged = Mapping[str, Sequence[str]]
"""Checksums of rows, as text, to what is judged on them, most first."""
NAMED = 5
"""So many are named in a sentence."""


def judged_cells(plan: Plan, log: Log, lines: Mapping[Any, Mapping[str, Any]]) -> Judged:
    """Titles of the finished cells of a log by their rows.

    Args:
        plan: Of the comparison.
        log: One of its logs.
        lines: The last line of each cell.
    """
    done = [entry for entry in plan.entries if entry.log == log and entry.cell().done and entry.key in lines]
    return _grouped(
        (text_of(lines[entry.key]["examples"]), entry.title)
        for entry in done
        if lines[entry.key]["state"] == "finished"
    )


def judged_seeds(log: Log, seeds: Iterable[int]) -> Judged:
    """Prepared seeds of a log by their rows."""
    there = [seed for seed in seeds if (log.stage(seed) / EXAMPLES).exists()]
    return _grouped((text_of(read_json(log.stage(seed) / EXAMPLES)), f"seed {seed}") for seed in there)


def text_of(examples: Mapping[str, str]) -> str:
    """Checksums of rows as text."""
    return json.dumps(examples, sort_keys=True)


def odd_cells(cells: Judged) -> str:
    """Which cells were judged on other rows than most, in a sentence; nothing where all agree."""
    others = [title for titles in [*cells.values()][1:] for title in titles]
    if not others:
        return ""
    means = "cells were judged on different rows, so that no difference between them means anything"
    return f"{means}: {_named(others)} on others than most; remove their folders, and the same command makes them anew"


def odd_seed(log: Log, seed: int, seeds: Iterable[int], cells: Judged) -> str:
    """Why cells of a seed that is prepared would not be judged as the others of the log are, in a sentence; nothing where they would.

    Args:
        log: The log.
        seed: Of what is prepared.
        seeds: All of the comparison.
        cells: The finished ones.
    """
    [mine] = judged_seeds(log, [seed])
    if len(cells) > 1:
        return odd_cells(cells)
    others = cells or judged_seeds(log, [other for other in seeds if other != seed])
    if not others or mine in others:
        return ""
    than = _named([title for titles in others.values() for title in titles])
    mend = (
        "remove it, and the same command prepares it anew; where it comes out the same, choose another --out"
    )
    return f"holds other rows to be judged on than {than}, so that no difference would mean anything; {mend}"


def _grouped(pairs: Iterable[tuple[str, str]]) -> Judged:
    found: dict[str, list[str]] = {}
    for rows, title in pairs:
        found.setdefault(rows, []).append(title)
    return dict(sorted(found.items(), key=lambda one: -len(one[1])))


def _named(titles: Sequence[str]) -> str:
    more = f" and {len(titles) - NAMED} more" if len(titles) > NAMED else ""
    return "; ".join(titles[:NAMED]) + more
