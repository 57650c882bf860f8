"""The macro task merging graph: scores, macro nodes, macro edges, recent neighbours, snapshots.

Axes: `B` batch, `T` tasks (weakest to strongest), `U` users, `I` items, `Ku`/`Ki` macro nodes, `R` recent
neighbours, `E` distinct pairs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mgoe.graph.build.workplace import Observer, Spent, peak_memory
from mgoe.graph.macro_graph import DRIFT_LIMIT, MacroGraph
from mgoe.graph.scores import merging_score
from mgoe.graph.snapshot import Resolution, Snapshot

if TYPE_CHECKING:
    from mgoe.graph.build.builder import Exposures, Source, build_graph
    from mgoe.graph.update import NewEvents, forget_users, update_graph

__all__ = [
    "DRIFT_LIMIT",
    "Exposures",
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
_MODULE_OF = {
    "Exposures": "build.builder",
    "NewEvents": "update",
    "Source": "build.builder",
    "build_graph": "build.builder",
    "forget_users": "update",
    "update_graph": "update",
}


def __getattr__(name: str) -> Any:
    """Import what builds graphs when it is first asked for: a service does not need its slow packages."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'mgoe.graph' has no attribute {name!r}")
    return getattr(import_module(f"mgoe.graph.{_MODULE_OF[name]}"), name)
