"""Retrieve and rank: whole requests to a service with two million items, and what building takes.

    python benchmarks/recommend.py [--users 1000000] [--items 2000000] [--seconds 40]
        [--precision float32] [--events 1e7] [--model mgoe] [--work FOLDER]

The service is one worker on one core; the load comes from the other. The bundle has random weights and a
random log of ten events per user (`served.py`), so its candidates mean nothing, but they cost what others do:
all generators have quotas. Before the load, 1,000 events are sent, so that a live state lies over the
snapshot.

- `recommend.p50_ms`, `recommend.p99_ms`: `/v1/recommend` for a random user, without the items that it knows;
  ten items are answered.
- `recommend.against_rank500`: p99 against that of `/v1/rank` with 500 random candidates, of which ten are
  answered. Both are asked in turn, in `TURNS` turns.
- `recommend.cpu_ms`: the service's processor time per request, against that of the rankings. Other work on
  the machine changes it less than the latency.
- `recommend.session.*`: `/v1/recommend` for a session of five events.
- `recommend.requests_per_s`: over four connections.
- `recommend.memory.*`: of the worker, see `service.memory`.
- `recommend.build_seconds.GENERATOR.N`: what a generator reads beside the snapshot, computed from N events by
  a process of its own with two cores, compiling aside; `lists` are those of macro nodes, recent and popular
  items. `recommend.build_memory.GENERATOR.N` is its peak.
"""

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.load import Answers, Asked, load, post
from benchmarks.measure import ROOT, child, line, size_name
from benchmarks.serve import CANDIDATES, OBJECTIVE, REQUESTS
from benchmarks.served import EVENTS, TASKS, id_of, made_up_bundle
from benchmarks.service import check_all_ok, cpu_seconds, memory, service
from mgoe.config import RetrievalSettings

TURNS = 10
K = 10
"""Items of an answer."""
IN_SESSION = 5
LIVE_EVENTS = 1_000
GENERATORS = ("item_to_item", "swing", "sketch", "lists")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=2_000_000)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--model", choices=("mgoe", "paper"), default="mgoe")
    parser.add_argument("--events", type=float, nargs="*", default=[1e7])
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "recommend")
    parser.add_argument("--build", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.build:
        generator, tiny, bundle = given.build
        build(generator, Path(tiny))  # compiles
        print(build(generator, Path(bundle)))
        return
    requests(given, made(given, given.users))
    tiny = made(given, 1_000, items=1_000)
    for events in given.events:
        bundle = made(given, int(events) // EVENTS)
        for generator in GENERATORS:
            spent = child(Path(__file__), "--build", generator, tiny, bundle)
            size = f"{generator}.{size_name(events)}"
            line(f"recommend.build_seconds.{size}", float(spent.output), "s")
            line(f"recommend.build_memory.{size}", spent.anonymous_gib, "GiB")


def made(given: argparse.Namespace, users: int, items: int | None = None) -> Path:
    """The bundle of a size, made unless it is there."""
    items = given.items if items is None else items
    bundle = given.work / f"users{users}-items{items}" / given.model
    if not (bundle / "bundle.json").exists():
        made_up_bundle(bundle.parent, users, items, models=[given.model], retrieval=RetrievalSettings())
    return bundle


def requests(given: argparse.Namespace, bundle: Path) -> None:
    """Ask a service, in turn, for rankings, recommendations and those of sessions."""
    kinds = {"rank": a_rank, "recommend": a_recommend, "session": a_session}
    answers: dict[str, list[Answers]] = {kind: [] for kind in kinds}
    spent = dict.fromkeys(kinds, 0.0)
    options = ("--precision", given.precision, "--max-events", str(LIVE_EVENTS))
    with service(bundle, given.work, *options) as (port, process):
        once = post("/v1/events", some_events(given))
        check_all_ok(load(port, lambda: iter([("events", once)]), 60, 1).status)
        for kind, make in kinds.items():
            check_all_ok(load(port, asked(given, kind, make), 2, 1).status)
        for turn in range(TURNS):
            for kind in list(kinds)[:: 1 if turn % 2 else -1]:
                before = cpu_seconds(process)
                answers[kind].append(load(port, asked(given, kind, kinds[kind]), given.seconds / TURNS, 1))
                spent[kind] += cpu_seconds(process) - before
        four = load(port, asked(given, "recommend", a_recommend), given.seconds / 2, 4)
        held = memory(process)
    whole = {kind: pooled(parts) for kind, parts in answers.items()}
    check_all_ok([*four.status, *(status for one in whole.values() for status in one.status)])
    cpu = {kind: spent[kind] / len(one.seconds) * 1e3 for kind, one in whole.items()}
    p50, p99 = ({kind: one.milliseconds(q) for kind, one in whole.items()} for q in (0.5, 0.99))
    line("recommend.p50_ms", p50["recommend"], "ms", p50["rank"], p50["recommend"] / p50["rank"])
    line("recommend.p99_ms", p99["recommend"], "ms")
    ratio = p99["recommend"] / p99["rank"]
    line("recommend.against_rank500", p99["recommend"], "ms", p99["rank"], ratio)
    line("recommend.cpu_ms", cpu["recommend"], "ms", cpu["rank"], cpu["recommend"] / cpu["rank"])
    line("recommend.session.p50_ms", p50["session"], "ms")
    line("recommend.session.p99_ms", p99["session"], "ms")
    line("recommend.session.cpu_ms", cpu["session"], "ms")
    line("recommend.requests_per_s", four.per_second, "1/s")
    for kind, gib in held.items():
        line(f"recommend.memory.{kind}", gib, "GiB")


def pooled(parts: list[Answers]) -> Answers:
    """Join the answers of several turns."""
    whole = Answers(took=sum(part.took for part in parts))
    for part in parts:
        whole.kinds += part.kinds
        whole.status += part.status
        whole.seconds += part.seconds
    return whole


Make = Callable[[argparse.Namespace, np.random.Generator], bytes]


def asked(given: argparse.Namespace, kind: str, make: Make) -> Callable[[], Iterator[Asked]]:
    """Requests of one connection, made beforehand."""

    def made_requests() -> Iterator[Asked]:
        rng = np.random.default_rng()
        return itertools.cycle([(kind, make(given, rng)) for _ in range(REQUESTS)])

    return made_requests


def a_rank(given: argparse.Namespace, rng: np.random.Generator) -> bytes:
    """500 candidates."""
    candidates = id_of(rng.choice(given.items, CANDIDATES, replace=False)).tolist()
    return _post("rank", user=_user(given, rng), candidates=candidates)


def a_recommend(given: argparse.Namespace, rng: np.random.Generator) -> bytes:
    """A user."""
    return _post("recommend", user=_user(given, rng), exclude_known=True)


def a_session(given: argparse.Namespace, rng: np.random.Generator) -> bytes:
    """Clicks on random items."""
    items = id_of(rng.integers(0, given.items, IN_SESSION)).tolist()
    return _post("recommend", events=[{"item": item, "behavior": TASKS[0]} for item in items])


def some_events(given: argparse.Namespace) -> bytes:
    """Events of random users on random items."""
    rng = np.random.default_rng(0)
    users, items = (id_of(rng.integers(0, n, LIVE_EVENTS)).tolist() for n in (given.users, given.items))
    events = [
        {"user": user, "item": item, "behavior": TASKS[0]} for user, item in zip(users, items, strict=True)
    ]
    return json.dumps({"events": events}).encode()


def _user(given: argparse.Namespace, rng: np.random.Generator) -> int:
    return int(id_of(rng.integers(given.users)))


def _post(route: str, **request: object) -> bytes:
    return post(f"/v1/{route}", json.dumps(request | {"k": K, "objective": OBJECTIVE}).encode())


def build(generator: str, bundle: Path) -> float:
    """Compute what a generator reads beside the snapshot of a bundle, and return the seconds."""
    from mgoe.graph import MacroGraph
    from mgoe.retrieval.links import item_links
    from mgoe.retrieval.popular import shared_lists
    from mgoe.retrieval.sketch_index import write_index

    snapshot = MacroGraph.open(bundle / "graph").latest
    neighbors = RetrievalSettings().neighbors
    with tempfile.TemporaryDirectory() as scratch:
        started = time.perf_counter()
        if generator == "lists":
            shared_lists(snapshot)
        elif generator == "sketch":
            write_index(snapshot, Path(scratch) / "sketch")
        else:
            item_links(snapshot, "cosine" if generator == "item_to_item" else "swing", neighbors)
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
