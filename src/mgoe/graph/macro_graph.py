"""The saved macro graph: a versioned folder of snapshots that reopens memory-mapped."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgoe._util.files import link, read_of_format, sha256, write_json
from mgoe._util.notebook import Shown
from mgoe.errors import GraphError
from mgoe.graph.build.workplace import combined, complete_move
from mgoe.graph.scores import score_table
from mgoe.graph.snapshot import Snapshot

FORMAT = 5
"""Earlier formats were not released."""
NEEDED = (
    "settings",
    "ranks",
    "bucket",
    "task_mask_scores",
    "resolutions",
    "dense",
    "cuts",
    "users",
    "items",
    "pairs",
    "files",
)
"""Keys of the manifest without which a graph cannot be read."""

DRIFT_LIMIT = 0.1
"""From this drift on, macro nodes should be learned again; docs/laboratory/scale.md has the study."""


@dataclass(frozen=True, repr=False)
class MacroGraph(Shown):
    """Snapshots in order of time; the last one holds all history.

    Attributes:
        path: Its folder.
        meta: Format, engine, settings, sizes, cuts, time window, drift, files with checksums, and what each
            stage took.

    Example:
        >>> len(graph.snapshots)
        4
    """

    path: Path
    meta: dict[str, Any]

    @classmethod
    def open(cls, path: Path | str) -> MacroGraph:
        """Open a saved graph.

        Raises:
            GraphError: The folder holds no graph, or one of another format.
        """
        path = Path(path)
        complete_move(path)
        missing = "holds no macro graph (graph.json is missing); `mgoe graph build` makes one"
        fix = (
            "build the graph again (`mgoe graph build CONFIG --out OUT --overwrite`), or install the version "
            "of mgoe that wrote it"
        )
        meta = read_of_format(path / "graph.json", "graph", FORMAT, GraphError, missing, fix)
        if lacking := [name for name in NEEDED if name not in meta]:
            raise GraphError(
                path / "graph.json", f"the graph is damaged: {lacking[0]!r} is missing; build the graph again"
            )
        return cls(path, meta)

    @cached_property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """All snapshots, opened once and memory-mapped."""
        return tuple(Snapshot.open(self.folder(s), self.meta, cut) for s, cut in enumerate(self.meta["cuts"]))

    def folder(self, snapshot: int) -> Path:
        """Return where the arrays of a snapshot are stored."""
        return self.path / "snapshots" / f"{snapshot % len(self.meta['cuts']):02d}"

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Macro nodes (users, items) of each resolution."""
        return tuple((ku, ki) for ku, ki in self.meta["resolutions"])

    @property
    def latest(self) -> Snapshot:
        """The snapshot of all history, which a service uses."""
        return self.snapshots[-1]

    def save_latest(self, folder: Path) -> None:
        """Write the graph with its latest snapshot alone, whose arrays take no space of their own where files
        can have two names.
        """
        (folder / "snapshots").mkdir(parents=True)
        shutil.copytree(self.folder(-1), folder / "snapshots" / "00", copy_function=link)
        latest, saved = f"snapshots/{self.folder(-1).name}/", self.meta["files"]
        for name, file in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / name)
        files = {
            name.replace(latest, "snapshots/00/"): facts
            for name, facts in saved.items()
            if name.startswith(latest) or not name.startswith("snapshots/")
        }
        per_snapshot = {name: self.meta[name][-1:] for name in ("cuts", "users", "items", "pairs")}
        write_json(folder / "graph.json", self.meta | per_snapshot | {"since": self.since, "files": files})

    @property
    def since(self) -> int | None:
        """The cut before the latest, after which the events of a pair are counted. None if there was none."""
        cuts = self.meta["cuts"]
        return cuts[-2] if len(cuts) > 1 else self.meta["since"]

    @property
    def files(self) -> dict[str, Path]:
        """Files that are kept with the graph beside its snapshots, by name."""
        return {name: self.path / name for name in self.meta["files"] if not name.startswith("snapshots/")}

    @property
    def fixed_scores(self) -> NDArray[np.int64]:
        """Fixed-point score of every task mask. Shape (2^T,)."""
        settings = self.meta["settings"]
        return score_table(np.asarray(self.meta["ranks"]), settings["beta"], settings["code"])

    @property
    def checksum(self) -> str:
        """One checksum of all files."""
        return combined(self.meta["files"])

    def verify(self) -> None:
        """Check every file against its checksum.

        Raises:
            GraphError: A file is missing or differs.
        """
        for name, facts in self.meta["files"].items():
            file = self.path / name
            if not file.is_file() or sha256(file) != facts["sha256"]:
                found = "it differs" if file.is_file() else "it is missing"
                raise GraphError(
                    file,
                    f"the graph is damaged: every file must be as it was written, found that {found}; build "
                    "the graph again",
                )

    @property
    def task_mask_scores(self) -> tuple[float, ...]:
        """Merging score of every task mask. Shape (2^T,)."""
        return tuple(self.meta["task_mask_scores"])

    def describe(self) -> dict[str, Any]:
        """Return what `mgoe graph describe` prints: the extent of the graph, its latest snapshot, and what it
        took.
        """
        latest, meta = self.latest, self.meta
        return {
            "format": meta["format"],
            "engine": meta["engine"],
            "snapshots": len(meta["cuts"]),
            "events": meta["events"],
            "first": _moment(meta["first"]),
            "last": _moment(meta["last"]),
            "users": latest.n_users,
            "items": latest.n_items,
            "pairs": meta["pairs"][-1],
            "bytes": sum(facts["bytes"] for facts in meta["files"].values()),
            "resolutions": [
                {
                    "macro_users": ku,
                    "macro_items": ki,
                    "largest_user_share": _largest(part.user_macro, ku),
                    "largest_item_share": _largest(part.item_macro, ki),
                    "edges_per_user": round(len(part.user_edges[1]) / max(1, latest.n_users), 2),
                    "edges_per_item": round(len(part.item_edges[1]) / max(1, latest.n_items), 2),
                    "drift": round(drift, 4),
                }
                for (ku, ki), part, drift in zip(
                    meta["resolutions"], latest.resolutions, meta["drift"], strict=True
                )
            ],
            **self._describe_rates(),
            "changes": meta["changes"],
            "seconds": meta["seconds"],
            "stages": meta["stages"],
        }

    def _describe_rates(self) -> dict[str, Any]:
        """Return the records of exposures and the cells of each group, if exposures were counted."""
        rates = self.latest.rates
        if rates is None:
            return {}
        cells = {
            group.name: int(table.indptr[-1] - table.indptr[0])
            for group, table in zip(rates.groups, rates.tables, strict=True)
        }
        return {"exposure_records": self.meta["records"], "cells": cells}

    @property
    def drift(self) -> float:
        """Share of all score of users that another macro node ties better than their own, at the dense
        resolution.
        """
        return self.meta["drift"][self.meta["dense"]]

    def _facts(self) -> dict[str, object]:
        return {name: self.meta[name][-1] for name in ("users", "items", "pairs")} | {
            "snapshots": len(self.meta["cuts"]),
            "macro nodes": [f"{ku}/{ki}" for ku, ki in self.sizes],
        }


def _moment(microseconds: int) -> str:
    return (datetime(1970, 1, 1) + timedelta(microseconds=microseconds)).isoformat(" ", "seconds")


def _largest(macro: np.ndarray, k: int) -> float:
    sizes = np.bincount(macro, minlength=k + 1)[:k]
    return round(float(sizes.max() / max(1, sizes.sum())), 4)
