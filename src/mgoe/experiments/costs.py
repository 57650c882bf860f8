"""What the stages of a run cost per unit of work, as measured, and how fast this machine is beside that one.

Figures come from one run of `python benchmarks/line.py --events 1e7 --set evaluation.ranking_queries=0 --set
'split.cuts=[0.94, 0.96, 0.98]'` on two cores of an AMD EPYC; what a node, a sampled user and an exposure cost
also from graphs of 1e7 exposures, and of 1e7 events with `graph.sample=40000`; `start` from `--events 1e4`.
A row of an exposure log has more inputs, counts of what was shown and context; what these add comes from
`--exposures 1e7`. Bytes of the arrays of snapshots and of moments follow from their types; the memory at the
start of a graph and of training comes from `--events 1e6`. No figure is of a larger log, so forecasts of
those can be tested.
"""

from collections.abc import Mapping
from time import process_time
from timeit import repeat
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits


class Cost(NamedTuple):
    """What a stage takes.

    Attributes:
        seconds: Processor seconds per unit of work.
        alone: Share of them in which one core works and the others wait.
        held: Bytes of memory per unit, whatever the limit of memory.
        kept: Bytes on disk per unit that stay until the end of the run.
        buffered: A unit, bytes of memory of each, and the share of the limit that these take at most.
        spilled: Bytes on disk per row of the log until the stage ends.
    """

    seconds: Mapping[str, float]
    alone: float
    held: Mapping[str, float]
    kept: Mapping[str, float]
    buffered: tuple[str, float, float] = "rows", 0.0, 0.0
    spilled: float = 0.0


PAIR_BYTES, NUMBER_BYTES = 27, 4
"""On disk: of a pair of a snapshot, and of each number of its vectors."""
COSTS = {
    "prepare": Cost(
        seconds={"start": 3.3, "rows": 1.25e-6, "examples": 1.1e-6, "exposures": 0.3e-6},
        alone=0.37,
        held={"start": 320e6, "nodes": 30},
        kept={"history": 7.2, "examples": 3.8, "exposures": 3.4, "nodes": 3.5},
        buffered=("rows", 90, 0.6),
        spilled=27,
    ),
    "graph": Cost(
        seconds={
            "start": 0.8,
            "history": 0.22e-6,
            "pairs": 0.074e-6,
            "pairs x resolutions": 0.138e-6,
            "pairs again": 0.04e-6,
            "pairs again x resolutions": 0.034e-6,
            "nodes x snapshots": 1.8e-6,
            "nodes x resolutions": 2.1e-6,
            "sampled pairs x numbers": 0.7e-9,
            "sampled users x numbers": 90e-9,
            "sampled pairs x resolutions": 0.062e-6,
            "sampled users x resolutions": 0.76e-6,
            "exposures": 0.24e-6,
            "exposures x snapshots": 0.22e-6,
        },
        alone=0.25,
        held={"start": 105e6, "nodes": 30},
        kept={
            "pairs": PAIR_BYTES,
            "pairs x resolutions": 3.5,
            "numbers": NUMBER_BYTES,
            "nodes x snapshots": 406,
            "items x snapshots": 408,
            "exposures": 3.4,
            "exposures x snapshots": 3.3,
        },
        buffered=("rows", 110, 0.8),
        spilled=9,
    ),
    "training": Cost(
        seconds={"start": 2.5, "trained": 17e-6, "validated": 18e-6, "learned exposures": 16e-6},
        alone=0.17,
        held={"start": 260e6, "moments": 170e6, "table": NUMBER_BYTES},
        kept={"cells": 1e6, "table": NUMBER_BYTES, "followed": 210, "followed x resolutions": 20},
        buffered=("examples", 42, 0.7),
    ),
    "evaluation": Cost(
        seconds={"start": 0.3, "scored": 11e-6, "measured": 15.5e-6, "scored exposures": 8.9e-6},
        alone=0.22,
        held={"evaluated": 33},
        kept={"measured": 9},
    ),
    "retrieval": Cost(
        seconds={"scored in lists": 11e-6, "linked pairs": 1.5e-6},
        alone=0.17,
        held={"linked items": 1000},
        kept={"linked items": 2500},
    ),
    "bundle and report": Cost(seconds={"start": 2}, alone=1, held={}, kept={"start": 25e6}),
}
"""Stages in their order. What one holds in memory the later ones hold too, as was measured."""
WEIGHTS = {
    **dict.fromkeys(("constant", "popularity", "history", "rates", "logistic"), 0.05),
    **dict.fromkeys(("ple", "metaheac", "macgnn"), 1.3),
    **dict.fromkeys(("din", "stem", "home"), 2.0),
}
"""Processor seconds per row of a class of models, over those of `mgoe`; 1 for all others. They are coarse:
options and inputs of a model may halve or double them."""
REFERENCE = {"memory": 0.33, "arithmetic": 0.065}
"""Processor seconds of the probe on the machine of the figures."""


def slowness() -> float:
    """Return how many times as long this machine takes as that of the figures, by a probe of two seconds.

    Numbers are gathered and sorted, and matrices multiplied, each on one core; the geometric mean of both
    counts. It is processor time, which other work on the machine changes little.
    """
    rng = np.random.default_rng(0)
    values, order = rng.random(4_000_000), rng.permutation(4_000_000)
    matrix = rng.random((1500, 1500), dtype=np.float32)
    works = {"memory": lambda: np.sort(values[order])[order], "arithmetic": lambda: matrix @ matrix}
    with threadpool_limits(1):
        took = [min(repeat(works[name], timer=process_time, repeat=3, number=1)) for name in REFERENCE]
    return float(np.prod(np.array(took) / [*REFERENCE.values()]) ** 0.5)
