"""Retrieve and rank: whole requests to a service with two million items, and what building takes.

    python benchmarks/recommend.py [--users 1000000] [--items 2000000] [--seconds 40]
        [--precision float32] [--events 1e7 1e8] [--model mgoe] [--work FOLDER] [--only service|build]
    python benchmarks/recommend.py --run RUN   # lists for the users of a finished run, and nothing else

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
- `recommend.build_seconds.GENERATOR.N`: what a generator reads beside the snapshot, computed from N random
  events of N / 10 users by a process of its own with two cores, compiling aside; `lists` are those of macro
  nodes, recent and popular items. `recommend.build_cpu_seconds` is the processor time, which other work on
  the machine changes less, and `recommend.build_memory` the peak of the process.
- `recommend.update_seconds.GENERATOR.N`: links after so many more events, and the index of the sketch after
  the vectors of so many items changed, as `NEW` says, against building.
- `recommend.lists.per_cpu_s.CANDIDATES.USERS`: users per processor second of `mgoe recommend --users` with
  one process, the rows of items included, for `FEW` users and for all; `recommend.lists.memory` is its peak,
  without mapped files. The generators have the quotas that the run would have chosen for so many candidates;
  the blend is the bundle's.
- `recommend.lists.found.CANDIDATES`: share of the first ten items of every item ranked, for `EXACT` users,
  that are among the first ten with so many candidates; `recommend.lists.kept.100` that of the first ten with
  500 candidates, for all users.
"""

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.load import Answers, Asked, load, post
from benchmarks.measure import ROOT, child, line, size_name
from benchmarks.serve import CANDIDATES, OBJECTIVE, REQUESTS
from benchmarks.served import DAY, DAYS, EVENTS, TASKS, id_of, made_up_bundle, skewed
from benchmarks.service import check_all_ok, cpu_seconds, memory, service
from mgoe._util.arrays import mapped, save_arrays
from mgoe._util.files import atomic_folder
from mgoe.batch import recommend_users, write_blocks
from mgoe.bundle import Bundle
from mgoe.config import GraphSettings, RetrievalSettings
from mgoe.graph import Snapshot
from mgoe.graph.pair_rows import starts
from mgoe.graph.snapshot import Resolution
from mgoe.pipeline.inputs import Inputs
from mgoe.retrieval import Former, item_links, latest_pairs
from mgoe.retrieval.history import latest_of
from mgoe.retrieval.links import Kind
from mgoe.retrieval.popular import shared_lists
from mgoe.retrieval.sketch_index import FormerIndex, write_index

TURNS = 10
K = 10
"""Items of an answer."""
GROUPS = 300
"""User macro nodes of a snapshot."""
IN_SESSION = 5
LIVE_EVENTS = 1_000
LINKS: dict[str, Kind] = {"item_to_item": "cosine", "swing": "swing"}
GENERATORS = (*LINKS, "sketch", "lists")
NEW = 1e-4
"""Share of the pairs that an update adds, and of the item vectors that it changes."""
COUNTS = (500, 100)
"""Candidates of lists."""
FEW, EXACT = 2_000, 300
"""Users of lists for whom the peak of memory is measured, and for whom every item is ranked."""


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
    parser.add_argument("--only", choices=("service", "build"), help="measure one part")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "recommend")
    parser.add_argument("--run", type=Path, help="a finished run, for whose users lists are made")
    parser.add_argument("--build", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--list", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.list:
        print(make_lists(*given.list))
        return
    if given.run:
        lists(given.run)
        return
    if given.build:
        generator, tiny, folder = given.build
        build(generator, Path(tiny))  # compiles
        print(json.dumps(build(generator, Path(folder))))
        return
    if given.only != "build":
        requests(given, made(given, given.users))
    if given.only != "service":
        tiny = made_snapshot(given.work / "snapshot-tiny", 10_000, 1_000)
        for events in given.events:
            builds(events, tiny, made_snapshot(given.work / size_name(events), int(events), given.items))


def lists(run: Path) -> None:
    """Make lists of a run's users with few and with many candidates, and compare them."""
    bundle, found = Bundle.open(run / "bundle"), dict[tuple[int, int], np.ndarray]()
    everyone = np.random.default_rng(0).permutation(bundle.size("user"))
    quotas: dict[int, object] = {0: None}
    for candidates in COUNTS:
        how = {"retrieval": RetrievalSettings(candidates=candidates)}
        chosen = Inputs.open(run, bundle.settings.model_copy(update=how)).retrieval
        assert chosen is not None
        quotas[candidates] = chosen.quotas
    with tempfile.TemporaryDirectory() as scratch:
        asked, out = Path(scratch, "users.parquet"), Path(scratch, "lists.parquet")
        for candidates, users in [(0, EXACT), *itertools.product(COUNTS, (FEW, len(everyone)))]:
            ids = pa.array(bundle.ids("user", everyone[:users]))
            pq.write_table(pa.table({bundle.settings.data.user: ids}), asked)
            given = json.dumps(quotas[candidates]), asked, out
            spent = child(Path(__file__), "--list", run / "bundle", *given)
            items = pq.read_table(out)[bundle.settings.data.item].to_numpy()
            found[candidates, users] = items.reshape(-1, K)
            if candidates:
                size = f"{candidates}.{users}"
                line(f"recommend.lists.per_cpu_s.{size}", users / float(spent.output), "1/s")
                line(f"recommend.lists.memory.{size}", spent.anonymous_gib, "GiB")
    many, few = (found[candidates, len(everyone)] for candidates in COUNTS)
    for candidates, items in zip(COUNTS, (many, few), strict=True):
        line(f"recommend.lists.found.{candidates}", shared_share(found[0, EXACT], items[:EXACT]), "share")
    line(f"recommend.lists.kept.{COUNTS[1]}", shared_share(many, few), "share")


def make_lists(path: str, quotas: str, users: str, out: str) -> float:
    """Write lists of the users of a file, and return the processor seconds; without quotas, of all items."""
    torch.set_num_threads(1)
    bundle, chosen = Bundle.open(path), json.loads(quotas)
    if chosen:
        assert bundle.retrieval is not None
        vars(bundle)["retrieval"] = replace(bundle.retrieval, quotas=chosen)
    started = time.process_time()
    write_blocks(recommend_users(bundle, users, k=K, exact=not chosen), out)
    return time.process_time() - started


def shared_share(wanted: np.ndarray, found: np.ndarray) -> float:
    """Return the share of the items of some lists that are in others of the same users, (U, K) each."""
    return float(np.mean([np.isin(*both).mean() for both in zip(wanted, found, strict=True)]))


def builds(events: float, tiny: Path, folder: Path) -> None:
    """Measure building from a snapshot."""
    for generator in GENERATORS:
        spent = child(Path(__file__), "--build", generator, tiny, folder)
        figures, size = json.loads(spent.output), f"{generator}.{size_name(events)}"
        line(f"recommend.build_seconds.{size}", figures["build"], "s")
        line(f"recommend.build_cpu_seconds.{size}", figures["cpu"], "s")
        line(f"recommend.build_memory.{size}", spent.anonymous_gib, "GiB")
        if "update" in figures:
            ratio = figures["update"] / figures["build"]
            line(f"recommend.update_seconds.{size}", figures["update"], "s", figures["build"], ratio)


def made(given: argparse.Namespace, users: int) -> Path:
    """The bundle of a size, made unless it is there."""
    items = given.items
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


def made_snapshot(folder: Path, events: int, items: int) -> Path:
    """Write what generators read of a snapshot with random events, unless it is there."""
    if folder.exists():
        return folder
    rng, users = np.random.default_rng(0), events // EVENTS
    pair = skewed(rng, events, users)
    pair *= items
    pair += rng.permutation(skewed(rng, events, items))
    pair.sort()
    pair = pair[np.diff(pair, prepend=-1) > 0]
    degree, item = np.bincount(pair // items, minlength=users), (pair % items).astype(np.int32)
    del pair
    counts = np.zeros((items, 2 * len(TASKS) + 3), np.float32)
    counts[:, len(TASKS) + 1] = np.bincount(item, minlength=items)
    with atomic_folder(folder) as unfinished:
        arrays = {
            "pairs.indptr": starts(degree),
            "pairs.item": item,
            "pairs.task_mask": np.left_shift(1, rng.integers(0, len(TASKS), len(item), np.uint8)),
            "pairs.time": rng.integers(0, DAYS * DAY, len(item)),
            "user_sum": degree.astype(np.float32),
            "item_sum": counts[:, len(TASKS) + 1],
            "item_counts": counts,
            "item_table": np.zeros((items, len(TASKS)), np.float32),
            "item_vectors": rng.normal(size=(items, GraphSettings().rank)).astype(np.float32),
            "user_macro": rng.integers(0, GROUPS, users, np.int32),
        }
        save_arrays(unfinished, arrays)
    return folder


def snapshot_of(arrays: Mapping[str, np.ndarray]) -> Snapshot:
    """Return a snapshot that has nothing else."""
    none = {field.name: np.empty(0, np.int32) for field in fields(Resolution)}
    finest = Resolution(**none | {"user_macro": arrays["user_macro"], "user_mass": np.ones(GROUPS)})
    scores = np.log1p(np.arange(1 << len(TASKS)))
    return Snapshot(arrays, (finest,), 0, DAYS - 1, DAY, scores, DAYS * DAY)


def build(generator: str, folder: Path) -> dict[str, float]:
    """Compute what a generator reads beside a snapshot, and return the seconds."""
    arrays = {file.name.removesuffix(".npy"): mapped(file) for file in folder.iterdir()}
    if generator in LINKS:
        return build_links(snapshot_of(arrays), LINKS[generator])
    if generator == "sketch":
        return build_index(arrays["item_vectors"])
    started, cpu = time.perf_counter(), time.process_time()
    shared_lists(snapshot_of(arrays))
    return {"build": time.perf_counter() - started, "cpu": time.process_time() - cpu}


def build_index(vectors: np.ndarray) -> dict[str, float]:
    """Write the index of the sketch, and write it again after some vectors changed."""
    changed = np.flatnonzero(np.random.default_rng(1).random(len(vectors)) < NEW)
    after = np.array(vectors)
    after[changed] = after[changed[::-1]]
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "before"
        started, cpu = time.perf_counter(), time.process_time()
        write_index(vectors, file)
        built, spent = time.perf_counter() - started, time.process_time() - cpu
        started = time.perf_counter()
        write_index(after, Path(scratch) / "after", FormerIndex(vectors, file, 0))
        return {"build": built, "cpu": spent, "update": time.perf_counter() - started}


def build_links(snapshot: Snapshot, kind: Kind) -> dict[str, float]:
    """Compute links without some pairs, and then with them."""
    arrays, n = snapshot.arrays, RetrievalSettings().neighbors
    there = np.random.default_rng(1).random(len(arrays["pairs.item"])) >= NEW
    kept = {name: arrays[f"pairs.{name}"][there] for name in ("item", "task_mask", "time")}
    indptr = starts(there)[arrays["pairs.indptr"]]
    pairs = {"pairs.indptr": indptr, **{f"pairs.{name}": column for name, column in kept.items()}}
    del there, kept
    before = replace(snapshot, arrays={**arrays, **pairs})
    started, cpu = time.perf_counter(), time.process_time()
    links = item_links(latest_pairs(before), kind, n)
    built, spent = time.perf_counter() - started, time.process_time() - cpu
    started = time.perf_counter()
    item_links(latest_pairs(snapshot), kind, n, former=Former(latest_of(before), links))
    return {"build": built, "cpu": spent, "update": time.perf_counter() - started}


if __name__ == "__main__":
    main()
