"""The first steps of a plan: draw a world, prepare a log and measure chance on it, build a graph."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mgoe._util.files import write_json
from mgoe._util.tables import Frame
from mgoe.config import RunSettings, seconds
from mgoe.data import Prepared
from mgoe.errors import OutputError
from mgoe.evaluation import ALL, UNIFORM, Row, measure, write_rows
from mgoe.pipeline.consistency import odd_rows
from mgoe.pipeline.notices import of_log, shape_of
from mgoe.pipeline.plan import NOTICES, REFERENCES, Cell, Log, Plan
from mgoe.pipeline.stages import build, examples_of, prepare_data
from mgoe.simulation import Truth, reachable, simulate


def draw_world(log: Log) -> None:
    """Draw a simulated log."""
    assert log.world is not None
    simulate(log.world, log.path / "world", form=log.settings(0).form)


def prepare_log(plan: Plan, log: Log, seed: int, table: Frame | None = None) -> Prepared:
    """Prepare a log with the training negatives of a seed, and note the rows that it is measured on.

    Args:
        plan: What the log is part of.
        log: The log.
        seed: Seed of the negatives.
        table: Read instead of the log's files.

    Raises:
        OutputError: Its cells would be measured on other rows than the log's other cells.
    """
    settings, folder = log.settings(seed), log.stage(seed)
    prepared = prepare_data(settings, folder, table)
    examples_of(folder)
    if odd := odd_rows(plan, log, seed):
        raise OutputError(folder, odd)
    if not (log.path / NOTICES).exists():
        said = {"notices": of_log(prepared, settings), "shape": shape_of(prepared, settings)}
        write_json(log.path / NOTICES, said)
    if not (log.path / REFERENCES).exists():
        first = log.settings(plan.settings.seeds[0])  # the rows are the same for every seed
        write_rows(log.path / REFERENCES, reference_rows(first, prepared))
    return prepared


def build_graph_of(cell: Cell) -> None:
    """Build the graph that a cell reads."""
    build(cell.settings, Prepared.open(cell.log.stage(cell.seed) / "data"), cell.graph)


def reference_rows(settings: RunSettings, prepared: Prepared) -> Iterator[Row]:
    """Yield rows of `chance` and `best-reachable` on validation and test, and on uniformly shown test rows.

    There are none unless `data.truth` names a simulated world. Chance predicts one half for every example,
    and for a regression the mean of the training labels.
    """
    if settings.data.truth is None:
        return
    truth = Truth.open(Path(settings.data.truth))
    labels, features = prepared.streamed("train").labels, prepared.context_features
    chance = [
        0.5 if task.kind == "binary" else np.nanmean(labels[:, t], dtype=np.float64)
        for t, task in enumerate(settings.tasks)
    ]
    for split in ("valid", "test"):
        examples = prepared.examples(split)
        parts: dict[str, tuple[Any, bool | None]] = {ALL: (slice(None), None)}
        if split == "test" and settings.data.uniform is not None:
            parts[UNIFORM] = prepared.streamed(split).column("uniform") > 0, True
        users = prepared.users.ids(examples.user).to_numpy(zero_copy_only=False)
        items = prepared.items.ids(examples.item).to_numpy(zero_copy_only=False)
        times = (
            (examples.bucket.astype(np.int64) * seconds(settings.data.bucket)).astype("datetime64[s]")
            if examples.moment is None
            else examples.moment.astype("datetime64[us]")
        )
        known: dict[str, Any] = {}  # as models know it too
        for name in {"device", "scenario"}.intersection(features.names("categorical")):
            indices = examples.context[name].astype(np.int64) - 1
            known[name] = np.array(features.vocabularies[name].ids(indices).to_pylist(), object)
        for name, (part, uniform) in parts.items():
            ids, seen = (users[part], items[part], times[part]), {k: v[part] for k, v in known.items()}
            best = reachable(truth, settings, *ids, uniform=uniform, **seen)
            for model, scores in (("chance", np.broadcast_to(chance, best.shape)), ("best-reachable", best)):
                of_part = measure(
                    scores,
                    examples.labels[part],
                    examples.user[part],
                    settings.tasks,
                    model=model,
                    seed=settings.seeds[0],
                    split=split,
                )
                yield from (Row(**{**row, "slice": name}) for row in of_part)
