"""Do macro nodes recover planted communities, and which settings does it take?

    python benchmarks/study.py worlds      # by events per node, and by the shape of the log
    python benchmarks/study.py settings    # rank, power iterations, threshold, scale, macro nodes, sample
    python benchmarks/study.py drift       # when should macro nodes be learned again?

Simulated logs of 100 user and 100 item communities and `--events` events, a million by default; one snapshot,
one resolution of 100/100 unless that varies. A figure is the normalised mutual information of macro nodes and
communities over all nodes with edges, the mean of `--seeds` worlds (two by default).

One line per figure, `{name, value, unit, against, ratio}`:

- `study.nmi.SIDE.WORLD.USER_EVENTS`: SIDE is user or item, with so many events per user and five times as
  many per item. `against` is the value of nodes placed by their edges to the other side's true communities.
- `study.nmi.SIDE.KEY=VALUE`: one setting of the graph is not the default. `against` is the default's value on
  the same logs.
- `study.drift.SHARE`: a graph of the first SHARE of the time, updated with the rest: the drift that it shows.
  `study.nmi.SIDE.kept.SHARE`: of its macro nodes, against those that `--recluster` learns.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import line, use_cores
from benchmarks.world import COMMUNITIES, DEFAULT, TASKS, agreement, reachable
from mgoe import experiments
from mgoe.config import make_settings
from mgoe.graph import MacroGraph
from mgoe.simulation import WorldSettings, simulate

SIDES = ("user", "item")
USER_EVENTS = (5, 10, 20, 50, 100, 200)
USUAL = 20
"""Events a user where that does not vary: few enough that settings matter."""
ITEMS_A_USER = 0.2
WORLDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "equal sizes": {"skew": 0},
    "skewed sizes": {"skew": 1},
    "heavy tails": {"activity": 1, "popularity": 1.2},
    "weak tastes": {"personalized": 0.25},
    "skewed and heavy": {"skew": 1, "activity": 1, "popularity": 1.2},
}
VARIED: dict[str, Sequence[Any]] = {
    "rank": (16, 32, 64, 128, 256),
    "power_iterations": (0, 1, 2, 3, 4, 6, 8),
    "threshold": (0.0, 0.1, 0.25, 0.5),
    "low_weight": (0.0, 0.1, 1.0),
    "scale": (0.0, 0.5, 1.0, 2.0),
    "normalize": ("degree", "none"),
    "resolutions": ([[25, 25]], [[50, 50]], [[100, 100]], [[200, 200]], [[400, 400]]),
    "sample": (2_000, 5_000, 10_000, 20_000, 200_000),
    "iterations": (5, 10, 20, 40),
    "rounds": (0, 1, 2, 5, 10, 20, 50),
}
SHARES = (0.1, 0.2, 0.4, 0.6, 0.8, 0.9)


@contextmanager
def world(events: float, user_events: float, seed: int, **shape: Any) -> Iterator[Path]:
    """A folder with a simulated log and its truth."""
    users = round(events / user_events)
    sizes = {
        "users": users,
        "items": round(users * ITEMS_A_USER),
        "user_communities": COMMUNITIES,
        "item_communities": COMMUNITIES,
    }
    with tempfile.TemporaryDirectory() as folder:
        simulate(
            WorldSettings(**sizes, seed=seed, **shape),
            Path(folder) / "log",
            events=round(events),
            form="events",
        )
        yield Path(folder)


def build(folder: Path, log: Path, name: str = "graph", **graph: Any) -> MacroGraph:
    """The graph of a log."""
    settings = make_settings(
        {"data": {"log": str(log)}, "tasks": list(TASKS), "graph": {**DEFAULT, **graph, "snapshots": "last"}}
    )
    return experiments.macro_graph(settings, folder / name, overwrite=True)


def study_worlds(events: float, seeds: int) -> None:
    """By events a node and shape of the log, settings at their defaults."""
    for name, shape in WORLDS.items():
        for user_events in USER_EVENTS:
            found = [_one(events, user_events, seed, shape) for seed in range(seeds)]
            for side in SIDES:
                value, best = (mean(one[part][side] for one in found) for part in (0, 1))
                line(
                    f"study.nmi.{side}.{name.replace(' ', '_')}.{user_events}", value, "1", best, value / best
                )


def _one(
    events: float, user_events: float, seed: int, shape: dict[str, Any]
) -> tuple[dict[str, float], dict[str, float]]:
    with world(events, user_events, seed, **shape) as folder:
        graph = build(folder, folder / "log" / "events")
        return agreement(folder / "log", graph), reachable(folder / "log", graph)


def study_settings(events: float, seeds: int) -> None:
    """One setting at a time, all on the same logs."""
    found: dict[str, list[dict[str, float]]] = {}
    for seed in range(seeds):
        with world(events, USUAL, seed) as folder:
            log = folder / "log" / "events"
            found.setdefault("", []).append(agreement(folder / "log", build(folder, log)))
            for key, values in VARIED.items():
                for value in values:
                    found.setdefault(f"{key}={json.dumps(value)}", []).append(
                        agreement(folder / "log", build(folder, log, **{key: value}))
                    )
    for name, runs in found.items():
        for side in SIDES if name else ():
            value, usual = mean(run[side] for run in runs), mean(run[side] for run in found[""])
            line(f"study.nmi.{side}.{name}", value, "1", usual, value / usual)


def study_drift(events: float, seeds: int) -> None:
    """A graph of the first part of the time, updated with the rest, against one that is learned again."""
    for share in SHARES:
        found = [_drifted(events, seed, share) for seed in range(seeds)]
        line(f"study.drift.{share}", mean(drift for drift, _, _ in found), "1")
        for side in SIDES:
            kept, again = (mean(one[part][side] for one in found) for part in (1, 2))
            line(f"study.nmi.{side}.kept.{share}", kept, "1", again, kept / again)


def _drifted(events: float, seed: int, share: float) -> tuple[float, dict[str, float], dict[str, float]]:
    with world(events, USUAL, seed) as folder:
        log = ds.dataset(folder / "log" / "events").to_table().sort_by("timestamp")
        cut = round(len(log) * share)
        pq.write_table(log[:cut], folder / "before.parquet")
        pq.write_table(log[cut:], folder / "after.parquet")
        build(folder, folder / "before.parquet")
        kept = experiments.update(folder / "graph", [str(folder / "after.parquet")])
        drift, old = kept.drift, agreement(folder / "log", kept)
        return drift, old, agreement(folder / "log", experiments.update(folder / "graph", recluster=True))


STUDIES = {"worlds": study_worlds, "settings": study_settings, "drift": study_drift}


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=STUDIES, nargs="+")
    parser.add_argument("--events", type=float, default=1e6)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args(arguments)
    for what in options.what:
        STUDIES[what](options.events, options.seeds)


if __name__ == "__main__":
    use_cores()
    main()
