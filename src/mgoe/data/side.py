"""Side features of users or items: encoded once, stored once a node, memory-mapped."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ibis.backends.duckdb import Backend
from numpy.typing import ArrayLike, NDArray

from mgoe._util.tables import batches
from mgoe.config import SideTableSettings
from mgoe.data.checks import enforce
from mgoe.data.columns import read_id
from mgoe.data.expr import Table
from mgoe.data.features import FeatureEncoders
from mgoe.data.fit import check_names, fit_encoders, read_feature
from mgoe.data.log import drop, open_log, require_columns, stage
from mgoe.data.vocabulary import Vocabulary
from mgoe.errors import DataError


class SideFeatures:
    """Encoded features by node code.

    Args:
        encoders: What made them.
        arrays: By feature, and `numeric`: codes (n,), padded codes (n, L), standard scores (n, F).
    """

    def __init__(self, encoders: FeatureEncoders, arrays: dict[str, NDArray[Any]]):
        self.encoders = encoders
        self._arrays = arrays

    def gather(self, codes: ArrayLike) -> dict[str, NDArray[Any]]:
        """Features of nodes by name, the numbers under `numeric`; a code of -1 or beyond the nodes is unknown. B rows each."""
        wanted = np.asarray(codes, dtype=np.int64)
        return {name: self._take(name, values, wanted) for name, values in self._arrays.items()}

    def save(self, folder: Path) -> None:
        """Write encoders and arrays."""
        self.encoders.save(folder)
        for k, values in enumerate(self._arrays.values()):
            np.save(folder / f"values-{k}.npy", values, allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> SideFeatures:
        """Open what `save` wrote; arrays stay on disk until they are read."""
        encoders = FeatureEncoders.load(folder)
        names = list(encoders.encode({}, 0))
        return cls(
            encoders,
            {
                name: np.load(folder / f"values-{k}.npy", mmap_mode="r", allow_pickle=False)
                for k, name in enumerate(names)
            },
        )

    @cached_property
    def _unknown(self) -> dict[str, NDArray[Any]]:
        return self.encoders.encode({}, 1)

    def _take(self, name: str, values: NDArray[Any], codes: NDArray[np.int64]) -> NDArray[Any]:
        known = (codes >= 0) & (codes < len(values))
        taken = np.repeat(self._unknown[name], len(codes), axis=0)
        taken[known] = values[codes[known]]
        return taken


def read_side(
    con: Backend, settings: SideTableSettings | None, nodes: Vocabulary, key: str
) -> tuple[SideFeatures, dict[str, int]]:
    """Read a side table, encode it and align it with node codes. Ids that the log lacks are left out.

    Categories and moments come from the whole table, so that the log changes none of them.

    Args:
        con: The work database.
        settings: Of the table; None: there is none.
        nodes: Ids of the log.
        key: The setting's name, for messages.

    Returns:
        The features, and counts for the summary.

    Raises:
        DataError: The table cannot be read, repeats an id, breaks a rule, or has no id of the log.
    """
    if settings is None:
        return SideFeatures(FeatureEncoders(), {}), {}
    check_names(settings.features, f"{key}.features")
    source = open_log(con, [settings.path], f"{key}.path", (settings.id,))
    columns = {f"feature_{k}": feature.name for k, feature in enumerate(settings.features)}
    require_columns(source, {f"{key}.id": settings.id}, settings.path)
    for name in columns.values():
        require_columns(source, {f"{key}.features": name}, settings.path)
    raw = stage(con, source, {"id": settings.id, **columns}, "raw_side", settings.path)
    ids, checks = read_id(raw["id"], settings.id, settings.path)
    values = {"id": ids}
    for k, feature in enumerate(settings.features):
        values[f"feature_{k}"], more = read_feature(raw[f"feature_{k}"], feature, settings.path)
        checks += more
    enforce(raw, checks, settings.path)
    side = raw.select(**values)
    _refuse_repeats(side, settings)
    encoders = fit_encoders(
        side, {feature.name: f"feature_{k}" for k, feature in enumerate(settings.features)}, settings.features
    )
    arrays = {
        name: np.repeat(unknown, nodes.size, axis=0) for name, unknown in encoders.encode({}, 1).items()
    }
    rows = matched = 0
    for batch in batches(side):
        codes = nodes.indices(batch.column("id"))
        known = codes >= 0
        encoded = encoders.encode(
            {feature.name: batch.column(f"feature_{k}") for k, feature in enumerate(settings.features)},
            len(codes),
        )
        for name, part in encoded.items():
            arrays[name][codes[known]] = part[known]
        rows, matched = rows + len(codes), matched + int(known.sum())
    if not matched:
        example = side.id.min().to_pyarrow().as_py()
        found = f"found none of {rows} (the least is {example!r}, the log's first is {nodes.ids([0])[0].as_py()!r})"
        raise DataError(
            f"{settings.path}, column {settings.id!r}",
            f"some id must be one of the log's, {found}; is {key}.id the right column?",
        )
    drop(con, "raw_side")
    return SideFeatures(encoders, arrays), {
        "rows": rows,
        "in_log": matched,
        "nodes_without": nodes.size - matched,
    }


def _refuse_repeats(side: Table, settings: SideTableSettings) -> None:
    counted = side.group_by("id").aggregate(n=side.count())
    repeated = counted.filter(counted.n > 1).order_by("id")
    count = int(repeated.count().to_pyarrow().as_py())
    if count:
        first = repeated.limit(1).to_pyarrow().to_pylist()[0]
        found = f"found {first['id']!r} in {first['n']} rows" + (
            f" and {count - 1} more ids repeated" if count > 1 else ""
        )
        raise DataError(
            f"{settings.path}, column {settings.id!r}",
            f"a side table has one row an id, {found}; keep one of each",
        )
