"""The macro task merging graph: scores, macro nodes, macro edges, recent neighbours, snapshots.

Axes: `B` batch, `T` tasks (weakest to strongest), `U` users, `I` items, `Ku`/`Ki` macro nodes, `R` recent
neighbours, `E` distinct pairs.
"""

from mgoe.graph.build.builder import Exposures, Source, build_graph
from mgoe.graph.build.workplace import Observer, Spent, peak_memory
from mgoe.graph.likelihood import Place, place
from mgoe.graph.macro_graph import DRIFT_LIMIT, MacroGraph
from mgoe.graph.scores import merging_score
from mgoe.graph.snapshot import Resolution, Snapshot
from mgoe.graph.update import NewEvents, forget_users, update_graph

__all__ = [
    "DRIFT_LIMIT",
    "Exposures",
    "MacroGraph",
    "NewEvents",
    "Observer",
    "Place",
    "Resolution",
    "Snapshot",
    "Source",
    "Spent",
    "build_graph",
    "forget_users",
    "merging_score",
    "peak_memory",
    "place",
    "update_graph",
]
