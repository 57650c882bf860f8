"""MGOE and its rivals, over named batches and under one contract. Knows tensors and a `FeatureSpec`; no files, no data frames.

Axes: `B` batch, `T` tasks, `S` experts, `U` users, `I` items, `Ku`/`Ki` user/item macro nodes (`K` either), `D` embedding width,
`H` aggregate width, `R` recent neighbours, `E` distinct pairs, `N` examples.
"""

from mgoe.models.base import RankingModel
from mgoe.models.halves import AdditiveHalves, Halves, Side, Sides, expanded, neutral, side_of
from mgoe.models.inputs import draw_rows, late_tables
from mgoe.models.mgoe import MGOE, MGOEOptions
from mgoe.models.mmoe import MMoE, MMoEOptions
from mgoe.models.presets import BASES, INPUTS, PRESETS, make_model, resolve
from mgoe.models.rivals import FlatInputs, RivalOptions
from mgoe.models.shared_bottom import SharedBottom, SharedBottomOptions
from mgoe.models.spec import DENSE_KEYS, Batch, CategoricalSpec, FeatureSpec, TaskSpec, batch_keys

__all__ = [
    "BASES",
    "DENSE_KEYS",
    "INPUTS",
    "MGOE",
    "PRESETS",
    "AdditiveHalves",
    "Batch",
    "CategoricalSpec",
    "FeatureSpec",
    "FlatInputs",
    "Halves",
    "MGOEOptions",
    "MMoE",
    "MMoEOptions",
    "RankingModel",
    "RivalOptions",
    "SharedBottom",
    "SharedBottomOptions",
    "Side",
    "Sides",
    "TaskSpec",
    "batch_keys",
    "draw_rows",
    "expanded",
    "late_tables",
    "make_model",
    "neutral",
    "resolve",
    "side_of",
]
