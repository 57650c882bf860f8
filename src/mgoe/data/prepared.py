"""Prepared data: a folder with everything that the graph, training and a bundle need of a log."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import ibis.expr.types as ir
import numpy as np
from numpy.typing import NDArray

from mgoe._util.files import GIB, as_pattern, read_of_format
from mgoe._util.tables import open_duckdb
from mgoe.config import SplitSettings
from mgoe.data.example_file import ExampleFile
from mgoe.data.examples import Examples, Split
from mgoe.data.features import FeatureEncoders
from mgoe.data.side import SideFeatures
from mgoe.data.store import Store, readable
from mgoe.data.vocabulary import Vocabulary
from mgoe.errors import DataError

FORMAT = 1
MANIFEST = "data.json"
EXPOSURES = "exposures.parquet"
WINDOW_SHARE = 0.125
"""Share of the memory for examples that a window takes, the rows that are shuffled together. Rows that are
being read, taken or waiting hold a few times as much."""
STREAM_WINDOW = 1 << 26
"""Bytes of a window by default."""
HISTORY_ROWS = 1 << 20


class Encoders:
    """Everything that turns a log's ids and columns into indices and features: what prediction needs of
    prepared data.

    Args:
        path: The folder.

    Example:
        >>> encoders = Encoders(folder / "bundle")
        >>> encoders.users.size == int(prepared.users_at[-1])
        True
    """

    FILES = ("users.parquet", "items.parquet")

    def __init__(self, path: Path):
        self.path = path

    @cached_property
    def users(self) -> Vocabulary:
        """User ids by index."""
        return Vocabulary.load(self.path / "users.parquet")

    @cached_property
    def items(self) -> Vocabulary:
        """Item ids by index."""
        return Vocabulary.load(self.path / "items.parquet")

    @cached_property
    def user_side(self) -> SideFeatures:
        """Features and names by user index."""
        return SideFeatures.load(self.path / "user_side")

    @cached_property
    def item_side(self) -> SideFeatures:
        """Features and names by item index."""
        return SideFeatures.load(self.path / "item_side")

    @cached_property
    def context_features(self) -> FeatureEncoders:
        """Encoders of the context features of an exposure."""
        return FeatureEncoders.load(self.path / "context")

    def save_encoders(self, folder: Path) -> None:
        """Copy only the files of the encoders into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in self.FILES:
            shutil.copyfile(self.path / name, folder / name)
        for name in ("user_side", "item_side", "context"):
            shutil.copytree(self.path / name, folder / name)


class Prepared(Encoders):
    """A prepared log, opened with `Prepared.open`; nothing large is read before it is needed.

    Args:
        path: The folder.
        manifest: Content of its `data.json`.

    Example:
        >>> prepared.valid_window, [len(prepared.examples(split)) > 0 for split in ("train", "valid", "test")]
        (1, [True, True, True])
    """

    def __init__(self, path: Path, manifest: dict[str, Any]):
        super().__init__(path)
        self.settings: dict[str, Any] = manifest["settings"]
        self.summary: dict[str, Any] = manifest["summary"]
        self.tasks: tuple[str, ...] = tuple(manifest["tasks"])
        self.until: int = manifest["until"]
        self.cuts: NDArray[np.int32] = np.array(manifest["cuts"], dtype=np.int32)
        self.users_at: NDArray[np.int64] = np.array(manifest["users_at"], dtype=np.int64)
        self.items_at: NDArray[np.int64] = np.array(manifest["items_at"], dtype=np.int64)

    @property
    def valid_window(self) -> int:
        """See `SplitSettings.valid_window`; the snapshot of this number holds every training window."""
        return SplitSettings.model_validate(self.settings["split"]).valid_window

    @classmethod
    def open(cls, path: Path | str) -> Prepared:
        """Open a folder that `prepare` wrote. The examples of a split may be where `Store.of` finds them.

        Raises:
            DataError: It holds no prepared data, those of another version, or a file is missing or truncated.
        """
        path = Path(path)
        again = "make the prepared data again from the log"
        missing = f"prepared data hold a {MANIFEST}, found none; make them again from the log"
        manifest = read_of_format(path / MANIFEST, "data", FORMAT, DataError, missing, again)
        moved = {pointer.stem: Store.of(path / pointer.stem) for pointer in path.glob("*.url")}
        sizes = {place: size for store in moved.values() for place, size in store.sizes().items()}
        for name, size in manifest["files"].items():
            place, held, top = path / name, None, name.partition("/")[0]
            if top in moved:
                place = f"{moved[top].place}{name.removeprefix(top)}"
                held = sizes.get(place)
            elif place.is_file():
                held = place.stat().st_size
            if held != size:
                found = "it is missing" if held is None else f"found {held} bytes"
                raise DataError(place, f"must hold {size} bytes, {found}; {again}")
        return cls(path, manifest)

    @cached_property
    def history(self) -> ir.Table:
        """One row per event and task, on DuckDB: user, item, time int64, bucket int32, snapshot int16, task
        int8.

        `time` is microseconds since 1970. `snapshot` is the first that contains the event; the number of cuts
        stands for events that only the latest snapshot contains.
        """
        return self._table("history.parquet")

    @cached_property
    def exposures(self) -> ir.Table | None:
        """The records of `exposure_history`, on DuckDB; None for an event log."""
        return self._table(EXPOSURES) if (self.path / EXPOSURES).exists() else None

    def _table(self, name: str) -> ir.Table:
        # DuckDB spills to the disk of the data, not to the working folder
        spill = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        files = [as_pattern(file) for file in Store(self.path / name).sizes()]
        return open_duckdb(temp_directory=str(spill)).read_parquet(files)

    def history_parts(
        self, since: Literal["snapshot", "time"] = "snapshot"
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.integer]]]:
        """Yield user, item and snapshot, or time, of the history's rows, `HISTORY_ROWS` at a time.

        Raises:
            DataError: The file is missing or damaged.
        """
        store, names = Store(self.path / "history.parquet"), ["user", "item", since]
        for shard in store.sizes():
            with readable(shard):
                for part in store.open(shard).iter_batches(HISTORY_ROWS, columns=names):
                    user, item, found = (part[name].to_numpy() for name in names)
                    yield user, item, found

    def examples(self, split: Split) -> Examples:
        """Return the examples of a split in memory."""
        return self.streamed(split).read()

    def streamed(self, split: Split | Sequence[Split], window: int = STREAM_WINDOW) -> ExampleFile:
        """Return the examples of a split, or of several in their order, in their files.

        Args:
            split: One or several.
            window: Bytes of rows that are shuffled together.
        """
        names = [split] if isinstance(split, str) else split
        first, *later = (self.path / f"{name}.parquet" for name in names)
        return ExampleFile(first, self.tasks, window, *later)

    def within(self, split: Split | Sequence[Split], memory: float) -> Examples | ExampleFile:
        """Return the examples that `streamed` does, in memory if they take at most `memory` GiB, otherwise in
        their files."""
        return self.streamed(split, int(memory * GIB * WINDOW_SHARE)).within(memory)
