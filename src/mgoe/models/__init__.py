"""MGOE and its rivals, over named batches and under one contract. Knows tensors and a `FeatureSpec`; no files, no data frames.

Axes: `B` batch, `T` tasks, `S` experts, `U` users, `I` items, `Ku`/`Ki` user/item macro nodes (`K` either), `D` embedding width,
`H` aggregate width, `R` recent neighbours, `E` distinct pairs, `N` examples.
"""

from mgoe.models.aitm import AITM, AITMOptions
from mgoe.models.base import RankingModel
from mgoe.models.boosted import BoostedTrees, BoostedTreesOptions
from mgoe.models.decomposition import AdditiveHalves, Halves, Owner, Owners, expanded, neutral, owner_of
from mgoe.models.esmm import ESMM
from mgoe.models.folded import FoldedHalves
from mgoe.models.funnel import FunnelOptions
from mgoe.models.home import HoME, HoMEOptions
from mgoe.models.macgnn import MacGNN, MacGNNOptions
from mgoe.models.metaheac import MetaHeac, MetaHeacOptions
from mgoe.models.mgoe import MGOE, MGOEOptions
from mgoe.models.mmoe import MMoE, MMoEOptions
from mgoe.models.omoe import OMoE
from mgoe.models.ple import PLE, PLEOptions
from mgoe.models.presets import BASES, INPUTS, PRESETS, make_model, options_of, resolve, written_out
from mgoe.models.rivals import FlatInputs, RivalOptions
from mgoe.models.shared_bottom import SharedBottom, SharedBottomOptions
from mgoe.models.single_task import SingleTask, SingleTaskOptions
from mgoe.models.spec import DENSE_KEYS, Batch, CategoricalSpec, FeatureSpec, TaskSpec, batch_keys
from mgoe.models.stem import STEM, STEMOptions
from mgoe.models.tables import Undrawn, draw_rows, late_tables

__all__ = [
    "AITM",
    "BASES",
    "DENSE_KEYS",
    "ESMM",
    "INPUTS",
    "MGOE",
    "PLE",
    "PRESETS",
    "STEM",
    "AITMOptions",
    "AdditiveHalves",
    "Batch",
    "BoostedTrees",
    "BoostedTreesOptions",
    "CategoricalSpec",
    "FeatureSpec",
    "FlatInputs",
    "FoldedHalves",
    "FunnelOptions",
    "Halves",
    "HoME",
    "HoMEOptions",
    "MGOEOptions",
    "MMoE",
    "MMoEOptions",
    "MacGNN",
    "MacGNNOptions",
    "MetaHeac",
    "MetaHeacOptions",
    "OMoE",
    "Owner",
    "Owners",
    "PLEOptions",
    "RankingModel",
    "RivalOptions",
    "STEMOptions",
    "SharedBottom",
    "SharedBottomOptions",
    "SingleTask",
    "SingleTaskOptions",
    "TaskSpec",
    "Undrawn",
    "batch_keys",
    "draw_rows",
    "expanded",
    "late_tables",
    "make_model",
    "neutral",
    "options_of",
    "owner_of",
    "resolve",
    "written_out",
]
