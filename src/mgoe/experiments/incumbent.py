"""The rows that a run was measured on, by the ids of its log, and the scores of another ranker on them.

Axes: `N` rows of a split, `T` tasks.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mgoe._util.files import atomic_folder, read_json, write_json
from mgoe._util.tables import open_duckdb
from mgoe.config import DataSettings, RunSettings, did_you_mean, load_settings, seconds
from mgoe.data import Examples, Prepared, Split
from mgoe.data.log import open_log, reading, require_columns
from mgoe.data.schema import NODES
from mgoe.data.times import bucket_of, moment_of, read_time
from mgoe.errors import ConfigError, DataError, OutputError
from mgoe.evaluation import Influence, Row, measure, read_rows, user_influence, write_rows
from mgoe.pipeline.cell_results import ordered_only
from mgoe.pipeline.folder import DONE, EXAMPLES, INFLUENCE, SETTINGS, is_finished
from mgoe.pipeline.inputs import Inputs
from mgoe.pipeline.plan import Plan
from mgoe.pipeline.refit import load_model
from mgoe.training import Feed, predict

INCUMBENT = "incumbent"
"""Name of the other ranker in tables, and of its folder in a run."""
SCORE = "score"
"""Column of scores that stand for every task."""
ROW = "row"
"""Column with the number of a row in its split, by which scores are matched if they have it."""
SAME = 1e-4
"""Scores of one row that differ by a smaller share are equal but for rounding."""


def rows(run: Path | str, split: Split = "test", seed: int | None = None) -> pd.DataFrame:
    """Return the rows of a split with their labels and the predictions of every model of a finished run.

    Args:
        run: Its folder.
        split: `train`, `valid` or `test`.
        seed: Seed of the models; the first by default.

    Returns:
        `row`, the number of the row; the columns of user, item and time, named as in the log, with what the
        row reads everything before: its moment, or the start of its time bucket where rows read up to the cut
        (`data.history`), with its zone if `data.timezone` is set; `window`, its number; one label per task,
        missing where it does not count; and `MODEL.TASK`, the model's own probability (or value), of what the
        row reads. With a refit those on test are of tested weights, and others of chosen ones.

    Raises:
        OutputError: The folder holds no finished run.
        ConfigError: The run has no such seed.
    """
    path = Path(run)
    if not is_finished(path):
        raise OutputError(path, "holds no finished run; name the folder of one, or finish it")
    plan = Plan(settings := load_settings(path / SETTINGS), path)
    seed = settings.seeds[0] if seed is None else seed
    if seed not in settings.seeds:
        raise ConfigError(
            "seed", f"must be a seed of the run{did_you_mean(str(seed), [*map(str, settings.seeds)])}"
        )
    inputs = Inputs.open(path, settings)
    examples = inputs.prepared.examples(split)
    names = settings.task_names
    parts = [placed(examples, inputs.prepared, settings), pd.DataFrame(examples.labels, columns=names)]
    for cell in plan.cells:
        if cell.seed == seed:
            model = load_model(cell, inputs, "tested" if split == "test" else "chosen")
            scores = predict(model, Feed(inputs.prepared, inputs.graph, examples, model.needs, model.spec))
            parts.append(pd.DataFrame(scores, columns=[f"{cell.variant.name}.{task}" for task in names]))
    return pd.concat(parts, axis=1)


def placed(examples: Examples, prepared: Prepared, settings: RunSettings) -> pd.DataFrame:
    """Return number, user, item, time and window of rows, by the columns of the log."""
    data = settings.data
    times = _read_before(examples, data).astype("datetime64[us]")
    return pd.DataFrame(
        {
            ROW: np.arange(len(examples)),
            **({} if data.user is None else {data.user: prepared.users.ids(examples.user).to_pandas()}),
            data.item: prepared.items.ids(examples.item).to_pandas(),
            data.time: times if data.timezone == "UTC" else pd.DatetimeIndex(times, tz="UTC"),
            "window": examples.snapshot.astype(np.int64),
        }
    )


def _read_before(examples: Examples, data: DataSettings) -> NDArray[np.int64]:
    """Return what each row reads everything before, or the start of its bucket; microseconds. Shape (N,)."""
    starts = examples.bucket.astype(np.int64) * seconds(data.bucket) * 1_000_000
    return starts if examples.moment is None else examples.moment


def write_incumbent(out: Path, settings: RunSettings, prepared: Prepared, file: Path | str) -> None:
    """Measure another ranker's scores of the test rows of a run, and write them beside its models.

    Args:
        out: Folder of the run.
        settings: Its settings.
        prepared: Its log.
        file: Parquet or CSV with user, item and time as in the log, `row` where `rows` gave it, and one
            column of scores per task, or one named `score` for all.

    Raises:
        DataError: The file cannot be read, lacks a column or a test row, or its scores break a rule.
    """
    test = prepared.examples("test")
    scores, believed = _scores(test, prepared, settings, str(file))
    about = {"model": INCUMBENT, "seed": settings.seeds[0], "split": "test"}
    found = measure(scores, test.labels, test.user, settings.tasks, **about)
    influence = user_influence(scores, test.labels, test.user, settings.tasks)
    found = ordered_only(found, influence, believed)
    with atomic_folder(out / INCUMBENT) as folder:
        influence.save(folder / INFLUENCE)
        write_rows(folder / DONE, found)
        write_json(folder / EXAMPLES, read_json(out / EXAMPLES))


def read_incumbent(out: Path, seeds: Sequence[int]) -> Iterator[tuple[int, list[Row], Influence]]:
    """Yield what `write_incumbent` wrote, for each seed that it is compared with.

    There is nothing without it, or if the run was measured on other rows since.
    """
    folder = out / INCUMBENT
    if seeds and folder.exists() and read_json(folder / EXAMPLES) == read_json(out / EXAMPLES):
        found, influence = read_rows(folder / DONE), Influence.load(folder / INFLUENCE)
        for seed in seeds:
            yield seed, [Row(**{**row, "seed": seed}) for row in found], influence


def _scores(
    test: Examples, prepared: Prepared, settings: RunSettings, file: str
) -> tuple[NDArray[np.float64], list[str]]:
    """Return scores of the test rows, (N, T), and the tasks whose scores are probabilities (or values).

    Scores that are no probabilities become their rank, which keeps the order.
    """
    from scipy.stats import rankdata  # slow to import, and few runs have scores of another ranker

    given, named = _read(prepared, settings, file)
    joined = _joined(test, given, prepared, settings.data, file)
    scores, believed = np.empty((len(joined), len(settings.tasks))), list[str]()
    for t, task in enumerate(settings.tasks):
        place, column = f"{file}, column {named[task.name]!r}", joined[named[task.name]].to_numpy()
        if not np.isfinite(column).all():
            odd = joined[~np.isfinite(column)].iloc[0]
            missing = _about(odd, prepared, settings.data, "a missing one for")
            raise DataError(place, f"{missing}; score every row")
        if (column == column[0]).all():
            raise DataError(
                place,
                f"scores must order the test rows, found {column[0]:g} throughout; give those of the ranker",
            )
        whole = task.kind == "regression" or (column.min() >= 0 and column.max() <= 1)
        scores[:, t] = column if whole else rankdata(column) / (len(column) + 1)
        believed += [task.name] * bool(whole)
    return scores, believed


def _read(prepared: Prepared, settings: RunSettings, file: str) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return the rows of a file by user, item (indices) and bucket, and the column of each task's scores."""
    data = settings.data
    table = open_log(open_duckdb(), [file], "incumbent", data.ids)
    columns = {name: column for name in ("user", "item", "time") if (column := getattr(data, name))}
    require_columns(table, [(f"data.{name}", column) for name, column in columns.items()], file)
    named = {task: task if task in table.columns else SCORE for task in settings.task_names}
    if lacking := [task for task, name in named.items() if name not in table.columns]:
        rule = f"needs a column {lacking[0]!r} with the scores of this task, or {SCORE!r} for all"
        raise DataError(file, f"{rule}; add one")
    moment = read_time(table[data.time], data.time, data.time_unit, file, zone=data.timezone)
    numbers = {name: table[name].cast("float64") for name in named.values()} | {
        name: table[name].cast("int64") for name in table.columns if name == ROW
    }
    with reading(file):
        ids = {name: table[columns[name]] for name in NODES if name in columns}
        found = table.select(bucket=bucket_of(moment, data.bucket), **ids, **numbers).to_pyarrow()
    nodes = {name: getattr(prepared, f"{name}s").indices(found[name]) for name in ids}
    rest = {name: found[name].to_numpy() for name in ("bucket", *numbers)}
    return pd.DataFrame({**nodes, **rest}), named


def _joined(
    test: Examples, given: pd.DataFrame, prepared: Prepared, data: DataSettings, file: str
) -> pd.DataFrame:
    """Return the scores of each test row. Pairs that are several rows of one bucket have one score without
    numbers of rows."""
    key = [name for name in (ROW, "user", "item", "bucket") if name in given]
    seen = (given.filter(items=NODES) >= 0).all(axis=1)
    groups: Any = given[seen].groupby(key, sort=False)
    low, high = groups.min(), groups.max()
    if (twice := (high - low > SAME * high.abs()).any(axis=1)).any():
        odd = twice[twice].index.to_frame(index=False).iloc[0]
        raise DataError(file, f"{_about(odd, prepared, data, 'two scores for')}; leave one out")
    buckets = _read_before(test, data) // (seconds(data.bucket) * 1_000_000)
    rows_of = pd.DataFrame(
        {ROW: np.arange(len(test)), "user": test.user, "item": test.item, "bucket": buckets}
    )
    joined = rows_of.merge(groups.mean().reset_index(), how="left", on=key, indicator=True)
    missing = (joined["_merge"] == "left_only").to_numpy()
    if missing.any():
        lacking = _about(joined[missing].iloc[0], prepared, data, "none for")
        more = f"and {missing.sum() - 1:,} of {len(joined):,} rows"
        raise DataError(file, f"{lacking} {more}; `mgoe rows` writes them")
    return joined


def _about(row: Any, prepared: Prepared, data: DataSettings, found: str) -> str:
    """Say what was found for a test row."""
    nodes = {
        node: getattr(prepared, f"{node}s").ids([int(row[node])])[0]
        for node in NODES
        if row.get(node, -1) >= 0
    }
    return (
        f"must hold one score for each test row, found {found} "
        f"{', '.join(f'{node} {one}' for node, one in nodes.items())}, "
        f"{moment_of(int(row['bucket']), data.bucket, data.timezone)}"
    )
