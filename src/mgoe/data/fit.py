"""Fitting feature encoders on a staged table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import ibis
import numpy as np
import pyarrow as pa

from mgoe._util.tables import batches
from mgoe.config import FeatureSettings
from mgoe.data.checks import Check
from mgoe.data.columns import one_array, read_numeric, wrong_type
from mgoe.data.expr import Expr, Table
from mgoe.data.features import LONGEST, FeatureEncoders
from mgoe.data.vocabulary import Vocabulary, texts
from mgoe.errors import ConfigError, DataError


def check_names(features: Sequence[FeatureSettings], key: str) -> None:
    """Refuse features of one name, or of the name that all numbers share.

    Raises:
        ConfigError: A name is taken.
    """
    names = [feature.name for feature in features]
    for name in names:
        if names.count(name) > 1 or name == "numeric":
            raise ConfigError(
                key,
                f"each feature needs a name of its own, and `numeric` is taken, found {name!r}; rename the column",
            )


def read_feature(column: Expr, feature: FeatureSettings, place: str) -> tuple[Expr, list[Check]]:
    """A feature's column, and what must hold of its rows."""
    kind = column.type()
    if feature.kind == "numeric":
        return read_numeric(column, feature.name, place)
    one = kind.value_type if kind.is_array() else kind
    if one.is_timestamp() or one.is_time() or one.is_interval():  # libraries write them in ways of their own
        raise DataError(
            f"{place}, column {feature.name!r}",
            f"a category must be no moment and no time, found {kind}; convert it to text",
        )
    nested = kind.is_array() or kind.is_map() or kind.is_struct() or kind.is_binary()
    if feature.kind == "categorical" and nested:
        raise wrong_type(
            place,
            feature.name,
            kind,
            "a categorical feature holds one value a row (`kind: multi` holds several)",
        )
    if feature.kind == "multi" and not (
        kind.is_string() or (kind.is_array() and not (one.is_nested() or one.is_binary()))
    ):
        raise wrong_type(
            place, feature.name, kind, "a several-valued feature is a list or a string cut at its separator"
        )
    return column, []


def fit_encoders(
    table: Table, columns: dict[str, str], features: Sequence[FeatureSettings], order: str | None = None
) -> FeatureEncoders:
    """Fit on every row of a table; the result does not depend on their order.

    Args:
        table: Staged.
        columns: Feature to its column there.
        features: Which.
        order: Column by whose least value categories are numbered, so that later rows renumber none; else by themselves.
    """
    vocabularies: dict[str, Vocabulary] = {}
    lengths: dict[str, int] = {}
    moments: dict[str, tuple[float, float]] = {}
    for feature in features:
        column = table[columns[feature.name]]
        if feature.kind == "numeric":
            moments[feature.name] = _moments(table.filter(column.notnull()).select(value=column))
            continue
        several = feature.kind == "multi"
        listed = _listed(column, feature) if several else column
        if several:
            lengths[feature.name] = longest(column, feature)
        first = ibis.literal(0) if order is None else table[order]
        values = table.select(value=listed.unnest() if several else column, first=first)
        if several and values.value.type().is_string():
            values = values.mutate(value=values.value.strip())
            values = values.filter(values.value != "")
        vocabularies[feature.name] = _categories(values, feature.min_count)
    return FeatureEncoders(tuple(features), vocabularies, lengths, moments)


def longest(column: Expr, feature: FeatureSettings) -> int:
    """Categories in the longest row of a several-valued column, of those that are kept; at least one."""
    return max(1, min(LONGEST, int(_listed(column, feature).length().max().to_pyarrow().as_py() or 0)))


def _listed(column: Expr, feature: FeatureSettings) -> Expr:
    return column.split(feature.separator) if column.type().is_string() else column


def _categories(values: Table, min_count: int) -> Vocabulary:
    counted = (
        values.filter(values.value.notnull())
        .group_by("value")
        .aggregate(n=ibis._.count(), first=values["first"].min())
    )
    found = one_array(
        counted.filter(counted.n >= min_count).order_by(["first", "value"]).to_pyarrow()["value"]
    )
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


def _moments(values: Table) -> tuple[float, float]:
    """Mean and deviation by exactly rounded sums, which no order of rows changes."""
    count = int(values.count().to_pyarrow().as_py())
    if not count:
        return 0.0, 1.0
    mean = math.fsum(_numbers(values)) / count
    std = math.sqrt(math.fsum((x - mean) ** 2 for x in _numbers(values)) / count)
    return mean, std if std > 1e-12 * max(1.0, abs(mean)) else 1.0


def _numbers(values: Table) -> Iterator[float]:
    return itertools.chain.from_iterable(batch.column(0).to_pylist() for batch in batches(values))
