"""What `--precision bfloat16` of `mgoe serve` costs: AUC of the test examples of a finished run,
as the service scores them.

    python benchmarks/precision.py RUN        # the folder of `mgoe run`

All examples read the bundle's snapshot, which may hold what they ask for: differences count, not the values.
Lines: `serve.precision.PRECISION.auc.TASK` against float32, ratio the difference; `.rows`: MiB that are kept
of the items."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measure import line
from mgoe.bundle import Bundle
from mgoe.data import Prepared
from mgoe.metrics import auc
from mgoe.serving.scoring.runtime import Precision, Runtime
from mgoe.serving.scoring.scorer import Scorer

PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
EXAMPLES = 100_000


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    torch.set_num_threads(1)
    bundle, examples = Bundle.open(run / "bundle"), Prepared.open(run / "data").examples("test")
    rows = np.sort(np.random.default_rng(0).permutation(len(examples))[:EXAMPLES])
    examples = examples.take(rows)
    exact: dict[str, float] = {}
    for precision in PRECISIONS:
        scorer = Scorer(bundle, runtime=Runtime(precision=precision))
        scores = scored(scorer, examples.user, examples.item)
        for t, task in enumerate(bundle.settings.tasks):
            there = ~np.isnan(examples.labels[:, t])
            if task.kind == "binary":
                found = auc(examples.labels[there, t], scores[there, t])
                against = exact.setdefault(task.name, found)
                line(f"serve.precision.{precision}.auc.{task.name}", found, "AUC", against, found - against)
        held = scorer._rows._held[0][: scorer.n_items + 1]
        line(f"serve.precision.{precision}.rows", held.nbytes / 2**20, "MiB")


def scored(scorer: Scorer, users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float32]:
    """User by user, contexts unknown. Shape (N, T)."""
    out, order = np.empty((len(users), len(scorer.tasks)), np.float32), np.argsort(users, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(users[order])) + 1):
        out[rows] = scorer.score(int(users[rows[0]]), items[rows])
    return out


if __name__ == "__main__":
    main()
