"""Training from shards: one process, one process with two threads, and two processes.

    python benchmarks/shards.py                                   # 1 M events, 1 M examples
    python benchmarks/shards.py --examples 10_000_000 --work runs/bench --keep

Log and graph are simulated (`benchmarks/prepared.py`); `mgoe` trains on streamed rows for so many steps, in
float32 and with replicated tables. An eighth of the rows is shuffled together, in row groups so small that
all readers have memory for one, as in a large log with the default limit of memory. Processes are connected
by gloo. `one` and each of `two` have a thread and a core; `threads` is one process with two of both. They run
in turn, and medians count.

One line per figure, `{name, value, unit, against, ratio}`:

- `shards.samples_per_s.one`; `....threads`, `....two`: against `one`; ratio to it.
- `shards.feed_rows_per_s.one`; `....two`: of both processes together, each of which reads its own row groups
  and gathers its own rows, without a step; against `one`; ratio to it.
- `shards.anonymous_gib.one`, `....two`: peak memory of its own, of the largest process; `two` against `one`.
- `shards.rows_decoded.two`: of the process that decodes most, against all rows; ratio of the two.
- `shards.weights`: largest difference of a weight between `one` and `two` after ten steps, against the
  largest change of a weight from its start; ratio of the two. Such differences are of rounding and grow with
  every step.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import ROUNDS, child, line, memory_of_each
from benchmarks.prepared import GRAPHS, MANIFEST, Made, made
from benchmarks.steps import CPU, STEPS, Training
from mgoe.config import TrainingSettings
from mgoe.data import ExampleFile, Prepared
from mgoe.data.example_file import READERS
from mgoe.graph import MacroGraph
from mgoe.models import resolve
from mgoe.training import Batch, Feed, ProcessGroup, joined
from mgoe.training.step import LossCheck, Stepper

USERS, EXAMPLES, BATCH, WARM = 20_000, 1_000_000, 4096, 10
WINDOW_SHARE = 8
SHARDS = 16
WAYS = {"one": (1, 1), "threads": (1, 2), "two": (2, 1)}
"""Processes, and threads of each."""


class CountingFile(ExampleFile):
    """Counts the rows that it decodes."""

    decoded = 0

    def _table(self, opened: Any, group: int) -> Any:
        table = super()._table(opened, group)
        self.decoded += len(table)
        return table


def write_shards(file: Path, folder: Path) -> None:
    """Divide the rows of a file among shards, in small row groups."""
    folder.mkdir(parents=True)
    table = pq.read_table(file)
    group = max(1, len(table) // WINDOW_SHARE // READERS)
    groups = np.array_split(np.arange(0, len(table), group), SHARDS)
    for number, starts in enumerate(groups):
        rows = table.slice(starts[0], starts[-1] + group - starts[0])
        pq.write_table(rows, folder / f"part-{number:05d}.parquet", row_group_size=group, compression="zstd")


def train(log: Path, shards: Path, threads: int, steps: int, batch_size: int, out: Path) -> None:
    """Train in this process, one of those that were started together, and write what it found."""
    torch.set_num_threads(threads)
    with joined("cpu") as processes:
        _use_cores(processes.rank, threads)
        found = Made(
            Prepared(log / "data", json.loads((log / MANIFEST).read_text())),
            {name: MacroGraph.open(log / name) for name in GRAPHS},
        )
        training = Training(found, "default", resolve("mgoe"), batch_size, steps)
        settings = TrainingSettings(batch_size=batch_size, precision="float32")
        stepper = Stepper(training.model().train(), settings, STEPS, False, processes)
        examples = CountingFile(shards, found.prepared.tasks, 1)
        examples.window = len(examples) // WINDOW_SHARE * examples.row_bytes
        feed = training.feed(examples)

        def run(batches: Iterable[tuple[int, Batch]]) -> float:
            """Return seconds."""
            before = time.perf_counter()
            for number, batch in batches:
                stepper(batch, number, check)
            processes.agree(None)
            return time.perf_counter() - before

        check = LossCheck(stepper.model, [task.name for task in training.spec.tasks], 1, sys.maxsize)
        batches = enumerate(feed.batches(batch_size, (0, 1), CPU, processes=processes))
        run(islice(batches, WARM))
        for name, model in (("start", training.model()), ("weights", stepper.model)):
            tensors = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
            if processes.leads:
                save_file(tensors, out / f"{name}.safetensors")
        rate = (steps - WARM) * batch_size / run(islice(batches, steps - WARM))
        said = {"rate": rate, **_fed(feed, examples, batch_size, processes)}
        (out / f"{processes.rank}.json").write_text(json.dumps(said))


def _fed(feed: Feed, examples: CountingFile, batch_size: int, processes: ProcessGroup) -> dict[str, float]:
    """Feed an epoch without a step."""
    processes.agree(None)
    examples.decoded, started = 0, time.perf_counter()
    for _ in feed.batches(batch_size, (0, 2), CPU, processes=processes):
        pass
    processes.agree(None)
    return {"fed": len(examples) / (time.perf_counter() - started), "decoded": examples.decoded}


def _use_cores(rank: int, threads: int) -> None:
    """Keep this process to cores of its own, as many as it has threads."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[(rank * threads + core) % len(cores)] for core in range(threads)})


def started(way: str, out: Path, *arguments: str | Path) -> dict[str, Any]:
    """Run one of the ways; return what its processes found and the memory of the largest."""
    processes, threads = WAYS[way]
    out.mkdir(parents=True, exist_ok=True)
    peaks: dict[int, float] = {}

    def look(process: int, _: float) -> None:
        for number, held in memory_of_each(process).items():
            peaks[number] = max(peaks.get(number, 0.0), held)

    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    child(*command, "-m", "benchmarks.shards", "--child", str(threads), "--out", out, *arguments, look=look)
    found = [json.loads((out / f"{rank}.json").read_text()) for rank in range(processes)]
    return {**found[0], "decoded": max(each["decoded"] for each in found), "memory": max(peaks.values())}


def difference(one: Path, other: Path) -> float:
    """Largest difference of a weight between two files."""
    first, second = load_file(one), load_file(other)
    return max(float((first[name] - second[name]).abs().max()) for name in first if first[name].numel())


def measure(log: Path, shards: Path, work: Path, rounds: int, rows: int, arguments: Sequence[str]) -> None:
    """Run the ways in turn, and print."""
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for number in range(rounds):
        for way in list(WAYS)[:: 1 if number % 2 == 0 else -1]:
            found[way].append(started(way, work / way, "--made", log, "--shards", shards, *arguments))
    middle = {
        way: {name: median(one[name] for one in ones) for name in ones[0]} for way, ones in found.items()
    }
    one = middle["one"]
    for name, key, unit, ways in (
        ("samples_per_s", "rate", "samples/s", WAYS),
        ("feed_rows_per_s", "fed", "rows/s", ("one", "two")),
        ("anonymous_gib", "memory", "GiB", ("one", "two")),
    ):
        for way in ways:
            value = middle[way][key]
            line(f"shards.{name}.{way}", value, unit, *((one[key], value / one[key]) if way != "one" else ()))
    decoded = middle["two"]["decoded"]
    line("shards.rows_decoded.two", decoded, "rows", rows, decoded / rows)
    weights = work / "one" / "weights.safetensors"
    apart = difference(weights, work / "two" / "weights.safetensors")
    moved = difference(weights, work / "one" / "start.safetensors")
    line("shards.weights", apart, "1", moved, apart / moved)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, measure, print; or train as one of the processes that were started."""
    options = _parser().parse_args(arguments)
    if options.child:
        train(options.made, options.shards, options.child, options.steps, options.batch_size, options.out)
        return
    with tempfile.TemporaryDirectory() as temporary:
        work = (options.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        with (
            made(work, options.users, options.examples, options.keep) as found,
            tempfile.TemporaryDirectory(dir=work) as results,
        ):
            data = found.prepared.path
            write_shards(data / "train.parquet", Path(results, "train.parquet"))
            given = ["--steps", str(options.steps), "--batch-size", str(options.batch_size)]
            rows = len(found.prepared.streamed("train"))
            measure(data.parent, Path(results, "train.parquet"), Path(results), options.rounds, rows, given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=float, default=USERS, help=f"of the log; {USERS:g} by default")
    parser.add_argument("--examples", type=int, default=EXAMPLES, help=f"to draw; {EXAMPLES} by default")
    parser.add_argument(
        "--steps", type=int, default=100, help=f"of training, more than {WARM}; 100 by default"
    )
    parser.add_argument("--batch-size", type=int, default=BATCH, help=f"{BATCH} by default")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"medians count; {ROUNDS} by default")
    parser.add_argument(
        "--work", type=Path, help="folder for the log and its graphs; a temporary one by default"
    )
    parser.add_argument("--keep", action="store_true", help="leave them in --work")
    parser.add_argument("--child", type=int, default=0, help=argparse.SUPPRESS)
    for name in ("--made", "--shards", "--out"):
        parser.add_argument(name, type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
