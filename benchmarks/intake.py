"""Intake of live events and new items: how many a service takes per second, each batch durable before it is
acknowledged.

    python benchmarks/intake.py [--users 20000] [--requests 1000] [--seconds 20] [--items-only] [--work DIR]

A real `mgoe serve` with its event log on disk takes batches of 1 and of 100 events from one client and from
four. Each client sends its next batch when the last one is acknowledged. Before each load the service is
started anew with an empty log. A load ends after `--requests` batches of one event (a fifth as many batches
of 100) per client, or after `--seconds`. At the end one client ranks 500 items and another one registers new
items with a feature and a name, in batches of 100: each alone, and both together.

The bundle is `mgoe` after one epoch on a simulated log; it is kept in `--work` and used again. Users and
items of the events are drawn evenly from that log. One event in twenty is of a new user, one in a hundred of
a new item. Every time includes what the disk takes to make a batch durable.

One line per figure, `{name, value, unit, against, ratio}`, of batches of B events from C clients:

- `intake.batchB.clientsC.p50_ms`, `.p99_ms`: time until a batch is acknowledged;
- `intake.batchB.clientsC.events_per_s`: all clients together; from four clients the ratio is to one client;
- `intake.batchB.clientsC.cpu_us`: processor time of the service per event, which other work on the machine
  changes less than it changes the times;
- `intake.items.per_s`, `.p50_ms`, `.p99_ms`: new items beside rankings, against alone, and the time until a
  batch is acknowledged;
- `intake.items.rank_p50_ms`, `.rank_p99_ms`: a ranking beside them, against one alone;
- `intake.items.cpu_us`: processor time of the service per item, registered alone.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from benchmarks.load import Asked, load, post
from benchmarks.measure import ROOT, child, line
from benchmarks.service import check_all_ok, cpu_seconds, service

BATCHES = (1, 100)
"""Events per request."""
CLIENTS = (1, 4)
TASKS = ("click", "favour", "cart", "buy")
WARM_UP = 20
"""Requests before those that count."""
NEW_USERS, NEW_ITEMS = 0.05, 0.01
"""Shares of events of a user, or of an item, that the log does not hold."""


def main() -> None:
    """Measure every size of batch with every number of clients."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=20_000, help="of the simulated log; 20000 by default")
    parser.add_argument("--requests", type=int, default=1000, help="per client; 1000 by default")
    parser.add_argument("--seconds", type=float, default=20, help="limit of one load; 20 by default")
    parser.add_argument("--items-only", action="store_true", help="leave the events out")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "build" / "intake", help="folder of log and bundle"
    )
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    bundle, log = made(given.work, given.users)
    table = pq.read_table(log, columns=["user_id", "item_id"])
    ids = {side: np.unique(table[f"{side}_id"].to_numpy()) for side in ("user", "item")}
    for batch in () if given.items_only else BATCHES:
        count = given.requests if batch == 1 else -(-given.requests // 5)
        alone = None
        for clients in CLIENTS:
            rate = measured(bundle, given.work, Sender(ids, batch), clients, count, given.seconds, alone)
            alone = alone or rate
    registered(bundle, given.work, ids, given.seconds)


def made(work: Path, users: int) -> tuple[Path, Path]:
    """Return a bundle and the event log it was trained on, both made unless they are there."""
    world, run = work / f"log-{users}", work / f"shop-{users}"
    if not (world / "summary.json").exists():
        sizes = ["--users", str(users), "--items", str(users // 5), "--events", str(10 * users)]
        child("-m", "mgoe", "simulate", "--out", world, *sizes, "--form", "events")
    if not (run / "bundle" / "bundle.json").exists():
        config = work / f"shop-{users}.yaml"
        items = {"path": str(world / "truth" / "items.parquet"), "id": "item_id"}
        settings = {
            "data": {
                "log": str(world / "events"),
                "items": items | {"features": [{"name": "community"}]},
            },
            "tasks": [*TASKS],
            "models": ["mgoe"],
            "training": {"epochs": 1},
            "evaluation": {"ranking_queries": 0, "slices": False},
        }
        config.write_text(yaml.safe_dump(settings, sort_keys=False))
        child("-m", "mgoe", "train", config, "--out", run, "--overwrite")
    return run / "bundle", world / "events"


class Sender:
    """Makes the requests of clients: batches of events whose ids never repeat, the same in every run.

    Args:
        ids: Known ids of each side.
        batch: Events per request.
    """

    def __init__(self, ids: dict[str, NDArray[np.int64]], batch: int):
        self._ids = ids
        self.batch = batch
        self._clients = itertools.count()

    def requests(self, count: int) -> Callable[[], Iterator[Asked]]:
        """Return what makes the requests of one client, all of them before the first is sent."""

        def of_client() -> Iterator[Asked]:
            number = next(self._clients)
            rng = np.random.default_rng(number)
            return iter([("events", self._request(rng, f"{number}.{request}")) for request in range(count)])

        return of_client

    def _request(self, rng: np.random.Generator, name: str) -> bytes:
        users = self._drawn("user", NEW_USERS, rng)
        items = self._drawn("item", NEW_ITEMS, rng)
        tasks = rng.integers(0, len(TASKS), self.batch)
        events = [
            {"user": user, "item": item, "behavior": TASKS[task], "id": f"{name}.{row}"}
            for row, (user, item, task) in enumerate(zip(users, items, tasks, strict=True))
        ]
        return post("/v1/events", json.dumps({"events": events}).encode())

    def _drawn(self, side: str, new: float, rng: np.random.Generator) -> list[int]:
        known = rng.choice(self._ids[side], self.batch)
        strange = self._ids[side][-1] + rng.integers(1, 1000, self.batch)
        return np.where(rng.random(self.batch) < new, strange, known).tolist()


def measured(
    bundle: Path, work: Path, sender: Sender, clients: int, count: int, seconds: float, alone: float | None
) -> float:
    """Send events from some clients to a fresh service and print its figures.

    Args:
        bundle: The bundle to serve.
        work: Folder of the service's state.
        sender: Makes the events.
        clients: How many send at once.
        count: Requests of each client.
        seconds: When to stop even so.
        alone: Events per second from one client, where that is known.

    Returns:
        Events per second.
    """
    with service(bundle, work) as (port, process):
        load(port, sender.requests(WARM_UP), seconds, 1)
        before = cpu_seconds(process)
        answers = load(port, sender.requests(count), seconds, clients)
        spent = cpu_seconds(process) - before
    check_all_ok(answers.status)
    rate = answers.per_second * sender.batch
    name = f"intake.batch{sender.batch}.clients{clients}"
    line(f"{name}.p50_ms", answers.milliseconds(0.5), "ms")
    line(f"{name}.p99_ms", answers.milliseconds(0.99), "ms")
    line(f"{name}.events_per_s", rate, "1/s", alone, rate / alone if alone else None)
    line(f"{name}.cpu_us", spent / (len(answers.status) * sender.batch) * 1e6, "us")
    return rate


def registered(bundle: Path, work: Path, ids: dict[str, NDArray[np.int64]], seconds: float) -> None:
    """Rank alone, and beside the registration of new items, and print figures.

    Args:
        bundle: The bundle to serve.
        work: Folder of the service's state.
        ids: Known ids of each side.
        seconds: How long each takes.
    """
    rng = np.random.default_rng(0)

    def ranks() -> Iterator[Asked]:
        while True:
            asked = {
                "user": int(rng.choice(ids["user"])),
                "candidates": rng.choice(ids["item"], 500).tolist(),
            }
            yield "rank", post("/v1/rank", json.dumps(asked).encode())

    def registers() -> Iterator[Asked]:
        for first in itertools.count(int(ids["item"][-1]) + 1, 100):
            items = [
                {"item": item, "name": f"Item {item}", "features": {"community": item % 5}}
                for item in range(first, first + 100)
            ]
            yield "items", post("/v1/items", json.dumps({"items": items}).encode())

    new = iter(registers())
    with service(bundle, work) as (port, process):
        load(port, ranks, 2, 1)
        load(port, lambda: itertools.islice(new, 2), 2, 1)
        ranked = load(port, ranks, seconds, 1)
        before = cpu_seconds(process)
        added = load(port, lambda: new, seconds, 1)
        spent = cpu_seconds(process) - before
        kinds = iter((ranks(), new))
        both = load(port, lambda: next(kinds), seconds, 2)
    check_all_ok([*ranked.status, *added.status, *both.status])
    rate, alone = 100 * both.kinds.count("items") / both.took, 100 * added.per_second
    line("intake.items.per_s", rate, "1/s", alone, rate / alone)
    line("intake.items.cpu_us", spent / (100 * len(added.status)) * 1e6, "us")
    for quantile, name in ((0.5, "p50_ms"), (0.99, "p99_ms")):
        for kind, one, prefix in (("items", added, ""), ("rank", ranked, "rank_")):
            before, beside = one.milliseconds(quantile), both.milliseconds(quantile, kind)
            line(f"intake.items.{prefix}{name}", beside, "ms", before, beside / before)


if __name__ == "__main__":
    main()
