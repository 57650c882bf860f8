"""Encoders of features: categories to codes, numbers to standard scores. The same at preparation and at prediction."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute

from mgoe.config import FeatureSettings
from mgoe.data.columns import is_text, to_arrow
from mgoe.data.vocabulary import Vocabulary
from mgoe.errors import DataError

pc: Any = compute  # most of its functions are made at import, out of a type checker's sight

LONGEST = 50
"""Categories of a several-valued feature that are kept a row; the rest are cut off, the unknown before the known."""
_FILE = "features.json"


@dataclass(frozen=True)
class FeatureEncoders:
    """What turns columns into arrays, fitted once.

    A category has a code from 1; 0 stands for the missing, the rare and the unseen.

    Args:
        features: Which there are.
        vocabularies: Of categorical and several-valued features, by name.
        lengths: Columns of several-valued features at least, by name: the most categories of a row that they were fitted on.
        moments: Mean and deviation, by name of numeric features.
    """

    features: tuple[FeatureSettings, ...] = ()
    vocabularies: Mapping[str, Vocabulary] = field(default_factory=dict)
    lengths: Mapping[str, int] = field(default_factory=dict)
    moments: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def sizes(self) -> dict[str, int]:
        """Codes of each categorical or several-valued feature, the unknown counted."""
        return {name: vocabulary.size + 1 for name, vocabulary in self.vocabularies.items()}

    def names(self, kind: str) -> list[str]:
        """Features of one kind, in the settings' order."""
        return [feature.name for feature in self.features if feature.kind == kind]

    def encode(self, columns: Mapping[str, Any], n: int) -> dict[str, NDArray]:
        """Encode columns by feature name; one that is not given is unknown in every row.

        Args:
            columns: From a list, NumPy, pandas, polars or Arrow, each of n rows; others than the features are not read.
            n: Rows.

        Returns:
            Codes int64 (n,), several-valued codes int64 (n, L) with -1 at the pad, and under `numeric` standard scores float32 (n, F).
        """
        given = {
            feature.name: to_arrow(columns[feature.name], f"feature {feature.name!r}")
            for feature in self.features
            if feature.name in columns
        }
        for name, values in given.items():
            if len(values) != n:
                raise DataError(
                    f"feature {name!r}",
                    f"must have a value for each of {n} rows, found {len(values)}; give null where it is unknown",
                )
        encoded: dict[str, NDArray] = {}
        for feature in self.features:
            if feature.kind != "numeric":
                encoded[feature.name] = self._encode_categories(feature, given.get(feature.name), n)
        numeric = self.names("numeric")
        if numeric:
            encoded["numeric"] = np.stack(
                [self._standardise(name, given.get(name), n) for name in numeric], axis=1
            )
        return encoded

    def save(self, folder: Path) -> None:
        """Write a folder of one JSON and one vocabulary a feature."""
        folder.mkdir(parents=True, exist_ok=True)
        for k, vocabulary in enumerate(self.vocabularies.values()):
            vocabulary.save(folder / f"categories-{k}.parquet")
        features = [feature.model_dump(mode="json") for feature in self.features]
        held = {
            "features": features,
            "categories": list(self.vocabularies),
            "lengths": dict(self.lengths),
            "moments": dict(self.moments),
        }
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
        )

    def _encode_categories(
        self, feature: FeatureSettings, values: pa.Array | None, n: int
    ) -> NDArray[np.int64]:
        try:
            if feature.kind == "multi":
                return self._encode_multi(feature, values, n)
            return (
                np.zeros(n, np.int64)
                if values is None
                else self.vocabularies[feature.name].indices(values) + 1
            )
        except pa.ArrowException:
            rule = (
                "must be lists, or strings cut at its separator"
                if feature.kind == "multi"
                else "must be one value a row"
            )
            raise DataError(
                f"feature {feature.name!r}",
                f"{rule}, found {None if values is None else values.type}; convert it",
            ) from None

    def _encode_multi(self, feature: FeatureSettings, values: pa.Array | None, n: int) -> NDArray[np.int64]:
        if values is None or pa.types.is_null(values.type):
            return np.full((n, self.lengths[feature.name]), -1, np.int64)
        row, flat = flatten(values, feature)
        codes, counts = self.vocabularies[feature.name].indices(flat) + 1, np.bincount(row, minlength=n)
        longest = int(counts.max(initial=0))
        if longest > LONGEST:
            order = np.lexsort(
                ((codes == 0) & (counts[row] > LONGEST), row)
            )  # what is cut off is unknown before it is known
            row, codes = row[order], codes[order]
        padded = np.full((n, max(self.lengths[feature.name], min(longest, LONGEST))), -1, np.int64)
        place = np.arange(len(row)) - (np.cumsum(counts) - counts)[row]
        kept = place < padded.shape[1]
        padded[row[kept], place[kept]] = codes[kept]
        return padded

    def _standardise(self, name: str, values: pa.Array | None, n: int) -> NDArray[np.float32]:
        if values is None or pa.types.is_null(values.type):
            return np.zeros(n, np.float32)
        try:
            numbers = pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise DataError(
                f"feature {name!r}", f"must be numbers, found {values.type}; convert it"
            ) from None
        mean, std = self.moments[name]
        with np.errstate(
            over="ignore"
        ):  # beyond float32 is infinite, and unknown as what is infinite already
            scores = ((numbers - mean) / std).astype(np.float32)
        return np.nan_to_num(scores, nan=0.0, posinf=0.0, neginf=0.0)


def flatten(values: pa.Array, feature: FeatureSettings) -> tuple[NDArray[np.int64], pa.Array]:
    """The categories of a several-valued column one after the other, and the row of each; empty and null ones are left out."""
    if is_text(values.type):
        values = pc.split_pattern(values, feature.separator)
    row, flat = pc.list_parent_indices(values), pc.list_flatten(values)
    if is_text(flat.type):
        flat = pc.utf8_trim(flat, characters=" \t\n\r\v\f")  # what the engine trims where encoders are fitted
        held = pc.fill_null(pc.not_equal(flat, ""), False)
    else:
        held = pc.is_valid(flat)
    return row.filter(held).to_numpy(zero_copy_only=False).astype(np.int64), flat.filter(held)
