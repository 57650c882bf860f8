"""The saved macro graph: a versioned folder of snapshots that reopens memory-mapped."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgoe._util.files import link, sha256
from mgoe._util.notebook import Shown
from mgoe.errors import GraphError
from mgoe.graph.build.workplace import complete_move
from mgoe.graph.manifest import GraphManifest, combined
from mgoe.graph.scores import score_table
from mgoe.graph.snapshot import Snapshot

DRIFT_LIMIT = 0.1
"""From this drift on, macro nodes should be learned again; docs/laboratory/scale.md has the study."""


@dataclass(frozen=True, repr=False)
class MacroGraph(Shown):
    """Snapshots in order of time; the last one holds all history.

    Attributes:
        path: Its folder.
        manifest: How it was built, its extent, and its files.

    Example:
        >>> len(graph.snapshots)
        4
    """

    path: Path
    manifest: GraphManifest

    @classmethod
    def open(cls, path: Path | str) -> MacroGraph:
        """Open a saved graph.

        Raises:
            GraphError: The folder holds no graph, one of another format, or a damaged one.
        """
        path = Path(path)
        complete_move(path)
        return cls(path, GraphManifest.read(path))

    @cached_property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """All snapshots, opened once and memory-mapped."""
        cuts = enumerate(self.manifest.cuts)
        return tuple(Snapshot.open(self.folder(s), self.manifest, cut) for s, cut in cuts)

    def folder(self, snapshot: int) -> Path:
        """Return where the arrays of a snapshot are stored."""
        return self.path / "snapshots" / f"{snapshot % len(self.manifest.cuts):02d}"

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Macro nodes (users, items) of each resolution."""
        return tuple((ku, ki) for ku, ki in self.manifest.resolutions)

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
        latest, saved = f"snapshots/{self.folder(-1).name}/", self.manifest.files
        for name, file in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / name)
        files = {
            name.replace(latest, "snapshots/00/"): file
            for name, file in saved.items()
            if name.startswith(latest) or not name.startswith("snapshots/")
        }
        self.manifest.with_changes(
            cuts=self.manifest.cuts[-1:],
            users=self.manifest.users[-1:],
            items=self.manifest.items[-1:],
            pairs=self.manifest.pairs[-1:],
            since=self.since,
            files=files,
        ).write(folder)

    @property
    def since(self) -> int | None:
        """The cut before the latest, after which the events of a pair are counted. None if there was none."""
        cuts = self.manifest.cuts
        return cuts[-2] if len(cuts) > 1 else self.manifest.since

    @property
    def files(self) -> dict[str, Path]:
        """Files that are kept with the graph beside its snapshots, by name."""
        return {name: self.path / name for name in self.manifest.files if not name.startswith("snapshots/")}

    @property
    def fixed_scores(self) -> NDArray[np.int64]:
        """Fixed-point score of every task mask. Shape (2^T,)."""
        settings = self.manifest.settings
        return score_table(np.asarray(self.manifest.ranks), settings.beta, settings.code)

    @property
    def checksum(self) -> str:
        """One checksum of all files."""
        return combined(self.manifest.files)

    def verify(self) -> None:
        """Check every file against its checksum.

        Raises:
            GraphError: A file is missing or differs.
        """
        for name, stored in self.manifest.files.items():
            file = self.path / name
            if not file.is_file() or sha256(file) != stored.sha256:
                found = "it differs" if file.is_file() else "it is missing"
                raise GraphError(
                    file,
                    f"the graph is damaged: every file must be as it was written, found that {found}; build "
                    "the graph again",
                )

    @property
    def task_mask_scores(self) -> tuple[float, ...]:
        """Merging score of every task mask. Shape (2^T,)."""
        return tuple(self.manifest.task_mask_scores)

    def describe(self) -> dict[str, Any]:
        """Return what `mgoe graph describe` prints: the extent of the graph, its latest snapshot, and what it
        took.
        """
        latest, manifest = self.latest, self.manifest
        return {
            "format": manifest.format,
            "engine": manifest.engine,
            "snapshots": len(manifest.cuts),
            "events": manifest.events,
            "first": _moment(manifest.first),
            "last": _moment(manifest.last),
            "users": latest.n_users,
            "items": latest.n_items,
            "pairs": manifest.pairs[-1],
            "bytes": sum(file.bytes for file in manifest.files.values()),
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
                    manifest.resolutions, latest.resolutions, manifest.drift, strict=True
                )
            ],
            **self._describe_rates(),
            "changes": manifest.changes,
            "seconds": manifest.seconds,
            "stages": {name: asdict(spent) for name, spent in manifest.stages.items()},
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
        return {"exposure_records": self.manifest.records, "cells": cells}

    @property
    def drift(self) -> float:
        """Share of all score of users that another macro node ties better than their own, at the dense
        resolution.
        """
        return self.manifest.drift[self.manifest.dense]

    def _facts(self) -> dict[str, object]:
        return {
            "users": self.manifest.users[-1],
            "items": self.manifest.items[-1],
            "pairs": self.manifest.pairs[-1],
            "snapshots": len(self.manifest.cuts),
            "macro nodes": [f"{ku}/{ki}" for ku, ki in self.sizes],
        }


def _moment(microseconds: int) -> str:
    return (datetime(1970, 1, 1) + timedelta(microseconds=microseconds)).isoformat(" ", "seconds")


def _largest(macro: np.ndarray, k: int) -> float:
    sizes = np.bincount(macro, minlength=k + 1)[:k]
    return round(float(sizes.max() / max(1, sizes.sum())), 4)
