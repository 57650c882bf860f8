"""The same events as codes, and the library's build on them: where a comparison with kernels starts, ids
aside.

As a command: build the graph of a coded history and print the seconds from its pairs to the saved arrays.
"""

import argparse
import json
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.world import TASKS, World
from mgoe.config import GraphSettings
from mgoe.data.vectors import FITTED, Space
from mgoe.graph import Source, build_graph
from mgoe.simulation import Truth

DAY = 86_400_000_000
"""Microseconds."""
PART = 1 << 16
"""Vectors that are whitened at once."""


class Codes:
    """Numbers nodes by first appearance, table after table.

    Args:
        size: Indices there are.
    """

    def __init__(self, size: int):
        self._code = np.full(size, -1, np.int32)
        self._known = 0

    def of(self, index: NDArray[np.int64]) -> NDArray[np.int32]:
        """Codes of indices, new ones for those not seen before."""
        distinct, first = np.unique(index, return_index=True)
        new = distinct[np.argsort(first)]
        new = new[self._code[new] < 0]
        self._code[new] = np.arange(self._known, self._known + len(new), dtype=np.int32)
        self._known += len(new)
        return self._code[index]


def write_history(world: World, file: Path, most: int | None = None) -> Path:
    """Write a log's events in their order as `user`, `item` (codes), `time` (microseconds) and `task`.

    Args:
        world: The log.
        file: Parquet to write.
        most: Events to write; all where not given.
    """
    truth = Truth.open(world.folder)
    users, items = Codes(len(truth.users)), Codes(len(truth.items))
    schema = pa.schema({"user": pa.int32(), "item": pa.int32(), "time": pa.int64(), "task": pa.int8()})
    with pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=["task"]) as writer:
        for shard in sorted(world.log.glob("*.parquet")):
            events = pq.read_table(shard)[:most]
            user, item = (
                users.of(truth.user_ids.index(events["user_id"])),
                items.of(truth.item_ids.index(events["item_id"])),
            )
            moment = events["timestamp"].cast(pa.timestamp("us")).cast(pa.int64())
            task = pc.index_in(events["behavior"].cast(pa.string()), value_set=pa.array(TASKS)).cast(
                pa.int8()
            )
            writer.write_table(pa.table([pa.array(user), pa.array(item), moment, task], schema=schema))
            if most is not None:
                break
    return file


def build(
    history: Path, out: Path, settings: GraphSettings, cut: date | None = None, vectors: int = 0
) -> float:
    """Seconds of the library's build, from coded events to a saved graph; the whitening of vectors counts.

    Args:
        history: What `write_history` wrote.
        out: The graph's folder.
        settings: Of the graph.
        cut: First day after a second snapshot; one snapshot of everything where not given.
        vectors: Numbers of a random vector of each item; none of 0.
    """
    table = ibis.duckdb.connect().read_parquet(history)
    days = [] if cut is None else [cut.toordinal() - date(1970, 1, 1).toordinal()]
    known = [*(_known(table.filter(table.time < day * DAY)) for day in days), _known(table)]
    users, items = np.array(known, np.int64).T
    ranks = [float(rank) for rank in range(1, len(TASKS) + 1)]
    source = Source(table, np.array(days, np.int32) - 1, users, items, ranks)
    given = np.random.default_rng(0).standard_normal((known[-1][1], vectors), np.float32)
    started = time.perf_counter()
    if vectors:
        source = replace(source, content={"item": whitened(given)})
    build_graph(source, settings, out)
    return time.perf_counter() - started


def whitened(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors as they are prepared: directions of some rows, then all rows, a part at a time."""
    space = Space.fit(vectors[:: max(1, vectors.size // FITTED)], "vectors")
    parts = [space.encode(part) for part in np.array_split(vectors, 1 + len(vectors) // PART)]
    return np.concatenate(parts).astype(np.float32)


def _known(table: ir.Table) -> tuple[int, int]:
    """Users and items that the rows of a coded history know."""
    largest = table.aggregate(user=table.user.max(), item=table.item.max()).to_pyarrow()
    return largest["user"][0].as_py() + 1, largest["item"][0].as_py() + 1


def main() -> None:
    """Build once from a little, which brings compiled code to memory, then once to measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("history", type=Path)
    parser.add_argument("warm_up", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--graph", type=json.loads, default={}, help="settings of the graph, as JSON")
    parser.add_argument("--cut", type=date.fromisoformat, help="first day after a second snapshot")
    parser.add_argument("--vectors", type=int, default=0, help="numbers of a random vector of each item")
    options = parser.parse_args()
    settings = GraphSettings.model_validate(options.graph)
    small = settings.model_copy(update={"resolutions": [(2, 2)] * len(settings.resolutions)})
    more = options.cut, options.vectors
    build(options.warm_up, options.out / "warm-up", small, *more)
    print(json.dumps({"seconds": build(options.history, options.out / "graph", settings, *more)}))


if __name__ == "__main__":
    main()
