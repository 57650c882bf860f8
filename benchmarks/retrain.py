"""A log in consecutive windows: is a bundle better when its graph, or its weights, follow the log?

    python benchmarks/retrain.py CONFIG [--set data.log=LOG ...] [--windows 10] [--first 0.5] [--work FOLDER]

The first part of the log is trained on as `mgoe run` does. Then, window by window, each of these bundles
predicts the window before it learns from it. The same call with the same `--work` resumes an interrupted one.

- `frozen`: stays as it is;
- `refreshed`: `mgoe update --groups keep` after every window;
- `reclustered`: `mgoe update` after every window;
- `retrained`: `mgoe update --weights continue` after every window;
- `full`: trained from scratch after every window, on everything until then.

One line per figure, `{name, value, unit, against, ratio}`. `against` is `retrained`, and the ratio is
`retrained` less the other:

- `retrain.WINDOW.WHAT.ranking`: mean of AUC and GAUC over tasks in one window;
- `retrain.WINDOW.WHAT.calibration.TASK`: predicted over observed;
- `retrain.WINDOW.WHAT.cpu`: processor seconds of making the bundle after the window; the ratio is that of the
  other over `retrained`;
- `retrain.all.WHAT.ranking`: the mean over windows; `retrain.all.WHAT.difference`, `.low` and `.high`: that
  of `retrained` less this one, with a 95 % interval over users;
- `retrain.all.WHAT.cpu`: the sum over windows; the ratio is as above.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ibis
import numpy as np

from benchmarks.measure import line
from mgoe import experiments
from mgoe._util.files import atomic_folder, read_json, write_json
from mgoe.bundle import Bundle
from mgoe.bundle.calibration import Agreement
from mgoe.config import RunSettings, load_settings
from mgoe.data import Encoders, Examples
from mgoe.data.log import open_log
from mgoe.data.times import bucket_of, microseconds, read_time
from mgoe.evaluation import Influence, find_leads, user_influence
from mgoe.lifecycle import Sources, update
from mgoe.lifecycle.new_rows import NewRows

WHAT: tuple[str, ...] = ("frozen", "refreshed", "reclustered", "retrained", "full")
GROUPS = 1000
"""Groups of users that intervals are over, the same in all windows."""
RANKING = ("all", "ranking")


def split_log(settings: RunSettings, folder: Path, first: float, windows: int) -> list[Path]:
    """Write the first part of a log, and windows after it of whole buckets with about as many rows each.

    Rows before the start or after the end of the log are left out.
    """
    data = settings.data
    source = open_log(ibis.duckdb.connect(), data.log, ids=(data.user, data.item))

    def time_of(table: ibis.Table) -> Any:
        return read_time(table[data.time], data.time, data.time_unit, "the log")

    if data.start is not None:
        source = source.filter(time_of(source) >= microseconds(data.start))
    if data.end is not None:
        source = source.filter(time_of(source) < microseconds(data.end))
    rows = source.mutate(bucket_of_row=bucket_of(time_of(source), data.bucket))
    buckets, counts = np.unique(rows.bucket_of_row.to_pyarrow().to_numpy(), return_counts=True)
    reached = np.cumsum(counts) / counts.sum()
    last = buckets[np.searchsorted(reached, np.linspace(first, 1, windows + 1) - 1e-9)]
    if len(set(last.tolist())) <= windows:
        raise SystemExit(f"{windows} windows need as many buckets after the first part; take fewer windows")
    files = [folder / f"{number:02d}.parquet" for number in range(windows + 1)]
    if not folder.exists():
        with atomic_folder(folder) as place:
            for file, (low, high) in zip(
                files, pairwise([int(buckets[0]) - 1, *map(int, last)]), strict=True
            ):
                part = rows.filter(rows["bucket_of_row"].between(ibis.literal(low + 1), ibis.literal(high)))
                part.drop("bucket_of_row").to_parquet(place / file.name)
    return files


def grouped(influence: Influence) -> Influence:
    """Sum an influence over groups of users that are the same in all windows."""
    parts = np.zeros((GROUPS, influence.parts.shape[1]), np.float32)
    np.add.at(parts, influence.users % GROUPS, np.nan_to_num(influence.parts))
    return Influence(influence.names, influence.values, np.arange(GROUPS), parts)


def mean(influences: list[Influence]) -> Influence:
    """Return the mean over windows."""
    values, parts = (
        np.mean([getattr(one, name) for one in influences], axis=0) for name in ("values", "parts")
    )
    return Influence(influences[0].names, values, influences[0].users, parts)


def measured(bundle: Bundle, users: np.ndarray, file: Path, work: Path) -> tuple[Influence, dict[str, float]]:
    """Return how well a bundle ranks the rows of a window, and predicted over observed by task."""
    examples = rows_of(bundle, file, work)
    scores = bundle.score_indices(examples.user, examples.item, examples.context, recalibrated=False)
    calibrated = bundle.predict_examples(examples)
    ratios = {
        task.name: Agreement.of(examples.labels[:, t], calibrated[:, t]).predicted_over_observed
        for t, task in enumerate(bundle.settings.tasks)
        if task.kind == "binary"
    }
    influence = user_influence(scores, examples.labels, users, bundle.settings.tasks)
    return grouped(influence), {name: ratio for name, ratio in ratios.items() if ratio is not None}


def rows_of(bundle: Bundle, file: Path, work: Path, ids: Encoders | None = None) -> Examples:
    """Return the rows of a window as examples."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        new = NewRows.of(bundle, Sources(str(file)), Path(folder), trains=ids is not None)
        found = new.examples(ids)
    assert found is not None
    return found


def ranking(influence: Influence) -> float:
    """Return the mean of AUC and GAUC over tasks."""
    return float(influence.values[influence.names.index(RANKING)])


def timed(make: Callable[[Path], Bundle], folder: Path) -> tuple[Bundle, float]:
    """Make a bundle in a folder, or open the one that an earlier call made there.

    Returns:
        The bundle, and the processor seconds that making it took.
    """
    file = folder / "made.json"
    if not file.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        started = time.process_time()
        made = make(folder / "bundle")
        write_json(file, {"bundle": str(made.path), "cpu": time.process_time() - started})
    record = read_json(file)
    return Bundle.open(record["bundle"], verify=False), record["cpu"]


def full(settings: RunSettings, files: list[Path], out: Path) -> Bundle:
    """Train from scratch on files."""
    data = settings.data.model_copy(update={"log": [str(file) for file in files]})
    settings = settings.model_copy(update={"data": data, "models": settings.models[:1], "seeds": [0]})
    return experiments.run(settings, out, show_progress=False).bundle


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="changes")
    parser.add_argument("--windows", type=int, default=10)
    parser.add_argument("--first", type=float, default=0.5)
    parser.add_argument("--work", type=Path, help="folder to keep the bundles in, and to resume from")
    asked = parser.parse_args()
    settings = load_settings(asked.config, asked.changes)
    with tempfile.TemporaryDirectory() as name:
        work = asked.work or Path(name)
        files = split_log(settings, work / "log", asked.first, asked.windows)
        first, cpu = timed(partial(full, settings, files[:1]), work / "0-full")
        line("retrain.0.full.cpu", cpu, "s")
        follow(settings, dict.fromkeys(WHAT, first), files, work)


def follow(settings: RunSettings, bundles: dict[str, Bundle], files: list[Path], work: Path) -> None:
    """Predict each window with every bundle, then make the next ones."""
    every: dict[str, list[Influence]] = {what: [] for what in bundles}
    spent = dict.fromkeys(bundles, 0.0)
    for number, file in enumerate(files[1:], 1):
        following = {
            what: timed(
                partial(following_of, what, settings, bundles[what], files[: number + 1]),
                work / f"{number}-{what}",
            )
            for what in bundles
        }
        ours = bundles["retrained"]  # its ids number the users of all windows alike
        users = rows_of(ours, file, work, following["retrained"][0].encoders).user
        found = {what: measured(bundle, users, file, work) for what, bundle in bundles.items()}
        for what, (influence, ratios) in found.items():
            every[what].append(influence)
            value, own = (ranking(one) for one in (influence, found["retrained"][0]))
            line(f"retrain.{number}.{what}.ranking", value, "1", own, own - value)
            for task, ratio in ratios.items():
                line(
                    f"retrain.{number}.{what}.calibration.{task}", ratio, "1", found["retrained"][1].get(task)
                )
            cpu, own = following[what][1], following["retrained"][1]
            line(f"retrain.{number}.{what}.cpu", cpu, "s", own, cpu / own)
            spent[what] += cpu
        bundles = {what: bundle for what, (bundle, _) in following.items()}
    means = {what: mean(one) for what, one in every.items()}
    for what, one in means.items():
        line(f"retrain.all.{what}.ranking", ranking(one), "1")
        own = spent["retrained"]
        line(f"retrain.all.{what}.cpu", spent[what], "s", own, spent[what] / own)
    for lead in find_leads(
        "retrained", {0: means["retrained"]}, {what: {0: one} for what, one in means.items()}
    ):
        if (lead.task, lead.metric) == RANKING:
            for which, value in (("", lead.value), (".low", lead.low), (".high", lead.high)):
                line(f"retrain.all.{lead.baseline}.difference{which}", value, "1")


def following_of(what: str, settings: RunSettings, before: Bundle, files: list[Path], out: Path) -> Bundle:
    """Return the bundle that follows one after the last of these files."""
    log = [str(files[-1])]
    if what in ("refreshed", "reclustered"):
        return update(before.path, Sources(log), out, groups="learn" if what == "reclustered" else "keep")
    if what == "retrained":
        return update(before.path, Sources(log), out, weights="continue")
    return before if what == "frozen" else full(settings, files, out)


if __name__ == "__main__":
    main()
