"""Everything after the first training: new rows, updates of a bundle, its release, and the daily cycle.

bundle_update    mgoe update, also from scratch, and when that is due: `learning` trains
new_bundle       the folder of the bundle that it makes
new_rows         what a bundle lacks, read once: files, or live events and exposures of a service
graphs           mgoe graph update, mgoe graph forget
taken            rows that a service has taken, as mgoe log export writes them
measure          a bundle measured on later rows of its log
registry         `versions`, aliases and the history of their changes
acceptance       the release test, and the rows that it reads
shadow           what the log of a shadow says, and what became of the answers in it
cycle            mgoe cycle; old rows that every version holds leave the log of the service
erasure          mgoe erase: `erased_bundle` is what it makes
"""

from typing import TYPE_CHECKING

from mgoe._util.lazy import lazy

if TYPE_CHECKING:
    from mgoe.lifecycle.acceptance import Bounds, Release, check_release, window_of
    from mgoe.lifecycle.bundle_update import update
    from mgoe.lifecycle.cycle import CycleSettings, load_cycle, run_cycle
    from mgoe.lifecycle.graphs import forget_in_macro_graph, update_macro_graph
    from mgoe.lifecycle.new_rows import Sources
    from mgoe.lifecycle.registry import Registry
    from mgoe.lifecycle.shadow import ShadowReport, compare_shadow

__all__ = [
    "Bounds",
    "CycleSettings",
    "Registry",
    "Release",
    "ShadowReport",
    "Sources",
    "check_release",
    "compare_shadow",
    "forget_in_macro_graph",
    "load_cycle",
    "run_cycle",
    "update",
    "update_macro_graph",
    "window_of",
]
# A graph is changed without torch, which most of them need.
__getattr__, __dir__ = lazy(
    __name__,
    {
        "acceptance": ("Bounds", "Release", "check_release", "window_of"),
        "bundle_update": ("update",),
        "cycle": ("CycleSettings", "load_cycle", "run_cycle"),
        "graphs": ("forget_in_macro_graph", "update_macro_graph"),
        "new_rows": ("Sources",),
        "registry": ("Registry",),
        "shadow": ("ShadowReport", "compare_shadow"),
    },
    __all__,
)
