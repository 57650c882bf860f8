"""Replay: older rows that are trained again beside new ones, so that a model does not forget.

Rows are kept as they were read at their time, so neither the log nor the graph of that time is needed. The
memory is a uniform sample of all rows that it was shown (Vitter's reservoir, 1985, for blocks of rows).

Axes: `N` examples, `M` rows of the memory, `T` tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from mgoe.data import Encoders, Examples, join
from mgoe.features import Arrays, FeatureSpec, batch_keys
from mgoe.graph import MacroGraph
from mgoe.graph.moments import Moments
from mgoe.models import Batch
from mgoe.training.checkpoint import load_checkpoint, save_checkpoint
from mgoe.training.feed import Feed, as_wide, some_rows

STORED = -1
"""Snapshot of examples that are read from a memory; `user` is then the row there."""


@dataclass(frozen=True)
class Replay:
    """A memory of training rows.

    Attributes:
        rows: Everything that a model reads of each row, with its labels, by batch key. M rows each.
        seen: Number of rows of which these are a sample.

    Example:
        >>> from mgoe.training import Feed, Replay
        >>> valid = Feed(prepared, graph, prepared.examples("valid"), bundle.model.needs, bundle.model.spec)
        >>> len(Replay.of(valid, most=10))
        10
    """

    rows: Batch
    seen: int

    def __len__(self) -> int:
        return len(self.rows["labels"])

    @classmethod
    def of(cls, feed: Feed, most: int, seed: int = 0) -> Self:
        """Return a memory of at most `most` rows of a feed."""
        return cls(feed.block(some_rows(len(feed), most, seed)), len(feed))

    def joined(self, feed: Feed, most: int, seed: int) -> Replay:
        """Return a memory of the rows of this one and of a feed: each stays with the same probability."""
        seen = self.seen + len(feed)
        new = min(len(feed), round(min(most, seen) * len(feed) / max(1, seen)))
        old = min(len(self), min(most, seen) - new)
        added = feed.block(some_rows(len(feed), new, seed))
        kept = torch.from_numpy(some_rows(len(self), old, seed))
        return Replay({name: _stacked(held[kept], added[name]) for name, held in self.rows.items()}, seen)

    def examples(self, number: int, like: Examples, seed: int) -> Examples:
        """Return examples that stand for a seeded sample of the rows.

        Args:
            number: How many; all rows if there are fewer.
            like: Examples with the columns that are wanted.
            seed: Seed of the sample.
        """
        rows = some_rows(len(self), number, seed)
        position = self.rows["position"][rows].numpy() if like.position is not None else None
        return Examples(
            user=rows,
            item=np.full(len(rows), -1),
            bucket=np.zeros(len(rows), np.int32),
            snapshot=np.full(len(rows), STORED, np.int16),
            labels=self.rows["labels"][rows].numpy(),
            weight=self.rows["weight"][rows].numpy(),
            context={
                name: np.zeros((len(rows), *values.shape[1:]), values.dtype)
                for name, values in like.context.items()
            },
            position=position,
            moment=None if like.moment is None else np.zeros(len(rows), np.int64),
        )

    def for_spec(self, before: FeatureSpec, after: FeatureSpec, needs: frozenset[str]) -> Replay:
        """Return the rows for a model with larger tables, whose last rows are the unseen nodes there too."""
        rows = dict(self.rows)
        larger = batch_keys(after, needs)
        for name, key in batch_keys(before, needs).items():
            if key.kind == "index" and name in rows and larger[name].size != key.size:
                rows[name] = torch.where(rows[name] == key.size - 1, larger[name].size - 1, rows[name])
        return replace(self, rows=rows)

    def without(self, users: NDArray[np.int64], unseen: int) -> Replay:
        """Return the rows of other users; as a recent user of an item, these users are unseen ones.

        Args:
            users: Rows of the embedding tables. Shape (n,).
            unseen: The row of users that were never seen.
        """
        gone = torch.from_numpy(users)
        stays = ~torch.isin(self.rows["user"], gone)
        rows = {name: held[stays] for name, held in self.rows.items()}
        if (recent := rows.get("recent_users")) is not None:
            rows["recent_users"] = torch.where(torch.isin(recent, gone), unseen, recent)
        return Replay(rows, round(self.seen * float(stays.float().mean())) if len(self) else 0)

    def save(self, file: Path) -> None:
        """Write it, each array compressed.

        Raises:
            TrainingError: The file cannot be written.
        """
        arrays = {name: rows.numpy() for name, rows in self.rows.items()}
        packed = {
            name: torch.frombuffer(
                bytearray(pa.compress(rows.tobytes(), "zstd", asbytes=True)), dtype=torch.uint8
            )
            for name, rows in arrays.items()
        }
        kinds = {name: [rows.dtype.str, rows.shape, rows.nbytes] for name, rows in arrays.items()}
        save_checkpoint(file, packed, {"seen": self.seen, "arrays": kinds})

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            TrainingError: The file is missing or damaged.
        """
        packed, meta = load_checkpoint(file)
        rows = dict[str, torch.Tensor]()
        for name, (kind, shape, size) in meta["arrays"].items():
            data = bytearray(pa.decompress(packed[name].numpy(), size, "zstd"))
            rows[name] = torch.from_numpy(np.ndarray(shape, kind, data))
        return cls(rows, meta["seen"])


class ReplayFeed(Feed):
    """New examples and replayed ones, as batches for one model.

    Args:
        encoders, graph, needs, spec, moments: Of the new examples, see `Feed`.
        examples: New examples.
        memory: What is replayed.
        number: Rows to replay.
        seed: Seed of their choice.

    Example:
        >>> from mgoe.training import Feed, Replay, ReplayFeed
        >>> model, valid = bundle.model, prepared.examples("valid")
        >>> memory = Replay.of(Feed(prepared, graph, valid, model.needs, model.spec), most=10)
        >>> both = ReplayFeed(prepared, graph, valid, model.needs, model.spec, memory, number=5, seed=0)
        >>> len(both) == len(valid) + 5
        True
    """

    def __init__(
        self,
        encoders: Encoders,
        graph: MacroGraph,
        examples: Examples,
        needs: frozenset[str],
        spec: FeatureSpec,
        memory: Replay,
        number: int,
        seed: int,
        moments: Mapping[int, Moments] | None = None,
    ):
        both = join([examples, memory.examples(number, examples, seed)])
        super().__init__(encoders, graph, both, needs, spec, moments)
        self.memory = memory

    def _read_snapshot(self, number: int, part: Examples) -> Arrays:
        if number != STORED:
            return super()._read_snapshot(number, part)
        beside = ("labels", "weight", "position")
        return {
            name: values[part.user].numpy() for name, values in self.memory.rows.items() if name not in beside
        }


def _stacked(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(as_wide(one.numpy(), other.numpy())))
