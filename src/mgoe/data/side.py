"""Side features and names of users and items: encoded once, stored once per node, and memory-mapped.

A name is what people call a user or an item. It is shown to those who read; no model reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ibis.backends.duckdb import Backend
from numpy.typing import ArrayLike, NDArray

from mgoe._util.arrays import take, with_room
from mgoe._util.tables import batches
from mgoe.config import FeatureSettings, SideTableSettings
from mgoe.data.arrow import one_array, pc, texts
from mgoe.data.columns import Expr, Table, enforce, only_row, read_id, wrong_type
from mgoe.data.features import FeatureEncoders, check_names, fit_encoders, read_feature
from mgoe.data.log import drop, open_log, require_columns, stage
from mgoe.data.vectors import FITTED, WIDEST, Space, as_vectors, open_vectors
from mgoe.data.vocabulary import Vocabulary
from mgoe.errors import DataError

NAMES = "names.parquet"
"""In the folder of a side table; there is none where the settings name no column."""


@dataclass
class SideFeatures:
    """Encoded features and names by node index.

    Args:
        encoders: The encoders that produced the arrays.
        arrays: By feature, and `numeric`: indices (n,), padded indices (n, L), whitened vectors (n, P + 1),
            standard scores (n, F).
        names: Texts, null where a node has none. Shape (n,), or (0,) if no column of names was given.

    Example:
        >>> sorted(prepared.user_side.gather(np.array([0, 1])))
        []
    """

    encoders: FeatureEncoders
    arrays: dict[str, NDArray[Any]]
    names: pa.Array = field(default_factory=lambda: pa.nulls(0, pa.string()))
    _added: dict[str, NDArray[Any]] = field(default_factory=dict, init=False, repr=False)
    _added_names: list[str | None] = field(default_factory=list, init=False, repr=False)
    _rows: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32), init=False, repr=False)

    @property
    def content(self) -> NDArray[np.float32] | None:
        """What nodes are about: their vectors side by side. Shape (n, D). None if no feature is a vector."""
        n = len(next(iter(self.arrays.values()), ()))
        return self.content_of(np.arange(n)) if self.encoders.spaces else None

    def content_of(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return what some nodes are about, zeros where it is unknown. Shape (B, D)."""
        vectors = (self.column(name, indices) for name in self.encoders.spaces)
        return np.concatenate([np.empty((len(indices), 0)), *vectors], axis=1, dtype=np.float32)

    def names_of(self, indices: ArrayLike) -> list[str | None]:
        """Return the name of each index, None for a node without a name and for an unknown index."""
        wanted = np.asarray(indices, np.int64)
        unknown = (wanted < 0) | (wanted >= len(self.names))
        found = self.names.take(pa.array(wanted, mask=unknown)).to_pylist()
        for place, row in zip(*self._added_at(wanted), strict=True):
            found[place] = self._added_names[row]
        return found

    def gather(self, indices: ArrayLike) -> dict[str, NDArray[Any]]:
        """Return the features of nodes by name, numbers under `numeric`. B rows each.

        Args:
            indices: Node indices; -1, or one beyond the nodes, is an unknown node. Shape (B,).
        """
        wanted = np.asarray(indices, dtype=np.int64)
        return {name: self.column(name, wanted) for name in self.arrays}

    def column(self, name: str, indices: NDArray[np.int64]) -> NDArray[Any]:
        """Return one feature of nodes, see `gather`. B rows."""
        taken = take(self.arrays[name], indices, self._unknown[name][0])
        places, rows = self._added_at(indices)
        if len(places):
            taken[places] = self._added[name][rows]
        return taken

    def encode(self, columns: Mapping[str, Any], n: int) -> dict[str, NDArray[Any]]:
        """Encode columns of n nodes as the arrays hold them.

        Where the arrays hold fewer categories per node than a row has, those beyond are left out.

        Raises:
            DataError: See `FeatureEncoders.encode`.
        """
        encoded = self.encoders.encode(columns, n)
        widths = {name: one.shape[-1] for name, one in self._unknown.items() if one.ndim == 2}
        return {name: values[..., : widths.get(name)] for name, values in encoded.items()}

    def differ(self, indices: NDArray[np.int64], features: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Return which nodes have other features than those of `encode`, one row each or one for all. Shape
        (B,)."""
        found = np.zeros(len(indices), np.bool_)
        for name, values in self.gather(indices).items():
            found |= (values != features[name]).any(axis=tuple(range(1, values.ndim)))
        return found

    def are_known(self, indices: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which nodes have a feature that is not unknown. Shape (B,)."""
        return self.differ(indices, self._unknown)

    def add(
        self, indices: NDArray[np.int64], encoded: Mapping[str, NDArray[Any]], names: Sequence[str | None]
    ) -> None:
        """Add features and names of nodes that have no features, in memory. What a node has stays.

        Others may read meanwhile: a node has all of its features or none.

        Args:
            indices: Nodes, each once. Shape (B,).
            encoded: Features, see `encode`. B rows each.
            names: A name per node, None where there is none.
        """
        called, first = self.names_of(indices), len(self._added_names)
        new = np.flatnonzero(~self.are_known(indices))
        for name, values in encoded.items():
            room = with_room(self._added.get(name, values[:0]), first + len(new))
            room[first : first + len(new)] = values[new]
            self._added[name] = room
        self._added_names += [called[n] or names[n] for n in new.tolist()]
        rows = with_room(self._rows, int(indices.max(initial=-1)) + 1, -1)
        rows[indices[new]] = np.arange(first, first + len(new))
        self._rows = rows

    def are_added(self, indices: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which nodes were added. Shape (B,)."""
        return take(self._rows, indices, -1) >= 0

    @property
    def is_extended(self) -> bool:
        """Whether something was added."""
        return bool(self._added_names)

    def at(self, indices: NDArray[np.int64]) -> SideFeatures:
        """Return a copy that has some nodes alone, in this order; what is unknown of them stays so."""
        names = pa.array(self.names_of(indices), pa.string())
        return SideFeatures(self.encoders, self.gather(indices), names)

    def without(self, indices: NDArray[np.int64]) -> SideFeatures:
        """Return a copy in which features and names of some nodes are unknown."""
        arrays = {name: np.array(values) for name, values in self.arrays.items()}
        for name, values in arrays.items():
            values[indices[indices < len(values)]] = self._unknown[name]
        gone = np.isin(np.arange(len(self.names)), indices)
        return SideFeatures(self.encoders, arrays, pc.if_else(pa.array(gone), None, self.names))

    def save(self, folder: Path) -> None:
        """Write encoders and arrays."""
        self.encoders.save(folder)
        for k, values in enumerate(self.arrays.values()):
            np.save(folder / f"values-{k}.npy", values, allow_pickle=False)
        if len(self.names):
            pq.write_table(pa.table({"name": self.names}), folder / NAMES, compression="zstd")

    @classmethod
    def load(cls, folder: Path) -> SideFeatures:
        """Open what `save` wrote; arrays stay on disk until they are read."""
        encoders = FeatureEncoders.load(folder)
        arrays = {
            name: np.load(folder / f"values-{k}.npy", mmap_mode="r", allow_pickle=False)
            for k, name in enumerate(encoders.encode({}, 0))
        }
        if not (folder / NAMES).exists():
            return cls(encoders, arrays)
        return cls(encoders, arrays, pq.read_table(folder / NAMES)["name"].combine_chunks())

    def _added_at(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return the places of indices that were added, and the row of each among what was added."""
        rows = take(self._rows, indices, -1)
        there = np.flatnonzero(rows >= 0)
        return there, rows[there]

    @cached_property
    def _unknown(self) -> dict[str, NDArray[Any]]:
        return self.encoders.encode({}, 1)


def read_side(
    con: Backend, settings: SideTableSettings | None, nodes: Vocabulary, key: str
) -> tuple[SideFeatures, dict[str, int]]:
    """Read a side table, encode it and align it with node indices. Ids that are not in the log are left out.

    Categories, means, deviations and directions of vectors come from the whole table, so they do not depend
    on the log.

    Args:
        con: The work database.
        settings: Settings of the table; None if there is no table.
        nodes: Ids of the log.
        key: Name of the setting, for messages.

    Returns:
        The features and names, and counts for the summary.

    Raises:
        DataError: The table or a file of vectors cannot be read, repeats an id, breaks a rule, or has no id
            of the log.
    """
    if settings is None:
        return SideFeatures(FeatureEncoders(), {}), {}
    check_names(settings.features, f"{key}.features")
    source = open_log(con, [settings.path], f"{key}.path", (settings.id,))
    columns = {one.name: f"feature_{k}" for k, one in enumerate(settings.features) if one.path is None}
    named = {} if settings.name is None else {"name": settings.name}
    wanted = [(f"{key}.id", settings.id), *((f"{key}.features", name) for name in columns)]
    require_columns(source, [*wanted, *((f"{key}.name", name) for name in named.values())], settings.path)
    theirs = {"id": settings.id, **dict(zip(columns.values(), columns, strict=True)), **named}
    raw = stage(con, source, theirs, "raw_side", settings.path)
    ids, checks = read_id(raw["id"], settings.id, settings.path)
    values = {"id": ids, "row": raw.rowid()}
    for feature in settings.features:
        if (ours := columns.get(feature.name)) is not None:
            values[ours], more = read_feature(raw[ours], feature, settings.path)
            checks += more
    if named:
        values["name"] = _read_name(raw["name"], theirs["name"], settings.path)
    rows = enforce(raw, checks, settings.path)
    side = raw.select(**values)
    _refuse_repeats(side, settings)
    vectors = [
        _Vectors.of(side, one, columns.get(one.name), settings, rows)
        for one in settings.features
        if one.kind == "vector"
    ]
    spaces = {one.name: one.space() for one in vectors}
    encoders = replace(fit_encoders(side, columns, settings.features), spaces=spaces)
    arrays = encoders.encode({}, nodes.size)
    matched, first = 0, 0
    for batch in batches(side):
        indices = nodes.indices(batch.column("id"))
        known = indices >= 0
        given = {name: batch.column(ours) for name, ours in columns.items()}
        given |= {one.name: one.part(batch, first) for one in vectors}
        for name, part in encoders.encode(given, len(indices)).items():
            arrays[name][indices[known]] = part[known]
        matched, first = matched + int(known.sum()), first + len(indices)
    if not matched:
        least, first = side.id.min().to_pyarrow().as_py(), nodes.ids([0])[0].as_py()
        raise DataError(
            f"{settings.path}, column {settings.id!r}",
            f"some id must be one of the log's, found none of {rows} (the least is {least!r}, the log's "
            "first is "
            f"{first!r}); is {key}.id the right column?",
        )
    names = _names_by_index(side, nodes) if named else pa.nulls(0, pa.string())
    drop(con, "raw_side")
    return (
        SideFeatures(encoders, arrays, names),
        {
            "rows": rows,
            "in_log": matched,
            "nodes_without": nodes.size - matched,
        },
    )


class _Vectors(NamedTuple):
    """A feature of vectors in a side table, or in a file beside it.

    Attributes:
        name: Of the feature.
        place: For messages.
        side: The table.
        rows: Of the table.
        column: Of the table; None if there is a file.
        file: Shape (rows, W), or (0, W) if there is none.
    """

    name: str
    place: str
    side: Table
    rows: int
    column: str | None
    file: NDArray[np.floating]

    @classmethod
    def of(
        cls, side: Table, feature: FeatureSettings, column: str | None, settings: SideTableSettings, rows: int
    ) -> _Vectors:
        if column is None:
            path = Path(settings.path).parent / (feature.path or "")
            place, file = str(path), open_vectors(path, rows)
        else:
            place = f"{settings.path}, column {feature.name!r}"
            width = side[column].length().max().to_pyarrow().as_py() or 0
            file = np.empty((0, width), np.float32)
        if not 1 <= file.shape[1] <= WIDEST:
            raise DataError(
                place,
                f"a vector has 1 to {WIDEST:,} numbers, found {file.shape[1]:,}; leave it out, or keep its "
                "principal components",
            )
        return cls(feature.name, place, side, rows, column, file)

    def space(self) -> Space:
        """Fit a space on evenly spaced rows."""
        step = max(1, self.rows * self.file.shape[1] // FITTED)
        if self.column is None:
            found: Any = self.file[::step]
        else:
            some = self.side.filter(self.side.row % step == 0).order_by("row")
            found = one_array(some.select(self.column).to_pyarrow()[self.column])
        return Space.fit(as_vectors(found, self.file.shape[1], self.place, step=step), self.place)

    def part(self, batch: pa.RecordBatch, first: int) -> NDArray[np.floating]:
        """Return the vectors of a batch of rows, of which the first is row `first` of the table."""
        given = self.file[first : first + len(batch)] if self.column is None else batch.column(self.column)
        return as_vectors(given, self.file.shape[1], self.place, first)


def _read_name(column: Expr, name: str, place: str) -> Expr:
    kind = column.type()
    if kind.is_nested() or kind.is_binary():
        raise wrong_type(place, name, kind, "a name is one text or number per row")
    return column


def _names_by_index(side: Table, nodes: Vocabulary) -> pa.Array:
    """Return the name of each node, null where it has none."""
    found = side.select("id", "name").to_pyarrow()
    indices = nodes.indices(found["id"])
    row = np.full(nodes.size, -1)
    row[indices[indices >= 0]] = np.flatnonzero(indices >= 0)
    names = pc.utf8_trim_whitespace(texts(one_array(found["name"]))).take(pa.array(row, mask=row < 0))
    return pc.if_else(pc.equal(names, ""), pa.scalar(None, names.type), names)


def _refuse_repeats(side: Table, settings: SideTableSettings) -> None:
    counted = side.group_by("id").aggregate(n=side.count())
    repeated = counted.filter(counted.n > 1).order_by("id")
    count = int(repeated.count().to_pyarrow().as_py())
    if count:
        first = only_row(repeated.limit(1))
        more = f" and {count - 1} more ids repeated" if count > 1 else ""
        raise DataError(
            f"{settings.path}, column {settings.id!r}",
            f"a side table has one row per id, found {first['id']!r} in {first['n']} rows{more}; keep one of "
            "each",
        )
