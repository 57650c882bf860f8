"""Bundles of a few bytes, which a registry takes for bundles."""

import json
from pathlib import Path
from typing import Any

from mgoe._util.files import sha256
from mgoe.bundle import FORMAT, MANIFEST, Bundle
from mgoe.lifecycle import Bounds, Release


def write(folder: Path, text: str, parent: str | None = None, trained: str = "full") -> str:
    """Write a bundle of one file, and return its name."""
    folder.mkdir(parents=True)
    (folder / "weights").write_text(text)
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "versions": {"mgoe": "0.1.0"},
        "model": {"name": "mgoe", "base": "mgoe"},
        "tasks": [],
        "sampling": None,
        "calibration": {},
        "checksums": {"weights": sha256(folder / "weights")},
        "lineage": {
            "parent": parent,
            "trained": trained,
            "log": ["2026-01-01", "2026-01-02"],
            "version": "0.1.0",
        },
        "trained_until": "2026-01-02",
        "fully_trained_until": "2026-01-02",
    }
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return Bundle.open(folder, verify=False).name


def note_release(folder: Path, candidate: str, baseline: str, approved: bool = True) -> None:
    """Write the result of a release test."""
    Release(
        candidate=candidate,
        baseline=baseline,
        time="2026-01-02",
        rows=1,
        approved=approved,
        reasons=["auc of click"],
        bounds=Bounds(),
    ).save(folder)
