"""Training: batches from examples and graph, row-wise optimisers, the loop, checkpoints.

Axes: `B` batch, `T` tasks, `U` users, `I` items, `Ku`/`Ki` macro nodes, `D` width, `H` aggregate width, `R`
recents, `E` distinct pairs, `N` examples.
"""

from mgoe.training.boosted import fit_trees, load_lightgbm
from mgoe.training.checkpoint import load_checkpoint, load_weights, save_checkpoint
from mgoe.training.devices import check_available, resolve_device, uses_bfloat16
from mgoe.training.distributed.process_group import ProcessGroup, joined
from mgoe.training.feed import Batch, Feed, make_spec, sizes_until, some_rows, spec_of_rows
from mgoe.training.loop import CHECKPOINTS, OPTIMIZER, WEIGHTS, fit
from mgoe.training.monitor import Monitor, measure
from mgoe.training.predict import PairScorer, predict
from mgoe.training.progress import (
    FitProgress,
    FitResult,
    OnProgress,
    progress_bar,
    track_bundle,
    track_result,
)
from mgoe.training.replay import Replay, ReplayFeed
from mgoe.training.step import RowwiseAdagrad

__all__ = [
    "CHECKPOINTS",
    "OPTIMIZER",
    "WEIGHTS",
    "Batch",
    "Feed",
    "FitProgress",
    "FitResult",
    "Monitor",
    "OnProgress",
    "PairScorer",
    "ProcessGroup",
    "Replay",
    "ReplayFeed",
    "RowwiseAdagrad",
    "check_available",
    "fit",
    "fit_trees",
    "joined",
    "load_checkpoint",
    "load_lightgbm",
    "load_weights",
    "make_spec",
    "measure",
    "predict",
    "progress_bar",
    "resolve_device",
    "save_checkpoint",
    "sizes_until",
    "some_rows",
    "spec_of_rows",
    "track_bundle",
    "track_result",
    "uses_bfloat16",
]
