"""MGOE and its baselines, over named batches and under one contract.

Models know tensors and a `FeatureSpec`; no files, no data frames.

Axes: `B` batch, `T` tasks, `S` experts, `U` users, `I` items, `Ku`/`Ki` user/item macro nodes
(`K` either), `D` embedding width, `H` aggregate width, `R` recent neighbours, `E` distinct pairs, `N`
examples.
"""

from mgoe.models.base import RankingModel
from mgoe.models.baselines.boosted import BoostedTrees, BoostedTreesOptions
from mgoe.models.baselines.flat import (
    BaselineOptions,
    FlatInputs,
    LayerOptions,
    SharedBottom,
    SharedBottomOptions,
    SingleTask,
)
from mgoe.models.baselines.funnel import AITM, ESMM, AITMOptions, FunnelOptions
from mgoe.models.baselines.macgnn import MacGNN
from mgoe.models.baselines.own_experts import PLE, HoME, HoMEOptions, PLEOptions
from mgoe.models.baselines.shared_experts import MetaHeac, MMoE, MMoEOptions, OMoE
from mgoe.models.baselines.stem import STEM
from mgoe.models.decomposition import AdditiveDecomposition, Decomposition, expanded, neutral
from mgoe.models.layers.tables import Undrawn, draw_rows, late_tables
from mgoe.models.mgoe.model import MGOE
from mgoe.models.mgoe.network import MGOEOptions
from mgoe.models.presets import BASES, INPUTS, PRESETS, class_of, make_model, options_of, resolve, written_out
from mgoe.models.spec import Batch, CategoricalSpec, FeatureSpec, TaskSpec, batch_keys

__all__ = [
    "AITM",
    "BASES",
    "ESMM",
    "INPUTS",
    "MGOE",
    "PLE",
    "PRESETS",
    "STEM",
    "AITMOptions",
    "AdditiveDecomposition",
    "BaselineOptions",
    "Batch",
    "BoostedTrees",
    "BoostedTreesOptions",
    "CategoricalSpec",
    "Decomposition",
    "FeatureSpec",
    "FlatInputs",
    "FunnelOptions",
    "HoME",
    "HoMEOptions",
    "LayerOptions",
    "MGOEOptions",
    "MMoE",
    "MMoEOptions",
    "MacGNN",
    "MetaHeac",
    "OMoE",
    "PLEOptions",
    "RankingModel",
    "SharedBottom",
    "SharedBottomOptions",
    "SingleTask",
    "TaskSpec",
    "Undrawn",
    "batch_keys",
    "class_of",
    "draw_rows",
    "expanded",
    "late_tables",
    "make_model",
    "neutral",
    "options_of",
    "resolve",
    "written_out",
]
