"""Encoders of features, the same at preparation and prediction: indices of categories, standard scores,
whitened vectors."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mgoe._util.tables import batches
from mgoe.config import FeatureSettings
from mgoe.data.arrow import is_text, one_array, pc, texts, to_arrow
from mgoe.data.columns import Check, Expr, Table, read_numeric, wrong_type
from mgoe.data.vectors import Space, as_vectors
from mgoe.data.vocabulary import Vocabulary
from mgoe.errors import ConfigError, DataError

LONGEST = 50
"""Categories kept per row of a several-valued feature; the rest are cut off, unknown ones before known
ones."""
_FILE = "features.json"


@dataclass(frozen=True)
class FeatureEncoders:
    """Turn columns into arrays; fitted once, with `fit_encoders`.

    A category has an index from 1; 0 stands for missing, rare and unseen ones.

    Args:
        features: The features.
        vocabularies: Of categorical and several-valued features, by name.
        lengths: Least number of columns of several-valued features, by name: the most categories in a row
            that they were fitted on.
        moments: Mean and standard deviation of numeric features, by name.
        spaces: Of vectors, by name.

    Example:
        >>> prepared.context_features.sizes
        {}
    """

    features: tuple[FeatureSettings, ...] = ()
    vocabularies: Mapping[str, Vocabulary] = field(default_factory=dict)
    lengths: Mapping[str, int] = field(default_factory=dict)
    moments: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    spaces: Mapping[str, Space] = field(default_factory=dict)

    @property
    def sizes(self) -> dict[str, int]:
        """Number of indices of each categorical or several-valued feature, including the unknown one."""
        return {name: vocabulary.size + 1 for name, vocabulary in self.vocabularies.items()}

    def names(self, kind: str) -> list[str]:
        """Return the features of one kind, in the order of the settings."""
        return [feature.name for feature in self.features if feature.kind == kind]

    def encode(self, columns: Mapping[str, Any], n: int) -> dict[str, NDArray]:
        """Encode columns by feature name; a feature without a column is unknown in every row.

        Args:
            columns: Lists, NumPy arrays, pandas or polars series, or Arrow arrays, each of n rows. Columns
                that are not features are ignored.
            n: Number of rows.

        Returns:
            Indices int64 (n,), several-valued indices int64 (n, L) padded with -1, whitened vectors float16
            (n, P + 1) as `Space.encode` returns them, and under `numeric` standard scores float32 (n, F).

        Raises:
            DataError: A column has another number of rows, or values that its feature cannot have.
        """
        given = {
            feature.name: self._column(feature.name, columns[feature.name])
            for feature in self.features
            if feature.name in columns
        }
        for name, values in given.items():
            if len(values) != n:
                raise DataError(
                    f"feature {name!r}",
                    f"must have a value for each of {n} rows, found {len(values)}; give null where it is "
                    "unknown",
                )
        encoded: dict[str, NDArray] = {
            feature.name: self._encode_vectors(feature.name, given.get(feature.name), n)
            if feature.kind == "vector"
            else self._encode_categories(feature, given.get(feature.name), n)
            for feature in self.features
            if feature.kind != "numeric"
        }
        scores = [self._standardize(name, given.get(name), n) for name in self.names("numeric")]
        return encoded | ({"numeric": np.stack(scores, axis=1)} if scores else {})

    def save(self, folder: Path) -> None:
        """Write a folder with one JSON file, and one vocabulary or space per feature."""
        folder.mkdir(parents=True, exist_ok=True)
        for k, vocabulary in enumerate(self.vocabularies.values()):
            vocabulary.save(folder / f"categories-{k}.parquet")
        for k, space in enumerate(self.spaces.values()):
            np.save(folder / f"space-{k}.npy", space.base, allow_pickle=False)
        held = {
            "features": [feature.model_dump(mode="json") for feature in self.features],
            "categories": list(self.vocabularies),
            "lengths": dict(self.lengths),
            "moments": dict(self.moments),
        }
        if self.spaces:
            held["spaces"] = {name: [space.noise, *space.usual] for name, space in self.spaces.items()}
        (folder / _FILE).write_text(json.dumps(held, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> FeatureEncoders:
        """Read what `save` wrote."""
        held = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        return cls(
            features=tuple(FeatureSettings.model_validate(feature) for feature in held["features"]),
            vocabularies={
                name: Vocabulary.load(folder / f"categories-{k}.parquet")
                for k, name in enumerate(held["categories"])
            },
            lengths=held["lengths"],
            moments={name: (mean, std) for name, (mean, std) in held["moments"].items()},
            spaces={
                name: Space(np.load(folder / f"space-{k}.npy", allow_pickle=False), noise, (low, high))
                for k, (name, (noise, low, high)) in enumerate(held.get("spaces", {}).items())
            },
        )

    def _column(self, name: str, values: Any) -> Any:
        place = f"feature {name!r}"
        space = self.spaces.get(name)
        return to_arrow(values, place) if space is None else as_vectors(values, space.width, place)

    def _encode_vectors(self, name: str, values: NDArray[np.floating] | None, n: int) -> NDArray[np.float16]:
        space = self.spaces[name]
        if values is None:
            return np.zeros((n, len(space.base)), np.float16)
        space.warn(values, f"feature {name!r}")
        return space.encode(values)

    def _encode_categories(
        self, feature: FeatureSettings, values: pa.Array | None, n: int
    ) -> NDArray[np.int64]:
        several = feature.kind == "multi"
        if values is None or pa.types.is_null(values.type):
            return (
                np.full((n, self.lengths[feature.name]), -1, np.int64) if several else np.zeros(n, np.int64)
            )
        try:
            if several:
                return self._encode_several(feature, values, n)
            return self.vocabularies[feature.name].indices(values) + 1
        except (pa.ArrowException, DataError):
            rule = (
                "must be lists, or strings split at its separator" if several else "must be one value per row"
            )
            raise DataError(f"feature {feature.name!r}", f"{rule}, found {values.type}; convert it") from None

    def _encode_several(self, feature: FeatureSettings, values: pa.Array, n: int) -> NDArray[np.int64]:
        if is_text(values.type):
            values = pc.split_pattern(values, feature.separator)
        row, flat = pc.list_parent_indices(values), pc.list_flatten(values)
        held = pc.is_valid(flat)  # empty and null categories are left out
        if is_text(flat.type):
            flat = pc.utf8_trim(flat, characters=" \t\n\r\v\f")  # as the engine trims where they are fitted
            held = pc.fill_null(pc.not_equal(flat, ""), False)
        row = row.filter(held).to_numpy(zero_copy_only=False).astype(np.int64)
        indices = self.vocabularies[feature.name].indices(flat.filter(held)) + 1
        counts = np.bincount(row, minlength=n)
        most = int(counts.max(initial=0))
        if most > LONGEST:  # unknown categories last, so that they are cut off first
            order = np.lexsort(((indices == 0) & (counts[row] > LONGEST), row))
            row, indices = row[order], indices[order]
        padded = np.full((n, max(self.lengths[feature.name], min(most, LONGEST))), -1, np.int64)
        place = np.arange(len(row)) - (np.cumsum(counts) - counts)[row]
        kept = place < padded.shape[1]
        padded[row[kept], place[kept]] = indices[kept]
        return padded

    def _standardize(self, name: str, values: pa.Array | None, n: int) -> NDArray[np.float32]:
        if values is None or pa.types.is_null(values.type):
            return np.zeros(n, np.float32)
        try:
            numbers = pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise DataError(
                f"feature {name!r}", f"must be numbers, found {values.type}; convert it"
            ) from None
        mean, std = self.moments[name]
        with np.errstate(over="ignore"):  # a score beyond float32 becomes infinite, and so unknown
            scores = ((numbers - mean) / std).astype(np.float32)
        return np.nan_to_num(scores, nan=0.0, posinf=0.0, neginf=0.0)


def check_names(features: Sequence[FeatureSettings], key: str) -> None:
    """Refuse features that share a name, or have the name that all numbers share.

    Raises:
        ConfigError: A name is taken.
    """
    names = [feature.name for feature in features]
    for name in names:
        if names.count(name) > 1 or name == "numeric":
            raise ConfigError(
                key,
                f"each feature needs a name of its own, and `numeric` is taken, found {name!r}; rename the "
                "column",
            )


def read_feature(column: Expr, feature: FeatureSettings, place: str) -> tuple[Expr, list[Check]]:
    """Return a feature's column, and the checks on it.

    Raises:
        DataError: The column is of a wrong type.
    """
    kind = column.type()
    if feature.kind == "numeric":
        return read_numeric(column, feature.name, place)
    one = kind.value_type if kind.is_array() else kind
    if one.is_timestamp() or one.is_time() or one.is_interval():  # libraries write them in different ways
        raise DataError(
            f"{place}, column {feature.name!r}",
            f"a category must not be a time, found {kind}; convert it to text",
        )
    if feature.kind == "vector":
        if not (kind.is_array() and one.is_numeric()):
            raise wrong_type(place, feature.name, kind, "a vector is a list of numbers")
        return column, []
    if kind.is_array() and one.is_floating():
        raise DataError(
            f"{place}, column {feature.name!r}",
            "a list of numbers is a vector, and would be read as one category per number, found "
            f"{kind}; say `kind: vector`, which side tables may hold",
        )
    if feature.kind == "multi":
        rule = "a several-valued feature is a list or a string split at its separator"
        fits = kind.is_string() or (kind.is_array() and not (one.is_nested() or one.is_binary()))
    else:
        rule = "a categorical feature holds one value per row (`kind: multi` holds several)"
        fits = not (kind.is_nested() or kind.is_binary())
    if not fits:
        raise wrong_type(place, feature.name, kind, rule)
    return column, []


def fit_encoders(
    table: Table, columns: Mapping[str, str], features: Sequence[FeatureSettings], order: str | None = None
) -> FeatureEncoders:
    """Fit encoders on every row of a table, but for vectors; the result does not depend on the order of rows.

    Args:
        table: Staged.
        columns: Feature to its column in the table.
        features: The features.
        order: Column by which categories are numbered, in the order of its least values, so that later rows
            do not renumber them. By default they are numbered in their own order.
    """
    held = {feature.name: table[columns[feature.name]] for feature in features if feature.kind != "vector"}
    return FeatureEncoders(
        tuple(features),
        vocabularies={
            feature.name: _categories(table, held[feature.name], feature, order)
            for feature in features
            if feature.kind in ("categorical", "multi")
        },
        lengths={
            feature.name: longest(held[feature.name], feature)
            for feature in features
            if feature.kind == "multi"
        },
        moments={
            feature.name: _mean_and_deviation(table, held[feature.name])
            for feature in features
            if feature.kind == "numeric"
        },
    )


def longest(column: Expr, feature: FeatureSettings) -> int:
    """Return the number of categories in the longest row of a several-valued column, from 1 to `LONGEST`."""
    return max(1, min(LONGEST, int(listed(column, feature).length().max().to_pyarrow().as_py() or 0)))


def listed(column: Expr, feature: FeatureSettings) -> Expr:
    """Return a several-valued column as lists."""
    if not column.type().is_string():
        return column
    # Spark splits at a regular expression
    spark = column.get_backend().name == "pyspark"
    return column.split(re.escape(feature.separator) if spark else feature.separator)


def _categories(table: Table, column: Expr, feature: FeatureSettings, order: str | None) -> Vocabulary:
    several = feature.kind == "multi"
    values = table.select(
        value=listed(column, feature).unnest() if several else column,
        first=ibis.literal(0) if order is None else table[order],
    )
    if several and values.value.type().is_string():
        values = values.mutate(value=values.value.strip()).filter(ibis._.value != "")
    grouped = values.filter(values.value.notnull()).group_by("value")
    counted = grouped.aggregate(n=ibis._.count(), first=values["first"].min())
    frequent = counted.filter(counted.n >= feature.min_count).order_by(["first", "value"])
    found = one_array(frequent.to_pyarrow()["value"])
    kind = found.type
    if pa.types.is_floating(kind):
        numbers = found.to_numpy(zero_copy_only=False)
        numbers = numbers[np.isfinite(numbers)]
        whole = bool((np.floor(numbers) == numbers).all() and (np.abs(numbers) < 2.0**53).all())
        found = pa.array(numbers.astype(np.int64)) if whole else pa.array(numbers).cast(pa.string())
    elif pa.types.is_integer(kind):
        found = found.cast(pa.uint64() if kind == pa.uint64() else pa.int64())
    else:
        found = texts(found)
    return Vocabulary(found)


def _mean_and_deviation(table: Table, column: Expr) -> tuple[float, float]:
    """Compute both from exactly rounded sums, which do not depend on the order of rows."""
    values = table.filter(column.notnull()).select(value=column)
    count = int(values.count().to_pyarrow().as_py())
    if not count:
        return 0.0, 1.0
    mean = math.fsum(_numbers(values)) / count
    std = math.sqrt(math.fsum((x - mean) ** 2 for x in _numbers(values)) / count)
    return mean, std if std > 1e-12 * max(1.0, abs(mean)) else 1.0


def _numbers(values: Table) -> Iterator[float]:
    return itertools.chain.from_iterable(batch.column(0).to_pylist() for batch in batches(values))
