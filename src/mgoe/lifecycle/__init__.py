"""Everything after the first training: new rows, updates of a bundle, its release, and the daily cycle.

bundle_update    mgoe update: `learning` trains, `full_training` does it from scratch, `due` says when
new_bundle       the folder of the bundle that it makes
sources          where new rows are
new_rows         what a bundle's graph lacks: files (`new_files`), live events, exposures of a service
taken            mgoe exposures
window           later rows of a bundle's log, measured and calibrated on
registry         versions, aliases and the history of their changes; `version`, what it knows of each
acceptance       the release test; `release_window`, the rows that it reads
shadow           what the log of a shadow says; `outcomes`, what became of the answers in it
cycle            mgoe cycle
"""

from mgoe.lifecycle.acceptance import Bounds, Release, check_release
from mgoe.lifecycle.bundle_update import update
from mgoe.lifecycle.cycle import CycleSettings, load_cycle, run_cycle
from mgoe.lifecycle.registry import Registry, served_path
from mgoe.lifecycle.release_window import window_of
from mgoe.lifecycle.shadow import ShadowReport, compare_shadow
from mgoe.lifecycle.sources import Sources

__all__ = [
    "Bounds",
    "CycleSettings",
    "Registry",
    "Release",
    "ShadowReport",
    "Sources",
    "check_release",
    "compare_shadow",
    "load_cycle",
    "run_cycle",
    "served_path",
    "update",
    "window_of",
]
