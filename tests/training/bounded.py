"""Train on the examples of a folder, with a memory limit and without one.

Run `python -m tests.training.bounded FOLDER OUT GIB`.
"""

import json
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from mgoe.data import ExampleFile, Examples, Prepared
from mgoe.training import Feed, FitResult, fit
from tests.training.fakes import GRAPH, PREPARED, SPEC, TASKS, Model, make_feed
from tests.training.test_loop import training

GIB = 1 << 30


@contextmanager
def no_more_than(memory: float) -> Iterator[None]:
    """Whoever asks for more than so many GiB beyond what the process has is refused by the system."""
    status = Path("/proc/self/status").read_text()
    held = 1024 * int(status.split("VmData:")[1].split()[0])
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (held + int(memory * GIB), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def feed(examples: Examples | ExampleFile) -> Feed:
    return Feed(PREPARED, GRAPH, examples, Model.needs, SPEC)  # type: ignore[arg-type]


def main(folder: Path, out: Path, memory: float) -> None:
    prepared = Prepared.__new__(Prepared)
    prepared.path, prepared.tasks = folder, tuple(task.name for task in TASKS)
    valid = feed(prepared.streamed("valid"))

    def run(train: Feed, name: str, **changes) -> FitResult:
        settings = training(epochs=2, batch_size=2048, learning_rate=0.01, **changes)
        return fit(Model(), train, valid, settings, out / name, seed=5)

    pa.set_cpu_count(1)
    run(make_feed(3000), "first")  # libraries, threads and machine code are there
    found = {}
    with no_more_than(memory):
        train = feed(prepared.within("train", memory))
        found["streamed"] = isinstance(train.examples, ExampleFile)
        found["within"] = run(train, "within").curves[-1]["validation"]
        try:
            prepared.examples("train")
        except MemoryError:
            found["refused"] = True
    found["whole"] = run(feed(prepared.examples("train")), "whole").curves[-1]["validation"]
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
