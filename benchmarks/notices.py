"""Do the notes above a table name what is wrong with a log, and stay silent where nothing is?

    python benchmarks/notices.py --out runs/notices [--stationary 30] [--first-seed 7000]

Each log gets the configuration that `mgoe init` writes, and a run with it. Stationary logs are simulated
worlds in which nothing drifts, event logs and exposure logs in turn, of 20,000 rows or more. Those with one
thing wrong are one exposure log, each changed in one way.

That the best epoch is the last is true where it is said, and a run of a stationary log may say it. Any other
note on one is a false alarm. Finished runs are kept, so the same command resumes.

- `notices.false_alarms`: notes on stationary logs; `against` the number of these logs.
- `notices.WRONG`: how often the note on that log is there, 0 if it is missing; `against` the number of other
  notes on it.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import line
from mgoe._util.progress import shown
from mgoe.data import guess
from mgoe.experiments import run
from mgoe.experiments.results import RunResult
from mgoe.simulation import BehaviorSettings, WorldSettings, simulate

STILL = {"affinity_drift": 0.0, "popularity_drift": 0.0, "arriving_users": 0.0, "arriving_items": 0.0}
"""Settings of a world in which nothing drifts."""
TRUE = "the best epoch of"


@dataclass(frozen=True)
class Wrong:
    """One way to spoil a log, and how its note begins or what it holds.

    Attributes:
        note: Words of the note.
        change: What is done to the log.
        settings: What is changed in the configuration that `mgoe init` writes, by dotted key.
    """

    note: str
    change: Callable[[pd.DataFrame], pd.DataFrame] = lambda log: log
    settings: Mapping[str, Any] = field(default_factory=dict)


def _chance(log: pd.DataFrame) -> pd.DataFrame:
    drawn = np.random.default_rng(1).permutation(log["click"])
    return log.drop(columns=["favour", "cart", "buy"]).assign(click=drawn)


def _by_heart(log: pd.DataFrame) -> pd.DataFrame:
    """Few pairs that always do the same, until validation begins."""
    user, item, place = log["user_id"] % 40, log["item_id"] % 30, np.arange(len(log)) / len(log)
    own, later = (user * 7 + item * 11) % 5 < 2, np.random.default_rng(4).random(len(log)) < 0.4
    click = np.where(place < 0.78, own, later).astype(int)
    return log.drop(columns=["favour", "cart", "buy"]).assign(user_id=user, item_id=item, click=click)


def _more_at_the_end(log: pd.DataFrame) -> pd.DataFrame:
    """Three quarters of the clicks left undone are done as well in the last rows."""
    more = np.random.default_rng(2).random(len(log)) < 0.75 * (np.arange(len(log)) >= 0.85 * len(log))
    return log.assign(click=log["click"].where(~more, 1))


def _rare_in_validation(log: pd.DataFrame) -> pd.DataFrame:
    place = np.arange(len(log)) / len(log)
    fewer = (place >= 0.78) & (place < 0.9) & (np.random.default_rng(5).random(len(log)) < 0.75)
    return log.drop(columns=["favour", "cart", "buy"]).assign(click=log["click"].where(~fewer, 0))


def _half_with_zone(log: pd.DataFrame) -> pd.DataFrame:
    zone = np.where(np.arange(len(log)) % 2, "+02:00", "")
    return log.assign(timestamp=log["timestamp"].dt.strftime("%Y-%m-%dT%H:%M:%S") + zone)


CONTEXT = "data.context"
WRONG = {
    "few_users": Wrong("test users have what AUC", lambda log: log[log["user_id"] % 12 == 0]),
    "last_epoch": Wrong(TRUE, settings={"training.epochs": 2, "training.learning_rate": 1e-4}),
    "hopeless_task": Wrong("nothing in the log predicts click", _chance),
    "by_heart": Wrong("has learned rows by heart", _by_heart),
    "column_that_knows": Wrong(
        "the context 'seconds' alone",
        lambda log: log.assign(seconds=log["click"] * 9 + np.random.default_rng(3).random(len(log))),
        {CONTEXT: [{"name": "seconds", "kind": "numeric"}]},
    ),
    "rows_as_items": Wrong(
        "looks like the number of a row",
        lambda log: log.assign(item_id=np.arange(len(log))),
    ),
    "duplicates": Wrong("repeat another in every column", lambda log: pd.concat([log, log[::8]])),
    "missing_ids": Wrong(
        "are left out",
        lambda log: log.assign(user_id=log["user_id"].astype("Int64").where(np.arange(len(log)) % 9 > 0)),
        {"data.missing_ids": "drop"},
    ),
    "half_with_zone": Wrong("name a zone and the others", _half_with_zone),
    "unlike_test": Wrong("as frequent in test as in training", _more_at_the_end),
    "worse_calibration": Wrong("calibration on validation makes click worse", _rare_in_validation),
    "below_a_reference": Wrong(
        "which learns nothing, is ahead of", settings={"training.epochs": 1, "training.learning_rate": 1e-7}
    ),
}


def stationary(seed: int, folder: Path) -> Path:
    """Draw a world in which nothing drifts, and return its log."""
    draw = np.random.default_rng(seed)
    users, items, days = (int(draw.integers(*span)) for span in ((800, 4000), (300, 2000), (10, 90)))
    form = ("events", "exposures")[seed % 2]
    shown = int(draw.integers(60_000, 150_000))
    funnel = [
        BehaviorSettings(name="click", rate=0.25, correlation=1.0),
        BehaviorSettings(name="buy", rate=0.2),
    ]
    world = WorldSettings(
        users=users, items=items, days=days, exposures=shown, behaviors=funnel, seed=seed, **STILL
    )
    simulate(world, folder / "world", form=form)  # pyright: ignore[reportArgumentType]
    return folder / "world" / form


def spoiled(wrong: Wrong, folder: Path) -> Path:
    """Write an exposure log with one thing wrong, and return it."""
    world = WorldSettings(users=2400, items=600, days=30, exposures=60_000, seed=6999, **STILL)
    simulate(world, folder / "world", form="exposures")
    log = pd.read_parquet(folder / "world" / "exposures").drop(columns="stay").sort_values("timestamp")
    wrong.change(log).to_parquet(folder / "log.parquet")
    return folder / "log.parquet"


def result_of(folder: Path, draw: Callable[[Path], Path], settings: Mapping[str, Any]) -> RunResult:
    """Return the run of a log, as `mgoe init` configures it with some settings changed."""
    config = folder / "run.yaml"
    if not config.exists():
        folder.mkdir(parents=True, exist_ok=True)
        raw = yaml.safe_load(guess(draw(folder)))
        for key, value in settings.items():
            *sections, last = key.split(".")
            inner = raw
            for section in sections:
                inner = inner.setdefault(section, {})
            inner[last] = value
        config.write_text(yaml.safe_dump(raw))
    with shown("stderr"):
        return run(config, folder / "run", reuse=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, measure, print."""
    asked = _parser().parse_args(arguments)
    alarms = 0
    for seed in range(asked.first_seed, asked.first_seed + asked.stationary):
        said = result_of(
            asked.out / f"stationary-{seed}", lambda folder, seed=seed: stationary(seed, folder), {}
        )
        false = [note for note in said.standings.notices if not note.startswith(TRUE)]
        alarms += len(false)
        for note in false:
            print(f"stationary-{seed}: false alarm: {note}", file=sys.stderr)
    if asked.stationary:
        line("notices.false_alarms", alarms, "notes", asked.stationary)
    for name, wrong in WRONG.items():
        found = result_of(
            asked.out / name, lambda folder, wrong=wrong: spoiled(wrong, folder), wrong.settings
        )
        notes = found.standings.notices
        named = [note for note in notes if wrong.note in note]
        line(f"notices.{name}", len(named), "notes", len(notes) - len(named))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs, resumed if it exists")
    parser.add_argument("--stationary", type=int, default=30, help="logs with nothing wrong")
    parser.add_argument("--first-seed", type=int, default=7000, help="of these")
    return parser


if __name__ == "__main__":
    main()
