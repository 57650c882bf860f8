"""What speed costs in quality: the fast step (bfloat16, row-wise Adagrad on tables) beside float32 with Adam
on everything.

    python benchmarks/quality.py LOG [--config examples/tmall.yaml] [--seeds 5] [--out FOLDER]

Two models of one run, the same in all else, with ids on, so that there are tables. Prints `quality.METRIC`
for `auc`, `gauc` and `ranking` (the mean of the two), each the mean over tasks and seeds on test: value of
the fast step, `against` the other; and `quality.lead`, the difference of `ranking` paired by seed, with
`.low` and `.high` of its 95 % interval."""

import argparse
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import line
from mgoe import experiments
from mgoe.config import ModelSettings, load_settings
from mgoe.evaluation import Row
from mgoe.models import MGOE, FeatureSpec, MGOEOptions

FAST, PLAIN = "fast", "float32-adam"
INPUTS: tuple[str, ...] = ("ids", "side", "context", "counts", "pair", "sketch", "edges", "aggregates")
METRICS = ("auc", "gauc", "ranking")
WHERE = ("test", "all", "all")
"""Split, slice and task of what is compared."""


class DenseMGOE(MGOE):
    """MGOE whose tables have dense gradients, so that one Adam moves everything."""

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: MGOEOptions):
        super().__init__(spec, inputs, options)
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                module.sparse = False


MODELS = [
    ModelSettings(name=FAST, base="mgoe", inputs=INPUTS, ids="on", training={"precision": "bfloat16"}),
    ModelSettings(
        name=PLAIN,
        base="benchmarks.quality:DenseMGOE",
        inputs=INPUTS,
        ids="on",
        training={"precision": "float32"},
    ),
]


def mean(rows: Sequence[Row], model: str, metric: str) -> float:
    """Over tasks and seeds, on test."""
    found = [
        row["value"]
        for row in rows
        if (row["model"], row["split"], row["slice"], row["task"], row["metric"]) == (model, *WHERE, metric)
    ]
    return float(np.mean(found))


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, print."""
    options = _parser().parse_args(arguments)
    sets = [
        f"data.log={options.log}",
        f"jobs={options.jobs}",
        "evaluation.ranking_queries=0",
        "evaluation.slices=false",
    ]
    settings = load_settings(options.config, sets).model_copy(
        update={"models": MODELS, "seeds": list(range(options.seeds))}
    )
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary) / "run"
        rows = experiments.run(settings, out, say=lambda said: print(said, file=sys.stderr)).rows
        for metric in METRICS:
            fast, plain = mean(rows, FAST, metric), mean(rows, PLAIN, metric)
            line(f"quality.{metric}", fast, "1", plain, fast / plain)
        lead = next(lead for lead in experiments.leads(out) if lead.baseline == PLAIN)
        for name, value in (("lead", lead.value), ("lead.low", lead.low), ("lead.high", lead.high)):
            line(f"quality.{name}", value, "1")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("log", type=Path, help="to train on, as `data.log` of the configuration")
    parser.add_argument(
        "--config", type=Path, default=Path(__file__).resolve().parents[1] / "examples" / "tmall.yaml"
    )
    parser.add_argument("--seeds", type=int, default=5, help="5 by default")
    parser.add_argument("--jobs", type=int, default=1, help="fits side by side; 1 by default")
    parser.add_argument(
        "--out", type=Path, help="folder of the run, resumed if it exists; a temporary one by default"
    )
    return parser


if __name__ == "__main__":
    main()
