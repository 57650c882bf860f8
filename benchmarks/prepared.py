"""A simulated log as training reads it, without a whole run: graphs of all its history, and examples drawn
from its events.

Two tasks: `click`, any behaviour weaker than a purchase, and `buy`. An example in two is an event of the
log, the other its user with an item of another event, so that users and items come as often as they do in a
log. What a model could learn of them does not matter here: the graphs know these events.

As a command: make the folders of `made` once; numbering the log and building the graphs takes memory that a
benchmark should not hold."""

import argparse
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks import coded
from benchmarks.measure import child, size_name
from benchmarks.world import PLAIN, World, simulated
from mgoe.config import GraphSettings, TaskSettings
from mgoe.data import Prepared
from mgoe.data.example_file import ExampleWriter
from mgoe.data.features import FeatureEncoders
from mgoe.data.side import SideFeatures
from mgoe.graph import MacroGraph, Source, build_graph

TASKS = (TaskSettings(name="click"), TaskSettings(name="buy"))
STRONGEST = 3
"""Number of the log's behaviour that is a purchase."""
GRAPHS: dict[str, dict[str, Any]] = {"plain": PLAIN, "default": {}}
"""One resolution of 100/100 macro nodes, and what a run builds where nothing is set."""
EVENTS_A_USER = 50
MANIFEST = "data.json"
CUTS = np.array([0, 1, 2], np.int32)
"""Buckets of cuts such that every example of bucket 1 is one to train on."""


@dataclass(frozen=True)
class Made:
    """What there is to train on.

    Attributes:
        prepared: Examples to train on, none to validate, and no side features.
        graphs: By the names of `GRAPHS`.
    """

    prepared: Prepared
    graphs: Mapping[str, MacroGraph]


@contextmanager
def made(work: Path, users: float, examples: int, keep: bool) -> Iterator[Made]:
    """A log of so many users, its graphs and examples; those in `work` are reused.

    Args:
        work: Where they go.
        users: Of the log; a fifth as many items, fifty times as many events.
        examples: To train on.
        keep: Leave them there.
    """
    size = size_name(users * EVENTS_A_USER)
    out = work / f"train-{size}-{examples}"
    known = (out / MANIFEST).exists()  # written last
    if not known:
        with simulated(work, users * EVENTS_A_USER, keep) as world:
            child("-m", "benchmarks.prepared", world.folder, out, "--examples", str(examples))
    try:
        graphs = {name: MacroGraph.open(out / name) for name in GRAPHS}
        yield Made(Prepared(out / "data", json.loads((out / MANIFEST).read_text())), graphs)
    finally:
        if not known and not keep:
            shutil.rmtree(out, ignore_errors=True)


def make(world: World, out: Path, examples: int) -> None:
    """Number the log, build its graphs, draw examples."""
    (out / "data").mkdir(parents=True, exist_ok=True)
    history = coded.write_history(world, out / "history.parquet")
    nodes = known_nodes(history)
    for name, settings in GRAPHS.items():
        table = ibis.duckdb.connect().read_parquet(history)
        table = table.mutate(task=(table.task == STRONGEST).cast("int8"))
        known = [np.array([count], np.int64) for count in nodes]
        source = Source(table, np.empty(0, np.int32), *known, [t + 1.0 for t in range(len(TASKS))])
        build_graph(source, GraphSettings.model_validate(settings), out / name)
    write_examples(history, out / "data", examples)
    history.unlink()
    at = {
        f"{side}_at": [count] * (len(CUTS) + 1) for side, count in zip(("users", "items"), nodes, strict=True)
    }
    manifest = {
        "settings": {
            "tasks": [task.model_dump() for task in TASKS],
            "split": {"cuts": ["1970-01-02", "1970-01-03", "1970-01-04"]},
        },
        "summary": {},
        "cuts": CUTS.tolist(),
        "until": 0,
        **at,
    }
    (out / MANIFEST).write_text(json.dumps(manifest | {"tasks": [task.name for task in TASKS]}))


def known_nodes(history: Path) -> tuple[int, int]:
    """Users and items of a coded history."""
    largest = [pc.max(pq.read_table(history, columns=[side])[side]).as_py() for side in ("user", "item")]
    return largest[0] + 1, largest[1] + 1


def write_examples(history: Path, folder: Path, count: int) -> None:
    """Draw examples and write them as prepared data hold them, sorted by user and item."""
    events = pq.read_table(history, columns=["user", "item", "task"])
    rng = np.random.default_rng(0)
    positives = count // 2
    drawn = events.take(rng.choice(len(events), positives, replace=len(events) < positives))
    others = events["item"].take(rng.integers(0, len(events), count - positives))
    user, item = drawn["user"].to_numpy(), drawn["item"].to_numpy()
    users = np.concatenate([user, user[np.arange(count - positives) % positives]])
    items = np.concatenate([item, others.to_numpy()])
    labels = np.zeros((count, len(TASKS)), np.float32)
    labels[np.arange(positives), (drawn["task"].to_numpy() == STRONGEST).astype(int)] = 1
    order = np.lexsort((items, users))
    with ExampleWriter(folder, CUTS, TASKS) as writer:
        writer.write(
            users[order].astype(np.int64),
            items[order].astype(np.int64),
            np.ones(count, np.int32),
            labels[order],
        )
    for name in ("user_side", "item_side"):
        SideFeatures(FeatureEncoders(), {}).save(folder / name)
    FeatureEncoders().save(folder / "context")


def main() -> None:
    """Make the folders of one log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--examples", type=int, required=True)
    options = parser.parse_args()
    make(World(options.log, options.log.name), options.out, options.examples)


if __name__ == "__main__":
    main()
