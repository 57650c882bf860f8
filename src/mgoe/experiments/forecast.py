"""`mgoe plan`: rows, time, memory and disk of each stage of a run, before it starts.

Work is counted from the settings and a scan of the log; `costs` says what each unit of it takes. Time is a
forecast. What is refused is certain: `LEAST` of what must be in memory or on disk at once.
"""

import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mgoe._util.files import GIB
from mgoe._util.memory import machine_memory
from mgoe.config import ModelSettings, RunSettings, retrieval_of
from mgoe.data.log_files import LOG, files_of
from mgoe.data.size import LogSize
from mgoe.errors import ConfigError, GraphError, MgoeError, OutputError
from mgoe.experiments.costs import COSTS, NUMBER_BYTES, PAIR_BYTES, WEIGHTS, slowness
from mgoe.experiments.pages import duration
from mgoe.graph.build.sizes import PROCESS, check_memory, choose_resolutions
from mgoe.graph.pair_rows import available_threads
from mgoe.pipeline.blending import USERS
from mgoe.pipeline.plan import Plan, training_of

logger = logging.getLogger(__name__)

LEAST = 0.8
"""Share of the estimated numbers of users, items and pairs that there are for certain."""
SMALL, LONG = 1_000_000, 60.0
"""Bytes of a log, times models and seeds, from which `mgoe run` makes a forecast; and the seconds from which
it prints that."""
READ = {
    "prepare": "rows",
    "graph": "pairs",
    "training": "trained",
    "evaluation": "scored",
    "retrieval": "linked pairs",
    "bundle and report": "nodes",
}
"""What the rows of a stage are."""


@dataclass(frozen=True)
class StageForecast:
    """What a stage takes.

    Attributes:
        stage: Its name.
        rows: What it goes through: rows of the log, pairs of all snapshots, training rows of all epochs,
            scored rows, pairs that links are found from, users and items.
        seconds, cpu_seconds: Time and processor time.
        memory_gib: Peak of anonymous memory.
        disk_gib: The most that the folder of the run takes.
    """

    stage: str
    rows: int
    seconds: float
    cpu_seconds: float
    memory_gib: float
    disk_gib: float


@dataclass(frozen=True)
class Forecast:
    """What a run takes.

    Attributes:
        stages: In their order.
        facts: Sizes of the log, what the run takes in all, and what the machine has, by the names that
            `mgoe plan --json` prints.
        excluded: Why the run cannot end on this machine, if that is certain.
    """

    stages: Sequence[StageForecast]
    facts: Mapping[str, Any]
    excluded: MgoeError | None


def foresee(settings: RunSettings, out: Path, slowness: float = 1.0, replaces: bool = False) -> Forecast:
    """Forecast a run by a scan of its log.

    Args:
        settings: Of the run.
        out: Its folder, which need not exist. A run that has begun there is not refused for its own files.
        slowness: How many times as long this machine takes as that of the measured costs.
        replaces: The run starts from nothing, and the one in the folder stays until it ends.

    Raises:
        MgoeError: The log cannot be read, or settings do not suit it.

    Example:
        >>> found = foresee(settings, Path("planned"))
        >>> found.facts["rows"] == prepared.summary["rows"], found.excluded is None
        (True, True)
    """
    size = LogSize.of(settings)
    known, examples = size.windows(settings)
    work = _work(settings, Plan(settings, out), size, known, examples)
    stages = _stages(settings, work, slowness)
    place = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    free, begun = shutil.disk_usage(place).free, (out / "data").exists() and not replaces
    excluded = _excluded(settings, size, known, work["table"], out, np.inf if begun else free)
    facts = {
        "rows": int(work["rows"]),
        **{name: getattr(size, name) for name in ("users", "items", "pairs")},
        "examples": examples,
        "snapshots": len(known),
        "seconds": sum(stage.seconds for stage in stages),
        "memory_gib": max(stage.memory_gib for stage in stages),
        "disk_gib": max(stage.disk_gib for stage in stages),
        "cores": available_threads(),
        "slowness": slowness,
        "machine_memory_gib": machine_memory() / GIB,
        "free_disk_gib": free / GIB,
        "excluded": None if excluded is None else str(excluded),
    }
    return Forecast(stages, facts, excluded)


def announce(settings: RunSettings, out: Path, replaces: bool, force: bool) -> None:
    """Print what a run will take if that is much, and refuse one that cannot end. One that has begun resumes,
    and of a log that is prepared on Spark nothing is said.

    Args:
        settings: Of the run.
        out: Its folder.
        replaces: See `foresee`.
        force: Refuse nothing.

    Raises:
        MgoeError: Memory or disk do not suffice, for certain.
    """
    found, cells = None, len(settings.models) * len(settings.seeds)
    with suppress(MgoeError):  # the stage that finds a mistake names the row
        size = sum(file.stat().st_size for path in settings.data.log for file in files_of(str(path), LOG))
        here = settings.data.engine == "local" and (replaces or not (out / "data").exists())
        if here and size * cells >= SMALL:
            found = foresee(settings, out, replaces=replaces)
    if found is None:
        return
    if found.excluded is not None and not force:
        raise found.excluded
    if found.facts["seconds"] > LONG and logger.isEnabledFor(logging.INFO):
        factor = slowness()
        logger.info(
            f"about {duration(found.facts['seconds'] * factor)}, {found.facts['memory_gib']:.1f} GiB of "
            f"memory and {found.facts['disk_gib']:.1f} GiB of disk: "
            + ", ".join(f"{one.stage} {duration(one.seconds * factor)}" for one in found.stages)
        )


def _work(
    settings: RunSettings,
    plan: Plan,
    size: LogSize,
    known: Sequence[float],
    examples: Mapping[str, int],
) -> dict[str, float]:
    """Return how many units of work there are, by the names in `COSTS` and `READ`."""
    models = [variant.settings() for variant in plan.variants.values()]
    tasks, seeds, graph = len(settings.tasks) / 4, len(settings.seeds), settings.graph  # 4 were measured
    weights = [tasks * WEIGHTS.get(model.base, 1.0) for model in models]
    epochs = [
        weight * training_of(settings, model).epochs for weight, model in zip(weights, models, strict=True)
    ]
    resolutions = len(choose_resolutions(graph, size.users, size.items))
    nodes, pairs, numbers = size.users + size.items, size.pairs * sum(known), graph.rank * len(known)
    sampled_pairs = pairs * min(1, graph.sample / size.users)
    sampled_users, again = min(size.users, graph.sample) * len(known), pairs * (size.users > graph.sample)
    rows, lists = int(size.counts.sum()), retrieval_of(settings.retrieval, size.items)
    shown = rows if settings.form == "exposures" else 0
    followed = int(size.happened.sum()) * (1 - known[0]) * (settings.data.history != "cut")
    evaluated, every = examples["valid"] + examples["test"], seeds * len(models)
    scored = seeds * sum(weights) * (evaluated + settings.evaluation.ranking_queries * size.items)
    refits = [
        _refitted(settings, model, weight, examples) for weight, model in zip(weights, models, strict=True)
    ]
    served = [*plan.variants].index(settings.serve or plan.comparison.lead)
    refitted = seeds * sum(tested for tested, _ in refits) + refits[served][1]
    return {
        "start": 1,
        "rows": rows,
        "nodes": nodes,
        "history": int(size.happened.sum()),
        "examples": sum(examples.values()),
        "exposures": shown,
        "exposures x snapshots": shown * sum(known),
        "pairs": pairs,
        "pairs x resolutions": pairs * resolutions,
        "pairs again": again,
        "pairs again x resolutions": again * resolutions,
        "nodes x snapshots": nodes * len(known),
        "items x snapshots": size.items * len(known),
        "nodes x resolutions": nodes * len(known) * resolutions,
        "numbers": numbers * (size.users + 2 * size.items),
        "sampled pairs x numbers": sampled_pairs * graph.rank * (1 + graph.power_iterations),
        "sampled users x numbers": sampled_users * graph.rank,
        "sampled pairs x resolutions": sampled_pairs * resolutions,
        "sampled users x resolutions": sampled_users * resolutions,
        "moments": settings.data.history != "cut",
        "followed": followed,
        "followed x resolutions": followed * resolutions,
        "trained": examples["train"] * seeds * sum(epochs) + refitted,
        "validated": examples["valid"] * seeds * sum(epochs),
        "table": nodes
        * max((int(model.options.get("width", 16)) for model in models if model.ids == "on"), default=0),
        "cells": every,
        "evaluated": evaluated,
        "learned exposures": bool(shown)
        * ((examples["train"] + examples["valid"]) * seeds * sum(epochs) + refitted),
        "scored": scored,
        "scored exposures": scored * bool(shown),
        "measured": every * tasks * evaluated,
        "scored in lists": 2 * USERS * min(lists.candidates, size.items) * weights[served] if lists else 0,
        "linked pairs": 2 * size.pairs if lists else 0,
        "linked items": size.items if lists else 0,
    }


def _refitted(
    settings: RunSettings, model: ModelSettings, weight: float, examples: Mapping[str, int]
) -> tuple[float, float]:
    """Return the rows that a refit trains on, times epochs: at most, for tested and for served weights."""
    training, ours = training_of(settings, model), settings.retrain
    if training.refit == "none":
        return 0.0, 0.0
    tested = examples["train"] + examples["valid"]
    if training.refit == "anew":
        return weight * training.epochs * tested, weight * training.epochs * (tested + examples["test"])
    valid, test = (weight * ours.epochs * (1 + ours.replay) * examples[split] for split in ("valid", "test"))
    return valid, test


def _stages(settings: RunSettings, work: Mapping[str, float], slowness: float) -> list[StageForecast]:
    """Return what every stage takes. What one holds, the later ones hold too."""
    cores, threads = available_threads(), settings.training.threads * min(settings.jobs, int(work["cells"]))
    found, held, buffers, kept = list[StageForecast](), 0.0, 0.0, 0.0
    for name, cost in COSTS.items():
        used = slowness * sum(each * work[unit] for unit, each in cost.seconds.items())
        busy = min(cores, threads) if name in ("training", "evaluation") else cores
        held += sum(each * work[unit] for unit, each in cost.held.items())
        unit, each, share = cost.buffered
        buffers = max(buffers, min(each * work[unit], share * settings.memory * GIB))
        kept += sum(each * work[unit] for unit, each in cost.kept.items())
        found.append(
            StageForecast(
                stage=name,
                rows=int(work[READ[name]]),
                seconds=used * (cost.alone + (1 - cost.alone) / busy),
                cpu_seconds=used,
                memory_gib=(held + buffers) / GIB,
                disk_gib=(kept + cost.spilled * work["rows"]) / GIB,
            )
        )
    return found


def _excluded(
    settings: RunSettings,
    size: LogSize,
    known: Sequence[float],
    table: float,
    out: Path,
    free: float,
) -> MgoeError | None:
    """Return why a run cannot end, whatever else this machine does; None if it may.

    Args:
        settings, size, known: See `foresee`.
        table: Numbers in the table of a model with ids.
        out: Folder of the run.
        free: Bytes of disk.
    """
    users, items, pairs = (int(LEAST * n) for n in (size.users, size.items, size.pairs))
    machine = machine_memory()
    try:
        check_memory(users, items, settings.graph, min(settings.memory, machine / GIB), pairs)
    except GraphError as error:
        return error
    if (least := PROCESS + LEAST * NUMBER_BYTES * table) > machine:
        return ConfigError(
            "models",
            f"the machine must hold the table of ids, {least / GIB:.1f} GiB at least, found "
            f"{machine / GIB:.1f} GiB of memory; lower options.width, or set `ids: off`",
        )
    each = PAIR_BYTES * pairs + NUMBER_BYTES * settings.graph.rank * (users + 2 * items)
    if each * sum(known) > free:
        return OutputError(
            out,
            f"the disk must hold {len(known)} snapshots of the graph, one per cut and the last, at least "
            f"{each * sum(known) / GIB:.1f} GiB, found {free / GIB:.1f} GiB free, enough for "
            f"{int(free / each)}; take fewer split.cuts, lower graph.rank, or choose another disk",
        )
    return None
