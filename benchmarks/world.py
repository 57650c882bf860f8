"""A simulated log of any size, and `mgoe graph build` on it as a black box."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from benchmarks.measure import THREADS, Spent, child, folder_bytes, size_name
from mgoe.simulation import WorldSettings

TASKS = ("click", "favour", "cart", "buy")
COMMUNITIES = 100
"""Planted on either side, and asked for."""
SHOWN = (
    "behaviors=[{name: click, rate: 0.05, strength: 1.2, correlation: 1}, {name: favour, rate: 0.2}, "
    "{name: cart, rate: 0.2}, {name: buy, given: cart, rate: 0.45}]"
)
"""Of the worlds of exposure logs: the simulator's behaviours, with twenty exposures per click."""
PLAIN = {
    "resolutions": [[COMMUNITIES, COMMUNITIES]],
    "dense": 0,
    "rank": 64,
    "power_iterations": 2,
    "rounds": 0,
}
"""Of every graph, where not said otherwise: a build of moderate cost."""


def nodes(events: float) -> tuple[int, int]:
    """Users and items of a log: 50 events a user; 5 users an item, and 10 from a billion events on.

    So 1e8 has 2 M users and 400 k items, 1e9 20 M and 2 M, and 5e7 1 M and 200 k.
    """
    users = max(round(events / 50), 1000)
    return users, users // (10 if events >= 1e9 else 5)


@dataclass(frozen=True)
class World:
    """A simulated log.

    Attributes:
        folder: Its shards and their truth.
        name: Of its size.
        form: `events` or `exposures`.
    """

    folder: Path
    name: str
    form: str = "events"

    @property
    def log(self) -> Path:
        return self.folder / self.form

    @cached_property
    def events(self) -> int:
        """Rows of the log, which are about as many as were asked for."""
        return int(json.loads((self.folder / "summary.json").read_text())[self.form])

    @property
    def late(self) -> date:
        """The day that ends nine tenths of the log's time."""
        settings = WorldSettings.model_validate(
            json.loads((self.folder / "truth" / "world.json").read_text())["settings"]
        )
        return date.fromordinal(settings.start.toordinal() + round(settings.days * 0.9))


@contextmanager
def simulated(
    work: Path, events: float, keep: bool, sets: Sequence[str] = (), form: str = "events"
) -> Iterator[World]:
    """A log of about so many events below `work`. An existing one is reused; a new one is removed after,
    unless it is kept.

    Args:
        work: Where its folder goes.
        events: Expected rows.
        keep: Leave a new one there.
        sets: `--set` options of the simulation, besides the communities.
        form: `events`, or `exposures`, of which one in twenty is clicked.
    """
    size = size_name(events)
    world = World(work / "-".join(["log", size, *sets, *([form] if form != "events" else [])]), size, form)
    known = (world.folder / "summary.json").exists()
    if not known:
        users, items = nodes(events)
        settings = [f"{side}_communities={COMMUNITIES}" for side in ("user", "item")]
        settings += [SHOWN] if form == "exposures" else []
        options = [part for setting in (*settings, *sets) for part in ("--set", setting)]
        sizes = ["--users", str(users), "--items", str(items), f"--{form}", str(round(events))]
        child("-m", "mgoe", "simulate", "--out", world.folder, *sizes, "--form", form, *options)
    try:
        yield world
    finally:
        if not known and not keep:
            shutil.rmtree(world.folder, ignore_errors=True)


@dataclass(frozen=True)
class Build:
    """A finished `mgoe graph build`.

    Attributes:
        out: Its output folder.
        spent: By the command.
        meta: What `graph.json` holds.
        artefact_bytes: Of the graph on disk.
    """

    out: Path
    spent: Spent
    meta: dict[str, Any]
    artifact_bytes: int


@contextmanager
def built(world: World, graph: Mapping[str, Any], keep: bool = False) -> Iterator[Build]:
    """Build the graph of a log by the command, in a process of its own; the output is removed after, unless
    it is kept.

    Args:
        world: The log.
        graph: Settings of the graph.
        keep: The output.
    """
    out = world.folder.with_name(f"build-{world.form}-{world.name}")
    config = out.with_suffix(".yaml")
    shutil.rmtree(out, ignore_errors=True)
    config.write_text(yaml.safe_dump(settings(world, graph), sort_keys=False))
    try:
        spent = child("-m", "mgoe", "graph", "build", config, "--out", out, "--json")
        meta = json.loads((out / "graph" / "graph.json").read_text())
        yield Build(out, spent, meta, folder_bytes(out / "graph"))
    finally:
        if not keep:
            shutil.rmtree(out, ignore_errors=True)
            config.unlink()


def settings(world: World, graph: Mapping[str, Any]) -> dict[str, Any]:
    """The run's configuration, as YAML holds it."""
    data: dict[str, Any] = {
        "log": str(world.log),
        "user": "user_id",
        "item": "item_id",
        "time": "timestamp",
    }
    tasks: list[Any] = list(TASKS)
    if world.form == "events":
        data["behavior"] = "behavior"
    else:
        data["context"] = [{"name": "device"}]
        tasks = [{"name": task, "label": task} for task in TASKS]
    spark = {"master": f"local[{THREADS}]"}
    return {"data": data, "tasks": tasks, "spark": spark, "graph": {"snapshots": "last", **graph}}
