"""The macro task merging graph: scores, macro nodes, macro edges, recent neighbours, snapshots.

Axes: `B` batch, `T` tasks (weakest to strongest), `U` users, `I` items, `Ku`/`Ki` macro nodes, `R` recents, `E` distinct pairs.
"""

from mgoe.graph.build import Source, build_graph
from mgoe.graph.macro_graph import MacroGraph
from mgoe.graph.place import Place, place
from mgoe.graph.scores import merging_score
from mgoe.graph.snapshot import Resolution, Snapshot

__all__ = ["MacroGraph", "Place", "Resolution", "Snapshot", "Source", "build_graph", "merging_score", "place"]
