"""A service in the past: the days after a bundle's log, asked and told in the order in which they were.

    python benchmarks/replay.py BUNDLE LOG [--late 1h] [--work FOLDER]

LOG holds later exposures, in the columns of the bundle's log. Exposures of one user in one hour are one
request. The service scores it, then takes what it shows as exposures, and their labels when they are as late
as `--late`. At the end of each day the bundle is refreshed with what was shown until then.

What follows the log is one of

- `frozen`: nothing, as if no snapshot were ever taken;
- `daily`: the snapshot of the last midnight alone;
- `rates`: it and the rates of items, with every exposure and label: what a service does;
- `events`: these, and everything done is sent as an event too, so that users and items move.

One line per day and figure, `{name, value, unit, against, ratio}`; `against` is `daily`, and the ratio is the
figure less that of `daily`:

- `replay.DAY.WHAT.mean`: mean of AUC and GAUC over tasks; `.auc.TASK`, `.gauc.TASK`;
- `replay.DAY.WHAT.within.TASK`: AUC within requests, weighted by their size: no user's own answers help it;
- `replay.DAY.WHAT.calibration.TASK`: predicted over observed;
- `replay.DAY.WHAT.ms`: processor time of scoring one request;
- `replay.live_bytes.item`, `.exposure`: memory of live rates per item that was shown, and of what is
  remembered per exposure; `.touched_user`, `.touched_item`: of a node that events have moved.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

import mgoe
from benchmarks.measure import line
from mgoe.bundle import Bundle
from mgoe.config import seconds
from mgoe.evaluation import measure
from mgoe.lifecycle import Sources, update
from mgoe.serving import Event, ExposureLog, open_events
from mgoe.serving.events.exposure import ExposureReader, Label
from mgoe.serving.scoring.engine import Engine

HOW = ("frozen", "daily", "rates", "events")
DAY, HOUR = 86_400, 3_600
LOOK = 60
"""Seconds between two looks of the service at its log; a real one looks every ten seconds."""


@dataclass(frozen=True)
class Later:
    """Exposures in the order in which they were.

    Attributes:
        rows: With `user`, `item`, `second`, `request`, the labels and the context.
        labels: Shape (N, T).
    """

    rows: pd.DataFrame
    labels: NDArray[np.float32]

    @classmethod
    def read(cls, bundle: Bundle, log: Path) -> "Later":
        """Read the rows of a log."""
        data = bundle.settings.data
        rows = ds.dataset(log).to_table().to_pandas()
        rows["second"] = rows[data.time].to_numpy().astype("datetime64[s]").astype(np.int64)
        rows = rows.rename(columns={data.user: "user", data.item: "item"}).sort_values(
            ["second", "user", "item"], kind="stable", ignore_index=True
        )
        rows["request"] = rows.groupby(["user", rows.second // HOUR], sort=False).ngroup()
        rows["day"] = rows.second // DAY
        tasks = [str(task.label) for task in bundle.settings.tasks]
        return cls(rows, rows[tasks].to_numpy(np.float32))

    def requests(self, day: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield the second and the rows of each request of a day, in order."""
        of_day = self.rows[self.rows.day == day]
        order = of_day.groupby("request", sort=False).indices
        places = of_day.index.to_numpy()
        for rows in sorted((places[found] for found in order.values()), key=lambda found: found[0]):
            yield int(self.rows.second[rows[0]]), rows


class Service:
    """What a service does with one bundle, in the time of the log.

    Args:
        path: The bundle.
        state: Its state folder.
        later: What is asked and shown.
        late: Seconds after an exposure when its labels are sent.
        how: One of `HOW`.
    """

    def __init__(self, path: Path, state: Path, later: Later, late: int, how: str):
        self.events, self.log = open_events(state), ExposureLog(state / "log.sqlite")
        self.engine = Engine(path, self.events, exposures=self.log)
        self._reader, self._later, self._late, self._how = (
            ExposureReader.of(self.engine.bundle),
            later,
            late,
            how,
        )
        self._tasks, self._waiting, self._looked = self.engine.tasks, [], 0
        self.spent = 0.0

    def answer(self, second: int, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Score a request, then take what it shows."""
        asked, engine = self._later.rows.loc[rows], self.engine
        if self._how in ("rates", "events") and second >= self._looked + LOOK:
            self._send_labels(second)
            engine.catch_up()
            self._looked = second
        names = [feature.name for feature in engine.bundle.settings.data.context]
        before = time.process_time()
        out = np.empty((len(rows), len(self._tasks)), np.float32)
        user = int(engine.live.look_up("user", asked.user.iloc[:1].tolist())[0])
        groups = (
            asked.groupby(names, sort=False, dropna=False).indices if names else {(): np.arange(len(rows))}
        )
        for values, places in groups.items():
            context = dict(zip(names, values if isinstance(values, tuple) else (values,), strict=True))
            given = {name: _plain(value) for name, value in context.items() if not pd.isna(value)}
            items = engine.live.look_up("item", asked.item.iloc[places].tolist())
            out[places] = engine.scorer.score(user, items, engine.context(given))
        self.spent += time.process_time() - before
        if self._how in ("rates", "events"):
            self._show(asked, names)
        return out

    def _show(self, asked: pd.DataFrame, names: list[str]) -> None:
        exposures = []
        for number, row in zip(asked.index, asked.to_dict("records"), strict=True):
            context = {name: _plain(row[name]) for name in names if not pd.isna(row[name])}
            raw = {"request": str(number), "user": row["user"], "item": row["item"], "time": row["second"]}
            exposures.append(
                self._reader.read_exposure(raw | {"context": context}, row["second"] * 1_000_000)
            )
            self._waiting.append((row["second"] + self._late, number))
        self.log.append(exposures, [], now=int(asked.second.iloc[-1]) * 1_000_000)

    def _send_labels(self, second: int) -> None:
        due = [number for moment, number in self._waiting if moment <= second]
        self._waiting = [one for one in self._waiting if one[0] > second]
        labels, events = [], []
        for number in due:
            row = self._later.rows.loc[number]
            for name, value in zip(self._tasks, self._later.labels[number], strict=True):
                if np.isnan(value):
                    continue
                moment = int(row.second) * 1_000_000
                labels.append(Label(f"r{number}", "", str(row["item"]), name, moment, float(value)))
                if value > 0:
                    events.append(Event(int(row.user), int(row["item"]), name, moment))
        if labels:
            self.log.append([], labels, now=second * 1_000_000)
        if events and self._how == "events":
            self.events.append(events)


def main() -> None:
    """Replay the days of a log."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, help="of an exposure log")
    parser.add_argument("log", type=Path, help="later exposures, in the columns of the bundle's log")
    parser.add_argument("--late", default="1h", help="how late labels are known; 1h by default")
    parser.add_argument("--work", type=Path, help="folder of the bundles; a temporary one by default")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        replay(given.bundle, given.log, seconds(given.late), given.work or Path(temporary))


def replay(path: Path, log: Path, late: int, work: Path) -> None:
    """Replay every day in every way."""
    first = mgoe.load(path)
    later = Later.read(first, log)
    bundles, days = [path], sorted(later.rows.day.unique().tolist())
    for day in days[:-1]:
        bundles.append(_refreshed(bundles[-1], log, day, first, work))
    for day, bundle in zip(days, bundles, strict=True):
        figures: dict[str, dict[str, float]] = {}
        for how in sorted(HOW, key=lambda one: one != "daily"):
            service = Service(path if how == "frozen" else bundle, work / f"{how}-{day}", later, late, how)
            found = [(rows, service.answer(second, rows)) for second, rows in later.requests(day)]
            rows = np.concatenate([one for one, _ in found])
            figures[how] = _measured(later, rows, np.concatenate([scores for _, scores in found]), service)
            figures[how]["ms"] = service.spent / len(found) * 1000
            for name, value in figures[how].items():
                against = figures["daily"][name]
                line(f"replay.{_date(day)}.{how}.{name}", value, _unit(name), against, value - against)
            live = service.engine.live
            if how == "rates":
                line("replay.live_bytes.item", live.state.rates.bytes / len({*later.rows.item[rows]}), "B")
                line("replay.live_bytes.exposure", service.engine.consumer.follower_bytes / len(rows), "B")
            if how == "events":
                for side, nodes in live.sides.items():
                    line(f"replay.live_bytes.touched_{side}", nodes.bytes / max(1, nodes.size), "B")


def _measured(
    later: Later, rows: NDArray[np.int64], scores: NDArray[np.float32], service: Service
) -> dict[str, float]:
    tasks, frame = service.engine.bundle.settings.tasks, later.rows.loc[rows]
    found = {
        whose: {
            (row["task"], row["metric"]): float(row["value"])
            for row in measure(
                scores, later.labels[rows], frame[whose].to_numpy(), tasks, model="", seed=0, split=""
            )
        }
        for whose in ("user", "request")
    }
    out = {"mean": found["user"]["all", "ranking"]}
    for task in (task.name for task in tasks if task.kind == "binary"):
        out |= {f"{metric}.{task}": found["user"][task, metric] for metric in ("auc", "gauc")}
        out[f"within.{task}"] = found["request"][task, "gauc"]
        out[f"calibration.{task}"] = found["user"][task, "predicted_over_observed"]
    return out


def _refreshed(bundle: Path, log: Path, day: int, first: Bundle, work: Path) -> Path:
    """Return the bundle with what was shown on a day."""
    name = first.settings.data.time
    rows = ds.dataset(log).to_table()
    of_day = rows[name].to_numpy().astype("datetime64[s]").astype(np.int64) // DAY == day
    pq.write_table(rows.filter(pa.array(of_day)), work / f"{day}.parquet")
    out = work / f"bundle-{day}"
    shutil.rmtree(out, ignore_errors=True)
    update(bundle, Sources(str(work / f"{day}.parquet")), out, groups="keep")
    return out


def _plain(value: object) -> object:
    """Return a number of pandas as JSON has it: a column with missing values holds 3 as 3.0."""
    number = value.item() if isinstance(value, np.generic) else value
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _date(day: int) -> str:
    return str(np.datetime64(day, "D"))


def _unit(name: str) -> str:
    return {"ms": "ms", "calibration": "ratio"}.get(name.split(".")[0], "auc")


if __name__ == "__main__":
    main()
