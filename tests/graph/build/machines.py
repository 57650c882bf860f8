"""Builds to compare with those of other numbers of threads and kinds of processor; run as a program, since
libraries take both from the environment.
"""

import sys
from pathlib import Path

import ibis
import numpy as np
import pandas as pd

from mgoe.config import GraphSettings
from mgoe.graph import Source, build_graph
from mgoe.graph.build.builder import Exposures
from tests.effort import SOAK
from tests.graph.histories import BUCKET, history, planted

EVENTS = planted(users=600, items=400, events=6000, seed=3)
UNTIL = 5
"""Last bucket before which later events change nothing."""
USERS = (90, 240, *[600, 6000] * SOAK)
"""Users of the logs of events and of exposures."""
DEVICES = 3


def build(out: Path, threads: int) -> None:
    """`random`: macro nodes by draw, of events in another order. `short` and `long`: without and with later
    events. `events-N` and `exposures-N`: of N users, the latter with vectors of items.
    """
    out.mkdir()
    history(EVENTS).shuffled(seed=threads).build(out / "random", threads=threads, clusters="random")
    early = [event for event in EVENTS if event[2] < (UNTIL + 1) * BUCKET]
    for name, events in (("short", early), ("long", EVENTS)):
        history(events).build(out / name, threads=threads, rank=32, resolutions=[(6, 8), (40, 30)])
    for users in USERS:
        log = history(planted(users, users * 2 // 3, 8, 12 * users, seed=users), cuts=(5,))
        log.build(out / f"events-{users}", threads=threads, rank=48)
        source = log.source(out / f"exposures-{users}.history.parquet", threads)
        source = shown(source, log.rows, users, out / f"exposures-{users}.records.parquet", threads)
        build_graph(source, GraphSettings(rank=48), out / f"exposures-{users}")


def shown(source: Source, rows: pd.DataFrame, seed: int, file: Path, threads: int) -> Source:
    """The same log with as many exposures again that nobody acted on, a context, a value and vectors."""
    rng = np.random.default_rng(seed)
    items, n = rows.item.max() + 1, len(rows)
    done = rows[["user", "item", "bucket"]].assign(done=np.left_shift(1, rows.task).astype(np.int32))
    passed = done.assign(item=rng.permutation(done.item), done=0)
    records = pd.concat([done, passed], ignore_index=True).assign(shown=np.int32(1), labelled=np.int32(7))
    records["value_watch"] = np.where(records.done & 4, rng.integers(0, 10**9, 2 * n), 0)
    records["context_device"] = rng.integers(0, DEVICES, 2 * n).astype(np.int32)
    records.astype({"done": np.int32}).to_parquet(file)
    exposures = Exposures(
        ibis.duckdb.connect(threads=threads).read_parquet(file),
        {"items.kind": rng.integers(0, 5, (items, 1)).astype(np.int32)},
        {"items.kind": 5, "device": DEVICES},
        {"click": False, "like": False, "watch": True},
    )
    vectors = np.column_stack([rng.normal(size=(items, 6)), np.ones(items)]).astype(np.float32)
    return Source(**(vars(source) | {"exposures": exposures, "content": {"item": vectors}}))


if __name__ == "__main__":
    build(Path(sys.argv[1]), threads=int(sys.argv[2]))
