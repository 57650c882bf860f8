"""Training: examples per second, where the time of a step goes, and how far others' loops and the bare
products are.

    python benchmarks/train.py                           # 1 M users, 200 k items; needs the extra `bench`
    python benchmarks/train.py --work runs/bench --keep  # keep the log and its graphs, which take minutes
    python benchmarks/train.py --no-peers                # without torch-rechub and DeepCTR-Torch

Log and graphs are simulated (`benchmarks/prepared.py`); a batch has 4096 rows. `paper` is `mgoe-paper` at K
= 100 and width 32, two tasks, no recents; `default` is `mgoe` on the graph that a run builds by default. One
thread is one core, which feeds and computes by turns. All but the peers train as `mgoe train` does: row-wise
tables, bf16 where the processor multiplies it; shuffled, gathered, checked, clipped. What is compared runs
in turn within one run, and medians count.

One line per figure, `{name, value, unit, against, ratio}`:

- `train.step_vs_rowwise_dense_adam`: examples per second of `paper`, against the same model behind a data
  loader over rows, with dense Adam (`benchmarks/peers.py`); ratio ours over theirs.
- `train.vs_torch_rechub_mmoe`, `train.vs_deepctr_torch_mmoe`: our MMoE against theirs of the same size, on
  the same examples; ratio likewise.
- `train.mgoe_samples_per_s`: `paper`, one thread. `....two_cores`: one thread, and a core that feeds.
  `....two_threads`: both compute. `train.default_samples_per_s`, likewise: `default`. Ratio to one thread.
- `train.cpu_us.MODEL`: processor time per example, one thread, which other work on the machine changes less.
- `train.share.MODEL.STAGE`: of the time for a row, with one thread: `feeding`, `forward`, `backward` (and
clipping), `optimiser`.
- `train.step_samples_per_s.MODEL`: the step alone, its batches ready, one thread.
- `train.floor_samples_per_s`: of `paper`, the matrix products and look-ups alone, on tensors of the same
  shapes and types, and the rows of its macro edges copied as they are stored. `train.floor_ratio`: floor
  over `train.mgoe_samples_per_s`.
- `train.feed_rows_per_s`: batches of `paper` without a step, examples in memory, one thread; `....disk`: in
  their file; `....default`: of `default`, in memory. Against the step alone; ratio feed over step.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import peers
from benchmarks.measure import ROUNDS, in_turn, line
from benchmarks.prepared import Made, made
from benchmarks.steps import Training
from mgoe.config import ModelSettings
from mgoe.models import resolve

USERS, EXAMPLES = 1e6, 2_000_000
BATCH = 4096
EPOCH, COMPARED = 100, 20
"""Batches of an epoch of ours, and of one that a peer runs too."""
PAPER = resolve(
    ModelSettings(
        name="paper",
        base="mgoe-paper",
        inputs=("ids", "side", "context", "aggregates"),
        options={"width": 32},
    )
)
DEFAULT = resolve("mgoe")
MMOE = resolve(ModelSettings(name="mmoe", base="mmoe", inputs=("ids",), options={"width": peers.WIDTH // 2}))
"""A node's row has the width times the tasks."""
PEERS = {"torch_rechub": peers.torch_rechub, "deepctr_torch": peers.deepctr_torch}
PLACES = {"": (1, 1), ".two_cores": (1, 2), ".two_threads": (2, 2)}
"""Threads and cores, by the ends of names."""


@dataclass(frozen=True)
class Plan:
    """What to measure on.

    Attributes:
        made: Examples and graphs.
        rounds: Whose medians count.
        batch_size: Rows a step.
        short: Take a tenth of the batches.
    """

    made: Made
    rounds: int
    batch_size: int
    short: bool

    def training(self, settings: ModelSettings, graph: str, batches: int = EPOCH) -> Training:
        """Of a model, in epochs of so many batches."""
        return Training(self.made, graph, settings, self.batch_size, batches // 10 if self.short else batches)


@contextmanager
def computing(threads: int, cores: int) -> Iterator[None]:
    """With so many threads of torch, on so many cores; the cores are given back."""
    torch.set_num_threads(threads)
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def compare(name: str, ours: Training, peer: peers.Epoch, rounds: int) -> None:
    """Examples per second of our epochs and of a baseline's."""
    runs = {"ours": ours.epoch, "theirs": peer.run}
    for run in runs.values():
        run()
    took = in_turn(runs, rounds)
    count = len(ours.examples)
    line(
        f"train.{name}",
        count / took["ours"],
        "samples/s",
        count / took["theirs"],
        took["theirs"] / took["ours"],
    )


def compare_rowwise(plan: Plan) -> None:
    """The same model, by rows and with dense Adam."""
    ours = plan.training(PAPER, "plain", COMPARED)
    inputs = next(ours.feed().batches(len(ours.examples)))
    compare(
        "step_vs_rowwise_dense_adam",
        ours,
        peers.rowwise_dense_adam(ours.model(), inputs, plan.batch_size),
        plan.rounds,
    )


def compare_peers(plan: Plan) -> None:
    """MMoE, ours and theirs."""
    for name, peer in PEERS.items():
        ours = plan.training(MMOE, "plain", COMPARED)
        peer = peer(ours.examples, ours.spec.n_users + 1, ours.spec.n_items + 1, plan.batch_size)
        compare(f"vs_{name}_mmoe", ours, peer, plan.rounds)


def measure(plan: Plan, name: str, training: Training) -> tuple[float, float]:
    """Rates of a model and the shares of its stages.

    Returns examples per second of whole training and of the step alone, on one thread.
    """

    used: list[float] = []

    def placed(threads: int, cores: int) -> float:
        before = time.process_time()
        with computing(threads, cores):
            took = training.epoch()
        if (threads, cores) == PLACES[""]:
            used.append(time.process_time() - before)
        return took

    with computing(1, 1):
        training.epoch()
    count = len(training.examples)
    took = in_turn({end: partial(placed, *place) for end, place in PLACES.items()}, plan.rounds)
    for end, spent in took.items():
        line(
            f"train.{name}_samples_per_s{end}",
            count / spent,
            "samples/s",
            *((count / took[""], took[""] / spent) if end else ()),
        )
    label = training.settings.name
    line(f"train.cpu_us.{label}", median(used) / count * 1e6, "us")
    with computing(1, 1):
        of_step = training.stages(training.batches)
        shares = {"feeding": training.feeding(), **of_step}
    whole = sum(shares.values())
    for stage, spent in shares.items():
        line(f"train.share.{label}.{stage}", spent / whole, "1")
    line(f"train.step_samples_per_s.{label}", count / sum(of_step.values()), "samples/s")
    return count / took[""], count / sum(of_step.values())


def measure_paper(plan: Plan) -> None:
    """`mgoe-paper`: rates, shares, floor, feed."""
    training = plan.training(PAPER, "plain")
    rate, step = measure(plan, "mgoe", training)
    with computing(1, 1):
        floor = len(training.examples) / training.floor(training.batches)
        line("train.floor_samples_per_s", floor, "samples/s", rate, floor / rate)
        line("train.floor_ratio", floor / rate, "1")
        feed(plan, "", training.feeding, len(training.examples), step)
        file = plan.made.prepared.streamed("train")
        feed(plan, ".disk", partial(training.feeding, file), len(file), step)


def measure_default(plan: Plan) -> None:
    """`mgoe`: rates, shares, feed."""
    training = plan.training(DEFAULT, "default")
    _, step = measure(plan, "default", training)
    with computing(1, 1):
        feed(plan, ".default", training.feeding, len(training.examples), step)


def feed(plan: Plan, end: str, run: Callable[[], float], rows: int, step: float) -> None:
    """Rows a second of a feed, the median."""
    rate = rows / in_turn({end: run}, plan.rounds)[end]
    line(f"train.feed_rows_per_s{end}", rate, "rows/s", step, rate / step)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, measure, print."""
    options = _parser().parse_args(arguments)
    if options.peers:
        peers.require_peers()
    with tempfile.TemporaryDirectory() as temporary:
        work = (options.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        with made(work, options.users, options.examples, options.keep) as found:
            plan = Plan(found, options.rounds, options.batch_size, options.short)
            with computing(1, 1):
                compare_rowwise(plan)
                if options.peers:
                    compare_peers(plan)
            measure_paper(plan)
            measure_default(plan)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--users", type=float, default=USERS, help=f"of the simulated log; {USERS:g} by default"
    )
    parser.add_argument("--examples", type=int, default=EXAMPLES, help=f"to draw; {EXAMPLES} by default")
    parser.add_argument("--batch-size", type=int, default=BATCH, help=f"{BATCH} by default")
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help=f"whose medians count; {ROUNDS} by default"
    )
    parser.add_argument(
        "--no-peers", dest="peers", action="store_false", help="leave torch-rechub and DeepCTR-Torch out"
    )
    parser.add_argument("--short", action="store_true", help="a tenth of the batches, for a look")
    parser.add_argument(
        "--work",
        type=Path,
        help="folder for the log and its graphs, which are used again; a temporary one by default",
    )
    parser.add_argument("--keep", action="store_true", help="leave them in --work")
    return parser


if __name__ == "__main__":
    main()
