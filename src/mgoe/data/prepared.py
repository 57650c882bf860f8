"""Prepared data: a folder with all that the graph, training and a bundle need of a log."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mgoe._util.files import GIB, as_pattern
from mgoe.data.examples import Examples, Split, damaged_part, read_examples
from mgoe.data.features import FeatureEncoders
from mgoe.data.side import SideFeatures
from mgoe.data.stream import ExampleFile
from mgoe.data.vocabulary import Vocabulary
from mgoe.errors import DataError

FORMAT = 1
MANIFEST = "data.json"
WINDOW_SHARE = 0.125
"""Of the memory for examples: rows that are shuffled together. Reading, taking and waiting hold a few times as much."""
STREAM_WINDOW = 1 << 26
"""The same in bytes, where nothing is said."""
HISTORY_ROWS = 1 << 20


class Encoders:
    """All that turns a log's ids and columns into codes and features, in a folder: what prediction needs of prepared data.

    Args:
        path: The folder.
    """

    FILES = ("users.parquet", "items.parquet")
    FOLDERS = ("user_side", "item_side", "context")

    def __init__(self, path: Path):
        self.path = path

    @cached_property
    def users(self) -> Vocabulary:
        """User ids by code."""
        return Vocabulary.load(self.path / "users.parquet")

    @cached_property
    def items(self) -> Vocabulary:
        """Item ids by code."""
        return Vocabulary.load(self.path / "items.parquet")

    @cached_property
    def user_side(self) -> SideFeatures:
        """Features by user code."""
        return SideFeatures.load(self.path / "user_side")

    @cached_property
    def item_side(self) -> SideFeatures:
        """Features by item code."""
        return SideFeatures.load(self.path / "item_side")

    @cached_property
    def context_features(self) -> FeatureEncoders:
        """Encoders of the context features of an exposure."""
        return FeatureEncoders.load(self.path / "context")

    def save_encoders(self, folder: Path) -> None:
        """Copy the files of the encoders alone into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in self.FILES:
            shutil.copyfile(self.path / name, folder / name)
        for name in self.FOLDERS:
            shutil.copytree(self.path / name, folder / name)


class Prepared(Encoders):
    """A prepared log, opened with `Prepared.open`; nothing large is read before it is asked for.

    Args:
        path: The folder.
        manifest: What its `data.json` holds.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]):
        super().__init__(path)
        self.settings: dict[str, Any] = manifest["settings"]
        self.summary: dict[str, Any] = manifest["summary"]
        self.tasks: tuple[str, ...] = tuple(manifest["tasks"])
        self.cuts: NDArray[np.int32] = np.array(manifest["cuts"], dtype=np.int32)
        self.users_at: NDArray[np.int64] = np.array(manifest["users_at"], dtype=np.int64)
        self.items_at: NDArray[np.int64] = np.array(manifest["items_at"], dtype=np.int64)

    @classmethod
    def open(cls, path: Path | str) -> Prepared:
        """Open a folder that `prepare` wrote.

        Raises:
            DataError: It is none, of another version, or a file of it is missing or cut short.
        """
        path = Path(path)
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(
                path, f"prepared data hold a {MANIFEST}, found none; make them again from the log"
            ) from None
        except (OSError, ValueError) as error:
            raise DataError(
                path / MANIFEST, f"cannot be read: {error}; make the prepared data again from the log"
            ) from None
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
            raise DataError(
                path / MANIFEST,
                f"this version reads format {FORMAT}, found {found}; make the prepared data again from the log",
            )
        for name, size in manifest["files"].items():
            held = (path / name).stat().st_size if (path / name).is_file() else None
            if held != size:
                found = "it is missing" if held is None else f"found {held} bytes"
                raise DataError(
                    path / name, f"must hold {size} bytes, {found}; make the prepared data again from the log"
                )
        return cls(path, manifest)

    @cached_property
    def history(self) -> ir.Table:
        """One row an event and task, on DuckDB: user, item, time int64, bucket int32, snapshot int16, task int8.

        `time` is microseconds since 1970; `snapshot` the first that contains the event, the number of cuts standing for the latest alone.
        """
        spill = self.path.with_name(
            f".{self.path.name}.{os.getpid()}.tmp"
        )  # on the disk of the data, not where the process runs
        return ibis.duckdb.connect(temp_directory=str(spill)).read_parquet(
            as_pattern(self.path / "history.parquet")
        )

    def history_parts(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int16]]]:
        """User, item and snapshot of the history's rows, `HISTORY_ROWS` at a time.

        Raises:
            DataError: The file is gone or damaged.
        """
        path = self.path / "history.parquet"
        try:
            for part in pq.ParquetFile(path).iter_batches(HISTORY_ROWS, columns=["user", "item", "snapshot"]):
                user, item, snapshot = (part[name].to_numpy() for name in ("user", "item", "snapshot"))
                yield user, item, snapshot
        except (OSError, pa.ArrowInvalid) as error:
            raise damaged_part(path, error) from None

    def examples(self, split: Split) -> Examples:
        """The examples of a split."""
        return read_examples(self.path / f"{split}.parquet", self.tasks)

    def streamed(self, split: Split, window: int = STREAM_WINDOW) -> ExampleFile:
        """The examples of a split where they lie.

        Args:
            split: Which.
            window: Bytes of rows that are shuffled together.
        """
        return ExampleFile(self.path / f"{split}.parquet", self.tasks, window)

    def within(self, split: Split, memory: float) -> Examples | ExampleFile:
        """The examples of a split, in memory where they take no more than so many GiB, else where they lie."""
        return self.streamed(split, int(memory * GIB * WINDOW_SHARE)).within(memory)
