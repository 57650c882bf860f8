"""The manifest of a saved graph, `graph.json`: what it was built from, its extent, and its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from mgoe._util.files import read_of_format, write_json
from mgoe.config import GraphSettings, SparkSettings
from mgoe.config.base import Settings
from mgoe.errors import GraphError
from mgoe.graph.pair_rows import Side

FORMAT = 5
"""Earlier formats were not released."""
MANIFEST = "graph.json"


@dataclass(frozen=True)
class Spent:
    """What a stage took.

    Example:
        >>> Spent(seconds=1.5, peak_gib=0.2).seconds
        1.5
    """

    seconds: float
    """Time on the clock."""
    peak_gib: float
    """Most anonymous memory while it ran."""


@dataclass(frozen=True)
class StoredFile:
    """Size and checksum of a file of the graph."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class CountedRates:
    """How exposures were counted."""

    groups: list[dict[str, Any]]
    """As of `mgoe.graph.rates.describe`."""
    categories: list[str]
    """Axes whose values are categories."""
    regressions: dict[str, bool]
    """For each task, whether it is a regression."""


class BuiltSettings(GraphSettings):
    """Settings of a graph with those of the machine that built it."""

    memory: float
    """Limit of anonymous memory, in GiB."""
    spark: SparkSettings


class GraphManifest(Settings):
    """What `graph.json` holds.

    Lists of cuts, users, items and pairs have one entry per snapshot, in order of time.

    Example:
        >>> graph.manifest.engine
        'local'
    """

    format: int
    engine: str
    settings: BuiltSettings
    log: dict[str, Any]
    """Settings with which the log was read; empty for a graph of arrays."""
    ranks: list[float]
    """Of the tasks, weakest first."""
    bucket: int
    """Length of a bucket, in microseconds."""
    task_mask_scores: list[float]
    """Merging score of every task mask."""
    resolutions: list[tuple[int, int]]
    """Macro nodes (users, items)."""
    dense: int
    """The dense resolution."""
    cuts: list[int]
    """Last bucket of each snapshot."""
    since: int | None
    """The cut before the first snapshot, where an earlier graph had one."""
    users: list[int]
    items: list[int]
    pairs: list[int]
    drift: list[float]
    """Of the latest snapshot, per resolution; see `MacroGraph.drift`."""
    changes: list[dict[str, str | bool | int]]
    """What was done to the graph since it was built."""
    rates: CountedRates | None = None
    content: tuple[Side, ...] = ()
    """Sides whose vectors place new nodes."""
    events: int
    first: int
    """Time of the oldest event, in microseconds since 1970."""
    last: int
    """Time of the newest event."""
    checksum: int
    """Of all events, whatever their order."""
    records: int = 0
    """Of exposures."""
    last_bucket: int = 0
    """In which something was shown or done."""
    built: str = ""
    """Checksum of the snapshots; earlier versions noted none."""
    files: dict[str, StoredFile] = Field(default_factory=dict)
    stages: dict[str, Spent] = Field(default_factory=dict)
    seconds: float = 0.0
    """What all stages took."""

    @classmethod
    def read(cls, folder: Path) -> GraphManifest:
        """Read the manifest of a saved graph.

        Raises:
            GraphError: The folder holds no graph, one of another format, or a damaged one.
        """
        missing = f"holds no macro graph ({MANIFEST} is missing); `mgoe graph build` makes one"
        fix = (
            "build the graph again (`mgoe graph build CONFIG --out OUT --overwrite`), or install the version "
            "of mgoe that wrote it"
        )
        raw = read_of_format(folder / MANIFEST, "graph", FORMAT, GraphError, missing, fix)
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            rule = "is missing" if first["type"] == "missing" else f"breaks a rule ({first['msg']})"
            raise GraphError(
                folder / MANIFEST, f"the graph is damaged: {key!r} {rule}; build the graph again"
            ) from None

    def write(self, folder: Path) -> None:
        """Write the manifest into the folder of a graph."""
        write_json(folder / MANIFEST, self.model_dump(mode="json", exclude_unset=True))

    def with_changes(self, **changes: Any) -> GraphManifest:
        """Return the manifest with other values, which are checked."""
        return type(self).model_validate(
            {name: getattr(self, name) for name in self.model_fields_set} | changes
        )


def combined(files: Mapping[str, StoredFile], below: str = "") -> str:
    """Return one checksum of the files of a manifest whose names begin in some way."""
    listed = {name: file.sha256 for name, file in files.items() if name.startswith(below)}
    return hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()
