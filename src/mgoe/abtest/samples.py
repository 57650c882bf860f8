"""What the units of an experiment did: logged answers, joined with what users did, summed per unit and day.

A unit belongs to the arm of its first answer, from that answer on. What it did before the experiment began is
its covariate. Rows join by the request that they name, or by their user where the unit is the user.

Axes: `U` units, `M` metrics, `C` cells, one per unit, day of the experiment and day since the assignment.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mgoe._util.tables import open_duckdb
from mgoe.abtest.effects import Sums, sum_units
from mgoe.config import RunSettings
from mgoe.config.experiment import ExperimentSettings
from mgoe.data.log import as_table, open_log
from mgoe.data.times import read_time
from mgoe.errors import DataError

DataFrame = Any
"""A frame of pandas, whose stubs do not know what a selection of rows is."""
DAY = 86_400_000_000
"""Microseconds."""
SKEW = 60_000_000
"""How far clocks of machines may differ, in microseconds, before it is said."""
RETURNS = (1, 7)
"""Days after which a unit is looked for again, for as many days."""
COLUMNS = (
    *("time", "request", "route", "user", "unit", "experiment", "phase", "arm"),
    *("use", "version", "status", "latency", "items", "propensities", "teams"),
)
"""Columns of logged answers that an experiment needs."""
OF_RETRY = ["request", "route", "user", "unit", "arm", "use", "status"]
"""Columns that answers to a request and to its retries have in common."""


class Metric(NamedTuple):
    """What is measured: the ratio of two sums over units."""

    name: str
    task: str
    kind: str
    """`exposure`, `unit`, `given` or `return`: what one divides by."""
    numerator: str = ""
    denominator: str = ""
    """Names of columns of what units did; no denominator is one per unit."""

    def covariate(self, before: DataFrame) -> NDArray[np.float64]:
        """Return what each unit did before, (U,); of a ratio, what it did beyond the mean ratio."""
        done = before[self.numerator].to_numpy(float)
        if not self.denominator:
            return done
        shown = before[self.denominator].to_numpy(float)
        return done - done.sum() / max(shown.sum(), 1) * shown


@dataclass(frozen=True)
class Sample:
    """The units of an experiment.

    Attributes:
        arms: Names; the first is the control.
        metrics: What is measured.
        units: `unit, arm, first, before, sampled, differs` of each: its arm, the time of its first answer,
            the rows before the experiment, and whether a sampled request of it would have had another list.
        cells: `row, day, since` and a column per numerator and denominator.
        before: The same columns, summed over the time before. Shape (U, ...).
        returns: By metric of kind `return`: whether each unit came back, and whether it had the time to.
        start, end: Microseconds since 1970.
        pairs: Requests of which two arms' lists are logged: `unit, request, differs`.
        rows: What units and others did, with their `unit` and `row`.
        answers: As read.
    """

    arms: tuple[str, ...]
    metrics: tuple[Metric, ...]
    units: DataFrame
    cells: DataFrame
    before: DataFrame
    returns: dict[str, NDArray[np.float64]]
    start: int
    end: int
    pairs: DataFrame
    rows: DataFrame
    answers: DataFrame

    @property
    def days(self) -> int:
        """Days that have begun."""
        return max(-(-(self.end - self.start) // DAY), 1)

    def values(self, metric: Metric, cells: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """Return numerator, denominator and covariate of each unit. Shape (U, 3).

        Args:
            metric: One of `metrics`.
            cells: The cells that count; all by default.
        """
        units = len(self.units)
        if metric.kind == "return":
            return np.column_stack([self.returns[metric.name], np.zeros(units)])
        chosen = self.cells if cells is None else self.cells[cells]
        rows = chosen["row"].to_numpy()

        def summed(column: str) -> NDArray[np.float64]:
            return np.bincount(rows, chosen[column].to_numpy(), minlength=units).astype(float)

        shown = summed(metric.denominator) if metric.denominator else np.ones(units)
        return np.column_stack([summed(metric.numerator), shown, metric.covariate(self.before)])

    def sums(self, values: NDArray[np.float64], chosen: NDArray[np.bool_] | None = None) -> list[Sums]:
        """Return the sums of each arm over units, or over some of them."""
        arm = self.units["arm"].to_numpy()
        return [
            sum_units(values[(arm == a) if chosen is None else (arm == a) & chosen])
            for a in range(len(self.arms))
        ]


def metrics_of(settings: RunSettings) -> tuple[Metric, ...]:
    """Return the metrics of a bundle's tasks."""
    found = []
    for task in settings.tasks:
        done, known = f"{task.name}.done", f"{task.name}.known"
        if task.given:
            found.append(Metric(f"{task.name} per {task.given}", task.name, "given", done, known))
        elif task.kind == "binary":
            found.append(Metric(f"{task.name} per exposure", task.name, "exposure", done, known))
        else:
            found.append(Metric(f"mean {task.name}", task.name, "exposure", done, known))
        found.append(Metric(f"{task.name} per unit", task.name, "unit", done))
    found += [Metric(f"return after {d} days", "return", "return") for d in RETURNS]
    return tuple(found)


def read_answers(path: Path | str, experiment: str | None = None) -> DataFrame:
    """Read logged answers, as `mgoe answers` writes them; of those to a request and its retries the last.

    Args:
        path: A Parquet file.
        experiment: The one that the answers must hold.

    Raises:
        DataError: The file is missing, empty, of other columns, or lacks the experiment.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(path, f"must be a Parquet file, as `mgoe answers` writes it, found {error}") from None
    if missing := [name for name in COLUMNS if name not in table.column_names]:
        raise DataError(
            path, f"must hold the columns of `mgoe answers`, lacks {missing[0]!r}; export it again"
        )
    if not table.num_rows:
        raise DataError(path, "holds no answers; export them from a service with an experiment")
    answers: DataFrame = table.to_pandas().drop_duplicates(OF_RETRY, keep="last", ignore_index=True)
    answers[["user", "unit"]] = answers[["user", "unit"]].astype("string")
    answers["time"] = answers["time"].astype("int64")
    if experiment is not None and not (answers["experiment"] == experiment).any():
        held = ", ".join(sorted(answers["experiment"].dropna().unique())) or "none"
        raise DataError(path, f"must hold the experiment {experiment!r}, found {held}; name one of these")
    return answers


def read_rows(settings: RunSettings, paths: DataFrame, place: str = "--log") -> DataFrame:
    """Read what users did, as numerators and denominators per row: `user, item, request, time` and these.

    Args:
        settings: Of the bundle: its columns and tasks.
        paths: A list of files that `mgoe exposures` or `mgoe events` wrote, or a frame.
        place: What names them, for messages.

    Raises:
        DataError: A file or a column is missing, or times cannot be read.
    """
    data, connection = settings.data, open_duckdb()
    table = open_log(connection, paths, place, data.ids) if isinstance(paths, list) else as_table(paths)
    labels = {t.name: t.label or t.name for t in settings.tasks} if settings.form == "exposures" else {}
    behaviour = data.behavior if settings.form == "events" else None
    for name in (data.user_column, data.item, data.time, behaviour, *labels.values()):
        if name is not None and name not in table.columns:
            raise DataError(
                place, f"must hold the bundle's column {name!r}, found {', '.join(table.columns)}"
            )
    request = data.request or "request"
    columns = {
        "user": table[data.user_column].cast("string"),
        "item": table[data.item].cast("string"),
        "request": table[request].cast("string") if request in table.columns else ibis.null("string"),
        "time": read_time(table[data.time], data.time, data.time_unit, place, zone=data.timezone),
    }
    columns |= {f"{task}.done": table[label].cast("float64") for task, label in labels.items()}
    columns |= {"behaviour": table[behaviour].cast("string")} if behaviour else {}
    frame: DataFrame = table.select(**columns).to_pandas()
    connection.disconnect()
    if frame.empty:
        raise DataError(place, "holds no rows; export what users did during the experiment")
    for task in settings.tasks:
        name, given = f"{task.name}.done", f"{task.given}.done"
        if not labels:
            frame[name] = frame["behaviour"].isin(task.done_by).astype(float) if behaviour else 1.0
            frame[f"{task.name}.known"] = frame[given] if task.given else 0.0
            continue
        known = frame[name].notna() & ((frame[given] > 0) if task.given else True)
        frame[f"{task.name}.known"] = known.astype(float)
        frame[name] = frame[name].where(known, 0.0).fillna(0.0)
    return frame


def collect(
    experiment: ExperimentSettings, settings: RunSettings, answers: DataFrame, rows: DataFrame
) -> Sample:
    """Join answers with what units did.

    Args:
        experiment: Its id, unit and arms.
        settings: Of the control's bundle.
        answers: As of `read_answers`.
        rows: As of `read_rows`.

    Raises:
        DataError: Nobody was in the experiment, or the clocks of answers and rows differ.
    """
    shown = answers[answers["use"] == "answer"]
    own = until_end(shown, experiment)
    own = own[own["unit"].notna() & own["arm"].isin([a.name for a in experiment.arms]) & own["teams"].isna()]
    if own.empty:
        raise DataError(
            f"experiment {experiment.id}",
            f"must have answers of its phase {experiment.phase}, found none; the arms or shares of the file "
            "differ from those that were served, or nobody was covered",
        )
    arms = tuple(arm.name for arm in experiment.arms)
    first = own.sort_values("time", kind="stable").groupby("unit", sort=True).first()
    units: DataFrame = pd.DataFrame({"unit": first.index, "arm": first["arm"].map(arms.index).to_numpy()})
    units["first"] = first["time"].to_numpy()
    start = int(units["first"].min()) if experiment.start is None else _micros(experiment.start)
    places: Any = pd.Series(units.index, units["unit"])
    rows = _with_unit(rows, answers, experiment.unit)
    if settings.form == "events":
        rows = pd.concat([rows, _shown_rows(shown, settings)], ignore_index=True)
    rows = rows.assign(row=rows["unit"].map(places))
    end = int(max(own["time"].max(), rows.loc[rows["row"].notna(), "time"].max(), start)) + 1
    if experiment.end is not None:
        end = min(end, _micros(experiment.end))
    metrics = metrics_of(settings)
    names = list(dict.fromkeys(name for m in metrics for name in (m.numerator, m.denominator) if name))
    inside = rows[rows["row"].notna()].astype({"row": int})
    assigned = units["first"].to_numpy()[inside["row"]]
    during = inside[(inside["time"] >= assigned) & (inside["time"] < end)]
    if during.empty:
        raise DataError(
            f"experiment {experiment.id}",
            "must have rows of its units after their assignment, found none; the log ends before the answers "
            "begin, its clock differs from the service's, or its users are others",
        )
    since = during["time"] - units["first"].to_numpy()[during["row"]]
    keys = {"day": (during["time"] - start) // DAY, "since": since // DAY}
    cells = during.assign(**keys).groupby(["row", "day", "since"])[names].sum().reset_index()
    earlier = inside[inside["time"] < start]
    before = earlier.groupby("row")[names].sum().reindex(units.index, fill_value=0.0)
    units["before"] = earlier.groupby("row").size().reindex(units.index, fill_value=0)
    pairs = _list_differences(answers, experiment.id, experiment.phase)
    by_unit = pairs.groupby("unit")["differs"].max().reindex(units["unit"])
    units["sampled"] = by_unit.notna().to_numpy()
    units["differs"] = by_unit.fillna(False).to_numpy(bool)
    seen: Any = pd.Series(own["time"].to_numpy() - units["first"].to_numpy()[own["unit"].map(places)])
    returns = {
        f"return after {d} days": _returns(seen, own["unit"].map(places), units, end, d) for d in RETURNS
    }
    return Sample(arms, metrics, units, cells, before, returns, start, end, pairs, rows, answers)


def until_end(answers: DataFrame, experiment: ExperimentSettings) -> DataFrame:
    """Return the answers of the experiment's phase, before its end."""
    own = answers[(answers["experiment"] == experiment.id) & (answers["phase"] == experiment.phase)]
    return own if experiment.end is None else own[own["time"] < _micros(experiment.end)]


def shown_items(
    answers: DataFrame, rows: DataFrame, unit: str, beside: str, sums: Sequence[str]
) -> DataFrame:
    """Return each item of the lists that were shown, with what was done with it.

    A row that names a request counts for its list. Another one counts for the newest list before it that
    showed the item to the unit.

    Args:
        answers: As of `read_answers`; those without `beside`, or of a repeated request, are left out.
        rows: What units did: `item, request, time`, their unit, and `sums`.
        unit: The column of the unit in both.
        beside: The column of answers that has one value per item.
        sums: The columns to sum.

    Returns:
        `answer, place, time, request, item`, the unit, `beside` and `sums`.

    Raises:
        DataError: Lists and their values differ in length.
    """
    lists = answers[(answers["use"] == "answer") & answers[unit].notna() & answers[beside].notna()]
    lists = lists.drop_duplicates("request")[["time", "request", unit, "items", beside]]
    uneven = lists["items"].map(len) != lists[beside].map(len)
    if uneven.any():
        raise DataError(
            beside,
            f"must have one value per item, found another number in {int(uneven.sum()):,} of {len(lists):,} "
            "answers; export the answers again",
        )
    shown = lists.rename(columns={"items": "item"}).explode(["item", beside]).rename_axis("answer")
    shown = shown[shown["item"].notna()].reset_index().astype({unit: str, "item": str})
    shown["place"] = shown.groupby("answer").cumcount()
    keys = shown[["answer", "place", "time", "request", "item", unit]]
    done = rows[rows["item"].notna() & rows[unit].notna()].astype({unit: str, "item": str, "time": "int64"})
    named = done["request"].notna()
    by_request = done[named].merge(keys.drop(columns=[unit, "time"]), on=["request", "item"])
    others = done[~named].drop(columns="request").sort_values("time")
    newest = pd.merge_asof(others, keys.sort_values("time"), on="time", by=[unit, "item"])
    counted = pd.concat([by_request, newest]).groupby(["answer", "place"])[list(sums)].sum()
    return shown.join(counted, on=["answer", "place"]).fillna(dict.fromkeys(sums, 0.0))


def _list_differences(answers: DataFrame, experiment: str, phase: str) -> DataFrame:
    """Return the requests of which two arms' lists are logged: `unit, request, differs`."""
    own = answers[(answers["experiment"] == experiment) & (answers["phase"] == phase)]
    lists = own[own["use"].isin(["answer", "compare"]) & own["items"].notna()]
    texts = lists["items"].map("\x1f".join)
    both: DataFrame = pd.DataFrame(
        {"unit": lists["unit"], "request": lists["request"], "use": lists["use"], "text": texts}
    )
    pairs = both[both["use"] == "answer"].merge(both[both["use"] == "compare"], on="request")
    return pd.DataFrame(
        {"unit": pairs["unit_x"], "request": pairs["request"], "differs": pairs["text_x"] != pairs["text_y"]}
    )


def _with_unit(rows: DataFrame, answers: DataFrame, unit: str) -> DataFrame:
    """Return rows with their unit: that of the request that they name, or their user."""
    by_request = answers.dropna(subset=["unit"]).drop_duplicates("request").set_index("request")["unit"]
    found = rows["request"].map(by_request)
    return rows.assign(unit=found.fillna(rows["user"]) if unit == "user" else found)


def _shown_rows(shown: DataFrame, settings: RunSettings) -> DataFrame:
    """Return the items of each answer as denominators, for logs that hold only what happened."""
    rows: DataFrame = pd.DataFrame({"unit": shown["unit"], "time": shown["time"]})
    counts = shown["items"].map(lambda items: 0 if items is None else len(items)).astype(float)
    for task in settings.tasks:
        rows[f"{task.name}.done"] = 0.0
        rows[f"{task.name}.known"] = 0.0 if task.given else counts
    return rows


def _returns(seen: Any, places: Any, units: DataFrame, end: int, days: int) -> NDArray[np.float64]:
    """Return whether units came back between `days` and twice as many days after their first answer."""
    enough = (units["first"].to_numpy() + 2 * days * DAY <= end).astype(float)
    back: Any = (seen >= days * DAY).to_numpy() & (seen < 2 * days * DAY).to_numpy()
    came = np.bincount(places.to_numpy(), back, minlength=len(units)) > 0
    return np.column_stack([np.where(came, enough, 0.0), enough])


def _micros(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6)
