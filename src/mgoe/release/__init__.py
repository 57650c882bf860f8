"""Releases: a registry of bundles, and what decides whether a new one goes live.

registry     versions, aliases and the history of their changes; `version`, what it knows of each
acceptance   the release test; `window`, the rows that it reads
shadow       what the log of a shadow says; `outcomes`, what became of the answers in it
cycle        mgoe cycle
"""

from mgoe.release.acceptance import Bounds, Release, check_release
from mgoe.release.cycle import CycleSettings, load_cycle, run_cycle
from mgoe.release.registry import Registry, served_path
from mgoe.release.shadow import ShadowReport, compare_shadow
from mgoe.release.window import Sources, window_of

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
    "window_of",
]
