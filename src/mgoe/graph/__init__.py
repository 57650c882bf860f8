"""The macro task merging graph: scores, macro nodes, macro edges, recent neighbours, snapshots.

Axes: `B` batch, `T` tasks (weakest to strongest), `U` users, `I` items, `Ku`/`Ki` macro nodes, `R` recent
neighbours, `E` distinct pairs.
"""

from typing import TYPE_CHECKING

from mgoe._util.lazy import lazy
from mgoe.graph.build.workplace import Observer, peak_memory
from mgoe.graph.macro_graph import DRIFT_LIMIT, MacroGraph
from mgoe.graph.manifest import GraphManifest, Spent
from mgoe.graph.scores import merging_score
from mgoe.graph.snapshot import Resolution, Snapshot

if TYPE_CHECKING:
    from mgoe.graph.build.builder import Exposures, Source, build_graph
    from mgoe.graph.update import NewEvents, forget_users, update_graph

__all__ = [
    "DRIFT_LIMIT",
    "Exposures",
    "GraphManifest",
    "MacroGraph",
    "NewEvents",
    "Observer",
    "Resolution",
    "Snapshot",
    "Source",
    "Spent",
    "build_graph",
    "forget_users",
    "merging_score",
    "peak_memory",
    "update_graph",
]
# What builds graphs has slow packages, which a service does not need.
__getattr__, __dir__ = lazy(
    __name__,
    {
        "build.builder": ("Exposures", "Source", "build_graph"),
        "update": ("NewEvents", "forget_users", "update_graph"),
    },
    __all__,
)
