"""Releases: a registry of bundles, and what decides whether a new one goes live."""

from mgoe.release.registry import Registry, served_path
from mgoe.release.version import Change, Version

__all__ = ["Change", "Registry", "Version", "served_path"]
