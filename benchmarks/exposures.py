"""Intake of exposures: how many a service takes per second, each request durable before it is acknowledged.

    python benchmarks/exposures.py [--users 20000] [--clients 16] [--seconds 20] [--fill 1e7] [--work FOLDER]

A real `mgoe serve` takes requests of 20 exposures, and with them two labels of the client's request before.
Each client sends its next request when the last one is acknowledged. The load runs alone, then beside one
client that ranks 500 candidates again and again, which runs alone too. Users and items are drawn evenly from
the log of the bundle; one exposure in twenty is of a new user, one in a hundred of a new item.

With `--fill`, the benchmark then writes so many exposures and a tenth as many labels into the log, as another
worker would, and the load runs alone again. Then the service is started once more.

The bundle is `mgoe` after one epoch on a simulated log of exposures; it is kept in `--work` and used again.

One line per figure, `{name, value, unit, against, ratio}`:

- `exposures.WHERE.per_s`: exposures per second of all clients together; WHERE is `alone`, `beside_ranking` or
  `filled`, and the ratio is to `alone`;
- `exposures.WHERE.p50_ms`, `.p99_ms`: time until a request of 20 is acknowledged;
- `exposures.alone.cpu_us`: processor time of the service per exposure;
- `exposures.ranking.p50_ms`, `.p99_ms`: time of a ranking beside the exposures, against ranking alone;
- `exposures.filled.gib`: memory of the service's own after the load on a filled log, against that before;
- `exposures.filled.disk_gib`: size of the log;
- `exposures.filled.restart_s`: from the start of the service to its first answer.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pyarrow.dataset as ds
import yaml

from benchmarks.load import Answers, Asked, load, post
from benchmarks.measure import GIB, ROOT, child, line
from benchmarks.service import check_all_ok, cpu_seconds, free_port, memory, started, wait
from mgoe.serving.events.exposure import Exposure, Label
from mgoe.serving.events.log import ServiceLog
from mgoe.serving.events.store import FILE

SHOWN, KNOWN = 20, 2
"""Exposures of a request, and labels of the request before that come with it."""
CONTEXT = '{"device": "phone"}'
CANDIDATES = 500
CONTENT = ["--content", "0.5"]
"""Of `mgoe simulate`, for users and items with vectors."""
NEW_USERS, NEW_ITEMS = 0.05, 0.01
"""Shares of exposures of a user, or of an item, that the log does not hold."""
FILLED_AT_ONCE = 10_000
WARM_UP = 2
"""Seconds before the load that counts."""


def main() -> None:
    """Measure the load alone and beside ranking, and on a filled log."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=20_000, help="of the simulated log; 20000 by default")
    parser.add_argument("--clients", type=int, default=16, help="that send exposures at once; 16 by default")
    parser.add_argument("--seconds", type=float, default=20, help="of each load; 20 by default")
    parser.add_argument("--fill", type=float, default=0, help="exposures of a filled log; none by default")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "build" / "exposures", help="folder of log and bundle"
    )
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    bundle, log = made(given.work, given.users)
    clients = Clients(log)
    state = given.work / f"state-{time.time_ns()}"
    with service(bundle, state, given.work) as (port, process, _):
        own = memory(process).get("own", 0)
        load(port, clients.showing, WARM_UP, given.clients)
        before = cpu_seconds(process)
        alone = shown("alone", load(port, clients.showing, given.seconds, given.clients))
        spent = cpu_seconds(process) - before
        line("exposures.alone.cpu_us", spent / (alone * given.seconds) * 1e6, "us")
        ranked = load(port, clients.ranking, given.seconds, 1)
        both = load(port, clients.ranking_beside(), given.seconds, given.clients + 1)
        shown("beside_ranking", both, alone)
        check_all_ok(ranked.status)
        for name, quantile in (("p50", 0.5), ("p99", 0.99)):
            beside, by_itself = both.milliseconds(quantile, "rank"), ranked.milliseconds(quantile)
            line(f"exposures.ranking.{name}_ms", beside, "ms", by_itself, beside / by_itself)
        if given.fill:
            fill(state, clients, int(given.fill))
            shown("filled", load(port, clients.showing, given.seconds, given.clients), alone)
            line("exposures.filled.gib", memory(process).get("own", 0), "GiB", own)
    if given.fill:
        size = sum(file.stat().st_size for file in state.glob("log.sqlite*"))
        line("exposures.filled.disk_gib", size / GIB, "GiB")
        with service(bundle, state, given.work) as (_, _, seconds):
            line("exposures.filled.restart_s", seconds, "s")


def made(
    work: Path, users: int, inputs: Sequence[str] | None = None, vectors: bool = False
) -> tuple[Path, Path]:
    """Return a bundle and the exposure log it was trained on, both made unless they are there.

    Args:
        work: Their folder.
        users: Of the simulated log.
        inputs: Of `mgoe`; all by default.
        vectors: Whether users and items have vectors, which tell tastes with a correlation of .5.
    """
    kind = ["vectors"] if vectors else []
    world = work / "-".join(["log", str(users), *kind])
    run = work / "-".join(["run", str(users), *kind, *(inputs or ())])
    if not (world / "summary.json").exists():
        sizes = ["--users", str(users), "--items", str(users // 5), "--exposures", str(10 * users)]
        child("-m", "mgoe", "simulate", "--out", world, *sizes, "--form", "exposures", *CONTENT * vectors)
    if not (run / "bundle" / "bundle.json").exists():
        config = run.with_suffix(".yaml")
        sides = {
            f"{side}s": {
                "path": str(world / f"{side}s.parquet"),
                "id": f"{side}_id",
                "features": [{"name": "content", "kind": "vector"}],
            }
            for side in ("user", "item")
        }
        settings = {
            "data": {
                "log": str(world / "exposures"),
                "position": "position",
                "context": [{"name": "device"}],
                **(sides if vectors else {}),
            },
            "tasks": [{"name": task, "label": task} for task in ("click", "buy")],
            "models": ["mgoe" if inputs is None else {"name": "mgoe", "base": "mgoe", "inputs": [*inputs]}],
            "training": {"epochs": 1},
            "evaluation": {"ranking_queries": 0, "slices": False},
        }
        config.write_text(yaml.safe_dump(settings, sort_keys=False))
        child("-m", "mgoe", "train", config, "--out", run, "--overwrite")
    return run / "bundle", world / "exposures"


@contextmanager
def service(bundle: Path, state: Path, work: Path) -> Iterator[tuple[int, int, float]]:
    """Start `mgoe serve` on a state, and yield its port, its process and the seconds until it was ready."""
    port, began = free_port(), time.perf_counter()
    command = ("-m", "mgoe", "serve", str(bundle), "--port", str(port), "--state", str(state))
    with started(*command, work=work) as process:
        wait(port, "/readyz")
        yield port, process, time.perf_counter() - began


class Clients:
    """Makes the requests of clients; those with exposures never repeat.

    Args:
        log: Parquet files of the log, with the ids that are known.
    """

    def __init__(self, log: Path):
        table = ds.dataset(log).to_table(columns=["user_id", "item_id"])
        self._ids = {side: np.unique(table[f"{side}_id"].to_numpy()) for side in ("user", "item")}
        self._clients = itertools.count()

    def showing(self) -> Iterator[Asked]:
        """Yield the requests of one client that sends exposures, and labels of those before."""
        client = next(self._clients)
        rng, items = np.random.default_rng(client), list[int]()
        for number in itertools.count():
            labels = [
                {"request": f"{client}.{number - 1}", "item": item, "labels": {"click": 1, "buy": 0}}
                for item in items[:KNOWN]
            ]
            items = self._drawn("item", NEW_ITEMS, SHOWN, rng)
            (user,) = self._drawn("user", NEW_USERS, 1, rng)
            exposures = [
                {"request": f"{client}.{number}", "user": user, "item": item, "position": place,
                 "propensity": 0.25, "context": {"device": "phone"}}
                for place, item in enumerate(items)
            ]  # fmt: skip
            body = json.dumps({"exposures": exposures, "labels": labels})
            yield "show", post("/v1/events", body.encode())

    def ranking(self) -> Iterator[Asked]:
        """Yield the requests of one client that ranks."""
        rng = np.random.default_rng(0)
        while True:
            asked = {
                "user": self._drawn("user", 0, 1, rng)[0],
                "candidates": self._drawn("item", 0, CANDIDATES, rng),
                "k": CANDIDATES,
            }
            yield "rank", post("/v1/rank", json.dumps(asked).encode())

    def ranking_beside(self) -> Callable[[], Iterator[Asked]]:
        """Return what makes the requests of several clients, the first of which ranks."""
        order = itertools.count()
        return lambda: self.showing() if next(order) else self.ranking()

    def rows(self, count: int, number: int) -> tuple[list[Exposure], list[Label]]:
        """Return exposures and a tenth as many labels, as a service writes them."""
        rng, now = np.random.default_rng(number), time.time_ns() // 1000
        items = map(str, self._drawn("item", NEW_ITEMS, count, rng))
        users = map(str, np.repeat(self._drawn("user", NEW_USERS, count // SHOWN, rng), SHOWN).tolist())
        exposures = [
            Exposure(
                f"rfilled.{number}.{k // SHOWN}", user, item, now, k % SHOWN, 0.25, '{"device": "phone"}'
            )
            for k, (user, item) in enumerate(zip(users, items, strict=True))
        ]
        labels = [Label(one.request, "", one.item, "click", now, 1.0) for one in exposures[::10]]
        return exposures, labels

    def _drawn(self, side: str, new: float, count: int, rng: np.random.Generator) -> list[int]:
        known = rng.choice(self._ids[side], count)
        strange = self._ids[side][-1] + rng.integers(1, 1000, count)
        return np.where(rng.random(count) < new, strange, known).tolist()


def fill(state: Path, clients: Clients, count: int) -> None:
    """Write so many exposures into the log of a service."""
    log = ServiceLog(state / FILE)
    for number in range(count // FILLED_AT_ONCE):
        log.append((), *clients.rows(FILLED_AT_ONCE, number))
    log.close()


def shown(where: str, answers: Answers, alone: float | None = None) -> float:
    """Print the figures of the exposures of a load, and return how many were taken per second."""
    check_all_ok(answers.status)
    rate = answers.kinds.count("show") * SHOWN / answers.took
    line(f"exposures.{where}.per_s", rate, "1/s", alone, rate / alone if alone else None)
    for name, quantile in (("p50", 0.5), ("p99", 0.99)):
        line(f"exposures.{where}.{name}_ms", answers.milliseconds(quantile, "show"), "ms")
    return rate


if __name__ == "__main__":
    main()
