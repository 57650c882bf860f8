"""Whole requests to a service: 500 candidates, three tasks, a million users.

    python benchmarks/serve.py [--users 1000000] [--items 200000] [--seconds 20] [--mixed 60]
        [--sizes 20 100 500] [--work FOLDER] [--no-peers] [--rank-only]
    python benchmarks/serve.py --rates | --vectors [--seconds 20]

The service is one worker on one core; the load comes from the other. There are two models on one graph per
size:

- `serve.rank500`, `serve.rank500.kK`: `mgoe-paper` on ids, side and context features and macro edges,
  without recents (width 32, as in `train.py`). What it reads of a pair is a sum of the user's part and the
  item's. The user's part is computed once per request and an item's is kept, so no work of a request grows
  with a node's degree or with K.
- `serve.default.rank500`, likewise: `mgoe` with its defaults. It reads the history of every pair, edges at
  five resolutions, and a sketch: the candidate's vector against the user's and those of the user's 20 latest
  items.

Floors, peer and mixed load are of the first model, at K = 100.

With `--rates` or `--vectors`, something else is measured: `mgoe` on a simulated exposure log of 20,000
users, with the inputs `rates` (`serve.rates`) or with vectors of users and items (`serve.vectors`), and
without them, two services that are asked in turn. Ratio with over without.

A load is a closed loop of `--seconds` on raw sockets (`load.py`). Its requests are made beforehand: user and
candidates drawn evenly, the objective `click * cart^2`, all 500 rows answered. `cpu_ms` is the service's
processor time per request, which other work on the machine changes less than it changes the latency.

Ratios: K against K = 100, a floor against the whole request's p50, torch-rechub's time against ours, the
mixed load's p99 against that of the same number of connections without the mix.
"""

import argparse
import importlib
import itertools
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import exposures
from benchmarks.load import Asked, load, post
from benchmarks.measure import ROOT, line
from benchmarks.peers import EXPERT, TOWER, WIDTH, require_peers
from benchmarks.served import MODELS, TASKS, made_up_bundle
from benchmarks.service import (
    CORES,
    check_all_ok,
    cpu_seconds,
    free_port,
    memory,
    on_core,
    service,
    started,
    wait,
)
from mgoe.bundle import Bundle
from mgoe.config import make_settings
from mgoe.models import resolve

CANDIDATES = 500
REQUESTS = 500
"""Made for each connection, and then asked in turn."""
SIZES = (20, 100, 500)
RATE_USERS = 20_000
"""Of the exposure log on which rates and vectors are measured."""
TURNS = 10
"""Of the service with them, and of that without."""
OBJECTIVE = "click * cart^2"
KINDS = (("rank", 75), ("events", 15), ("unseen", 7), ("malformed", 3))
"""Of the mixed load, in percent."""


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--mixed", type=float, default=60)
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "serve")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--rank-only", action="store_true", help="leave out floors, peer and mixed load")
    parser.add_argument(
        "--rates", action="store_true", help="measure what rates over exposures cost, and nothing else"
    )
    parser.add_argument(
        "--vectors",
        action="store_true",
        help="measure what vectors of users and items cost, and nothing else",
    )
    given = parser.parse_args()
    if given.rates or given.vectors:
        in_turn(given)
        return
    if not (given.no_peers or given.rank_only):
        require_peers()
    given.work.mkdir(parents=True, exist_ok=True)
    for k in given.sizes:
        made(given, k)
    whole = of_sizes(given, "serve.rank500", "paper")
    of_sizes(given, "serve.default.rank500", "mgoe")
    if 100 in given.sizes and not given.rank_only:
        floors(given, whole)
        mixed(given)


def made(given: argparse.Namespace, k: int, model: str = "paper") -> Path:
    """The bundle of a size, made unless it is there."""
    bundle = given.work / f"k{k}" / model
    if not (bundle / "bundle.json").exists():
        made_up_bundle(bundle.parent, given.users, given.items, k, 3, list(MODELS))
    return bundle


def of_sizes(given: argparse.Namespace, what: str, model: str) -> float:
    """The same load at each K. Returns the p50 at K = 100, ms."""
    p50: dict[int, float] = {}
    for k in sorted(given.sizes, key=lambda k: k != 100):
        with service(made(given, k, model), given.work) as (port, number):
            load(port, ranks(given), 3, 1)
            before = cpu_seconds(number)
            one = load(port, ranks(given), given.seconds, 1)
            spent = cpu_seconds(number) - before
            four = load(port, ranks(given), given.seconds, 4)
            held = memory(number)
        check_all_ok(one.status + four.status)
        name, p50[k] = what if k == 100 else f"{what}.k{k}", one.milliseconds(0.5)
        against = None if k == 100 else p50.get(100)
        line(f"{name}.p50_ms", p50[k], "ms", against, p50[k] / against if against else None)
        line(f"{name}.p99_ms", one.milliseconds(0.99), "ms")
        line(f"{name}.cpu_ms", spent / len(one.status) * 1e3, "ms")
        line(f"{name}.requests_per_s", four.per_second, "1/s")
        for kind, gib in held.items() if k == 100 else ():
            line(f"{name}.memory.{kind}", gib, "GiB")
    return p50.get(100, float("nan"))


def in_turn(given: argparse.Namespace) -> None:
    """The same load with the inputs `rates`, or with vectors, and without them, a turn of each at a time."""
    inputs = make_settings({"data": {"log": "-"}, "tasks": [{"name": "click", "label": "click"}]}).models[0]
    without = [name for name in resolve(inputs).inputs if name != "rates"] if given.rates else None
    turns: dict[str, list[tuple[float, float, float]]] = {"with": [], "without": []}
    with ExitStack() as stack:
        ports: dict[str, tuple[int, int]] = {}
        for name, wanted in (("with", None), ("without", without)):
            folder = given.work / name
            folder.mkdir(parents=True, exist_ok=True)
            vectors = given.vectors and name == "with"
            bundle, log = exposures.made(given.work, RATE_USERS, wanted, vectors)
            port, number, _ = stack.enter_context(exposures.service(bundle, folder / "state", folder))
            load(port, exposures.Clients(log).ranking, 3, 1)
            ports[name] = port, number
        for turn in range(TURNS):
            for name in list(ports)[:: 1 if turn % 2 else -1]:
                port, number = ports[name]
                before = cpu_seconds(number)
                answers = load(port, exposures.Clients(log).ranking, given.seconds / TURNS, 1)
                check_all_ok(answers.status)
                spent = (cpu_seconds(number) - before) / len(answers.status)
                turns[name].append((answers.milliseconds(0.5), answers.milliseconds(0.99), spent * 1e3))
    for place, figure in enumerate(("p50_ms", "p99_ms", "cpu_ms")):
        ours, theirs = (statistics.median(turn[place] for turn in turns[name]) for name in turns)
        line(f"serve.{'rates' if given.rates else 'vectors'}.{figure}", ours, "ms", theirs, ours / theirs)


def floors(given: argparse.Namespace, whole: float) -> None:
    """What HTTP, the matrix products and PyTorch take by themselves, in ms; and the peer."""
    port = free_port()
    with started(
        "-m", "uvicorn", "benchmarks.echo:app", "--port", str(port), "--log-level", "warning", work=given.work
    ):
        wait(port, "/")
        answers = load(port, ranks(given), min(5, given.seconds), 1)
    echo = answers.milliseconds(0.5)
    line("serve.floor.echo", echo, "ms", whole, echo / whole)
    on_core(CORES[0])
    torch.set_num_threads(1)
    bundle = Bundle.open(made(given, 100), verify=False)
    rng = np.random.default_rng(0)
    users, items = np.full(CANDIDATES, rng.integers(given.users)), rng.integers(0, given.items, CANDIDATES)
    products = matrix_products(lambda: bundle.score_indices(users, items))
    matmul, scored = best(products), best(lambda: bundle.score_indices(users, items))
    line("serve.floor.matmul", matmul, "ms", whole, matmul / whole)
    line("serve.floor.torch", scored, "ms", whole, scored / whole)
    if not given.no_peers:
        peer = best(torch_rechub_mmoe(given, users, items))
        line("serve.vs_torch_rechub_mmoe", whole, "ms", peer, peer / whole)


class Products(TorchDispatchMode):
    """Notes the shapes of all matrix products."""

    NAMES = ("mm", "addmm", "bmm", "baddbmm")

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[torch.Size, torch.Size]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in self.NAMES:
            left, right = args[-2:]
            self.shapes.append((left.shape, right.shape))
        return func(*args, **(kwargs or {}))


def matrix_products(score: Callable[[], object]) -> Callable[[], None]:
    """The products of one scoring, bare, on numbers that lie ready."""
    with Products() as noted:
        score()
    pairs = [(torch.randn(left), torch.randn(right)) for left, right in noted.shapes]

    def run() -> None:
        for left, right in pairs:
            left @ right

    return run


def torch_rechub_mmoe(
    given: argparse.Namespace, users: np.ndarray, items: np.ndarray
) -> Callable[[], object]:
    """Return torch-rechub's MMoE on the same rows: in this process, on indices, the answer left a tensor."""
    features = importlib.import_module("torch_rechub.basic.features")
    columns = [
        features.SparseFeature(name, rows, WIDTH)
        for name, rows in (("user", given.users), ("item", given.items))
    ]
    tasks = ["classification"] * 3
    mmoe = importlib.import_module("torch_rechub.models.multi_task").MMOE
    model = mmoe(columns, tasks, 3, {"dims": [*EXPERT]}, [{"dims": [*TOWER]}] * 3).eval()
    batch = {"user": torch.from_numpy(users), "item": torch.from_numpy(items)}

    def run() -> object:
        with torch.inference_mode():
            return model(batch)

    return run


def mixed(given: argparse.Namespace) -> None:
    """Measure ranks among events, unseen ids, malformed bodies and a bundle swap, against ranks alone."""
    current, other = given.work / "current", given.work / "k100.other"
    for place in (current, other):
        place.unlink() if place.is_symlink() else shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(made(given, 100), other, copy_function=os.link)
    manifest = json.loads((other / "bundle.json").read_text())
    (other / "bundle.json").unlink()
    (other / "bundle.json").write_text(json.dumps(manifest | {"copy": True}))
    current.symlink_to(made(given, 100))
    with service(current, given.work) as (port, _):
        load(port, ranks(given), 3, 1)
        quiet = load(port, ranks(given), given.seconds, 4)
        swap = subprocess.Popen(
            [
                "sh",
                "-c",
                f"sleep {given.mixed / 4}; ln -s {other} {current}.next; mv -T {current}.next {current}",
            ]
        )
        under = load(port, lambda: a_mix(given), given.mixed, 4)
        swap.wait()
        taken = seconds_to_swap(current, given.work)
    p99, before = under.milliseconds(0.99, "rank"), quiet.milliseconds(0.99)
    line("serve.mixed_load.p99_ms", p99, "ms", before, p99 / before)
    line(
        "serve.mixed_load.errors_5xx",
        sum(status >= 500 or status == 0 for status in under.status),
        "requests",
    )
    line("serve.mixed_load.swap_s", taken, "s")
    line(
        "serve.mixed_load.requests_per_s",
        under.per_second,
        "1/s",
        quiet.per_second,
        under.per_second / quiet.per_second,
    )


def ranks(given: argparse.Namespace) -> Callable[[], Iterator[Asked]]:
    """Requests of one connection."""

    def requests() -> Iterator[Asked]:
        rng = np.random.default_rng(random.randrange(2**32))
        return itertools.cycle([("rank", a_rank(given, rng)) for _ in range(REQUESTS)])

    return requests


def a_rank(given: argparse.Namespace, rng: np.random.Generator, user: int | None = None) -> bytes:
    """Ids as `served.py` makes them."""
    user = int(rng.integers(given.users)) * 7 + 11 if user is None else user
    candidates = (rng.choice(given.items, CANDIDATES, replace=False) * 7 + 11).tolist()
    return post(
        "/v1/rank",
        json.dumps(
            {"user": user, "candidates": candidates, "k": CANDIDATES, "objective": OBJECTIVE}
        ).encode(),
    )


def a_mix(given: argparse.Namespace) -> Iterator[Asked]:
    rng = np.random.default_rng(random.randrange(2**32))
    made: dict[str, list[bytes]] = {
        "rank": [a_rank(given, rng) for _ in range(REQUESTS)],
        "unseen": [a_rank(given, rng, user=-number) for number in range(1, 50)],
        "malformed": [
            post("/v1/rank", body)
            for body in (b"{", b'{"user": 1.5}', b'{"user": 1, "objective": "click /"}', b"\xff" * 999)
        ],
    }
    names, shares = zip(*KINDS, strict=True)
    for number in itertools.count():
        kind = random.choices(names, shares)[0]
        yield kind, an_event(given, rng) if kind == "events" else made[kind][number % len(made[kind])]


def an_event(given: argparse.Namespace, rng: np.random.Generator) -> bytes:
    """One event; one in twenty is of a new user."""
    user = int(rng.integers(given.users)) * 7 + 11 if rng.random() < 0.95 else -int(rng.integers(1, 1000))
    item, behavior = int(rng.integers(given.items)) * 7 + 11, TASKS[int(rng.integers(3))]
    event = {"user": user, "item": item, "behavior": behavior, "id": f"{rng.integers(2**62)}"}
    return post("/v1/events", json.dumps({"events": [event]}).encode())


def seconds_to_swap(current: Path, work: Path) -> float:
    """Return the seconds from laying the link until the service used the new bundle; nan if it never did."""
    lines = [
        json.loads(row) for row in (work / "service.log").read_text().splitlines() if "bundle taken" in row
    ]
    return lines[0]["time"] - current.lstat().st_mtime if lines else float("nan")


def best(run: Callable[[], object], times: int = 200) -> float:
    """Median, ms, warm."""
    for _ in range(20):
        run()
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken) * 1e3


if __name__ == "__main__":
    main()
