"""Score a file of pairs with a bundle: into another file, or against its labels.

Axes: `B` pairs, `T` tasks.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from mgoe.batch.parts import LABEL, Progress, Work, open_ids, reading_file, run
from mgoe.bundle import Bundle
from mgoe.bundle.manifest import iso_time
from mgoe.config import TaskSettings
from mgoe.data.examples import mask_given
from mgoe.data.times import read_time
from mgoe.data.waiting import longest_delay
from mgoe.errors import DataError
from mgoe.evaluation import Row, measure
from mgoe.graph.pair_rows import Side

PAIR: tuple[Side, Side] = ("user", "item")
PAIRS_PER_PART = 65_536
"""Whole blocks of a model on any device, since matrix products of other shapes round differently. So a score
does not depend on the number of processes."""
NEW = "new"
"""Name of the split of pairs that a bundle was not made with."""


def score_pairs(
    bundle: Bundle,
    pairs: Path | str,
    jobs: int = 1,
    on_progress: Progress = lambda done, rows: None,
) -> Iterator[pa.Table]:
    """Score a file (or folder, or glob) of pairs, part by part.

    Columns have the names of the bundle's log: user, item, and context features if there are any. A missing
    context feature is unknown.

    Args:
        bundle: What scores.
        pairs: The file.
        jobs: Processes side by side, each of which opens the bundle; any number gives the same scores.
        on_progress: Progress callback; receives the number of rows completed, and of all rows.

    Yields:
        The columns of user and item, and one per task with its probability or value; rows in the file's
        order. The first table is empty.

    Raises:
        ConfigError: Several processes are asked for and the bundle has live events, or one was killed.
        DataError: The file cannot be read or lacks a column.
    """
    return run(bundle, pairs, scores(), jobs, on_progress)


def measure_pairs(
    bundle: Bundle,
    pairs: Path | str,
    jobs: int = 1,
    on_progress: Progress = lambda done, rows: None,
) -> list[Row]:
    """Measure a bundle on pairs with labels, in columns named like the tasks or like the log's labels.

    Arguments are those of `score_pairs`.

    Raises:
        ConfigError: Several processes are asked for and the bundle has live events, or one was killed.
        DataError: The file cannot be read, lacks a column, or holds an invalid label, or its times say that
            served weights have learned its rows, such as the test rows of their run.
    """
    tasks = bundle.settings.tasks
    if bundle.manifest.weights == "served":
        _check_later(bundle, str(pairs))
    parts = [
        (
            np.stack([part[task].to_numpy() for task in bundle.tasks], 1),
            mask_given(np.stack([part[LABEL + task.name].to_numpy() for task in tasks], 1), tasks),
            (part[user] if (user := bundle.settings.data.user) else pa.array(range(len(part)))).to_pandas(),
        )
        for part in run(bundle, pairs, scores(tasks), jobs, on_progress)
    ]
    predicted, labels, users = zip(*parts, strict=True)
    if not sum(map(len, predicted)):
        raise DataError(pairs, "pairs to measure on must hold rows, found none; name another file")
    return measure(
        np.concatenate(predicted),
        np.concatenate(labels),
        pd.factorize(pd.concat(users, ignore_index=True))[0],
        tasks,
        model=bundle.manifest.model.name,
        seed=0,
        split=NEW,
    )


def scores(tasks: Sequence[TaskSettings] = ()) -> Work:
    """Return how pairs are scored, with the labels of some tasks beside the scores."""
    return Work(PAIR, PAIRS_PER_PART, _score, _schema, _unchanged, tasks)


def _score(bundle: Bundle, part: pa.Table) -> tuple[pa.Table, int]:
    """Return ids, labels and scores of the rows of a part; users that were never seen are not told."""
    data = bundle.settings.data
    context = {
        feature.name: part[feature.name] for feature in data.context if feature.name in part.column_names
    }
    users = pa.nulls(len(part)) if data.user is None else part[data.user]
    scored = bundle.predict(users, part[data.item], context)
    labels = [name for name in part.column_names if name.startswith(LABEL)]
    columns = {name: part[name] for name in (*data.ids, *labels)}
    return pa.table(columns | {task: pa.array(scored[task].to_numpy()) for task in bundle.tasks}), 0


def _schema(bundle: Bundle, some: pa.Table) -> pa.Schema:
    return _score(bundle, some)[0].schema


def _unchanged(bundle: Bundle, rows: int) -> Bundle:
    return bundle


def _check_later(bundle: Bundle, path: str) -> None:
    """Refuse pairs with times, in the column of the log, that are not after all that was learned."""
    data, until = bundle.settings.data, datetime.fromisoformat(bundle.manifest.trained_until)
    table = open_ids(bundle, path, PAIR)
    if data.time in table.columns:
        with reading_file(path):
            moment = read_time(table[data.time], data.time, data.time_unit, path, zone=data.timezone)
            first = moment.min().to_pyarrow().as_py()
        last = int(until.timestamp()) * 1_000_000 - longest_delay(bundle.settings.tasks)
        if first is not None and first <= last:
            raise DataError(
                path,
                f"pairs to measure on must be later than those that the weights have learned, until "
                f"{iso_time(last)}, found the first at {iso_time(first)}; `mgoe evaluate RUN` shows what was "
                "measured on test before the bundle learned it",
            )
