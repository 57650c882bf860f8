"""A small log with the shapes of the real one: snapshots, examples, side features and a model, all made from
a seed."""

from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

from mgoe.config import TaskSettings
from mgoe.config.base import Settings
from mgoe.data import ExampleFile, Examples
from mgoe.data.example_file import ExampleWriter
from mgoe.graph import Resolution, Snapshot
from mgoe.models import FeatureSpec, TaskSpec
from mgoe.training import Feed

TASKS = (TaskSpec("click"), TaskSpec("buy"))
USERS, ITEMS, SNAPSHOTS = 60, 40, 4


def make_snapshot(number: int) -> Snapshot:
    """Return a snapshot that knows the first nodes only and writes its number into their counts."""
    users, items = USERS * (number + 1) // SNAPSHOTS, ITEMS * (number + 1) // SNAPSHOTS
    u, i = np.arange(users), np.arange(items)
    arrays = {
        "pairs.task_mask": np.zeros(0, np.uint8),
        "user_counts": np.stack([u, np.full(users, number)], axis=1).astype(np.float32) / 10,
        "item_counts": i[:, None].astype(np.float32) / 10,
        "recent_items": np.stack([u % items, np.full(users, -1)], axis=1).astype(np.int32),
        "recent_users": np.stack([i % users, np.full(items, -1)], axis=1).astype(np.int32),
    }
    for side, nodes in (("user", u), ("item", i)):
        other = "items" if side == "user" else "users"
        arrays[f"recent_{other}_task_mask"] = np.zeros((len(nodes), 2), np.uint8)
        arrays |= {f"{side}_{name}": np.zeros(len(nodes), np.float32) for name in ("sum", "second_sum")}
        arrays |= {
            f"{side}_{name}": np.zeros(len(nodes), int) for name in ("first", "last", "total", "again")
        }
        arrays |= {f"{side}_{name}": np.zeros((len(nodes), 1)) for name in ("table", "vectors", "ages")}
        arrays |= {f"{side[0]}{order}": np.zeros((len(nodes), 1), np.float16) for order in (1, 2)}
    nothing = np.zeros(0)
    dense = Resolution(**{
        **{field.name: nothing for field in fields(Resolution)},
        "user_macro": u % 5, "item_macro": i % 4, "user_mass": np.zeros(5), "item_mass": np.zeros(4),
    })  # fmt: skip
    return Snapshot(arrays, (dense,), 0, number, 1, np.zeros(2), number + 1)


def make_encoders(**features: tuple[str, int]) -> SimpleNamespace:
    """Names and sizes of features: kind and number of codes by name."""
    return SimpleNamespace(
        features=[SimpleNamespace(name=name, kind=kind) for name, (kind, _) in features.items()],
        sizes={name: size for name, (kind, size) in features.items() if kind != "numeric"},
        spaces={},
    )


class Side:
    """One category and one number per node."""

    def __init__(self, size: int):
        self.size = size
        numbers = np.linspace(-1, 1, size, dtype=np.float32)[:, None]
        self.arrays = {"kind": np.arange(size) % 3 + 1, "numeric": numbers}
        self.encoders = make_encoders(kind=("categorical", 4), price=("numeric", 0))

    def column(self, name: str, codes: np.ndarray) -> np.ndarray:
        values = self.arrays[name]
        known = ((codes >= 0) & (codes < self.size)).reshape(-1, *[1] * (values.ndim - 1))
        return np.where(known, values[np.clip(codes, 0, self.size - 1)], 0).astype(values.dtype)


GRAPH = SimpleNamespace(
    snapshots=[make_snapshot(number) for number in range(SNAPSHOTS)],
    manifest=SimpleNamespace(settings=SimpleNamespace(recents=2)),
    checksum="of a fake",
    task_mask_scores=(0.0, 1.0, 2.0, 3.0),
)
PREPARED = SimpleNamespace(
    user_side=Side(USERS),
    item_side=Side(ITEMS),
    context_features=make_encoders(hour=("categorical", 24), tags=("multi", 7), speed=("numeric", 0)),
    cuts=np.arange(SNAPSHOTS - 1, dtype=np.int32),
    valid_window=SNAPSHOTS - 3,
    users_at=np.array([snapshot.n_users for snapshot in GRAPH.snapshots]),
    items_at=np.array([snapshot.n_items for snapshot in GRAPH.snapshots]),
    settings={"tasks": [{"name": "click"}, {"name": "buy", "weight": 2.0, "given": "click"}]},
    streamed=lambda split: make_examples(500, seed={"train": 3, "valid": 4, "test": 5}[split[0]]),
)
SPEC = FeatureSpec(
    TASKS, USERS - 10, ITEMS - 5, macro_users=5, macro_items=4, recents=2, widths={}, moments={}
)
NEEDS = frozenset({"ids", "side", "context", "counts", "recents"})


def make_examples(count: int, seed: int = 0, snapshots: int = SNAPSHOTS) -> Examples:
    """Labels that follow users and items, so that there is something to learn; some are missing."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, USERS, count), rng.integers(0, ITEMS, count)
    logit = np.sin(user)[:, None] + np.cos(item)[:, None] * [2.0, 1.0] - [0.0, 0.5]
    labels = (rng.random((count, 2)) < 1 / (1 + np.exp(-2 * logit))).astype(np.float32)
    labels[rng.random((count, 2)) < 0.05] = np.nan
    snapshot = rng.integers(0, snapshots, count).astype(np.int16)
    context = {"hour": rng.integers(0, 24, count), "numeric": rng.random((count, 2), np.float32)}
    weight = np.arange(1, count + 1, dtype=np.float32)
    return Examples(
        user, item, snapshot.astype(np.int32), snapshot, labels, weight, context, rng.integers(0, 9, count)
    )


def make_feed(count: int, seed: int = 0, snapshots: int = SNAPSHOTS, needs: frozenset[str] = NEEDS) -> Feed:
    return Feed(PREPARED, GRAPH, make_examples(count, seed, snapshots), needs, SPEC)  # type: ignore[arg-type]


def write_shards(folder: Path, count: int, seed: int, group: int = 50, shards: int = 3) -> Path:
    """Write the rows of `make_examples` to shards; return the folder of the split."""
    examples = make_examples(count, seed)
    tasks = [TaskSettings(name=task.name) for task in TASKS]
    split = folder / "shards" / "train.parquet"
    split.mkdir(parents=True)
    for shard, rows in enumerate(np.array_split(np.arange(count), shards)):
        with ExampleWriter(folder, np.arange(SNAPSHOTS + 2, dtype=np.int32), tasks) as writer:
            for first in range(0, len(rows), group):
                part = examples.take(rows[first : first + group])
                columns = part.labels, part.weight, part.position
                writer.write(part.user, part.item, part.snapshot + 1, *columns, context=part.context)
        (folder / "train.parquet").rename(split / f"part-{shard:05d}.parquet")
    return split


def make_streamed_feed(path: Path, window_rows: int = 600) -> Feed:
    """Stream what `write_shards` wrote."""
    names = [task.name for task in TASKS]
    file = ExampleFile(path, names, window_rows * ExampleFile(path, names, 1).row_bytes)
    return Feed(PREPARED, GRAPH, file, NEEDS, SPEC)  # type: ignore[arg-type]


class Options(Settings):
    """Of the model."""

    dropout: float


class Model(nn.Module):
    """Two tables with sparse gradients, a scale that all tasks read and a linear head, on the contract of all
    models."""

    needs = NEEDS

    def __init__(self, seed: int = 0, dropout: float = 0.0):
        super().__init__()
        self.spec, self.options = SPEC, Options(dropout=dropout)
        self.register_buffer("task_weights", torch.ones(len(TASKS)), persistent=False)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.users = nn.Embedding(SPEC.n_users + 1, 8, sparse=True)
            self.items = nn.Embedding(SPEC.n_items + 1, 8, sparse=True)
            self.head = nn.Linear(8 + 8 + 3, len(TASKS))
            self.scale = nn.Parameter(torch.ones(8 + 8 + 3))
            self.dropout = nn.Dropout(dropout)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        inputs = [self.users(batch["user"]), self.items(batch["item"]), batch["counts"]]
        return self.head(self.dropout(torch.cat(inputs, dim=1) * self.scale))

    def loss(self, batch: dict[str, Tensor], totals: Tensor | None = None) -> tuple[Tensor, Tensor]:
        labels = batch["labels"]
        weight = batch["weight"][:, None] * ~labels.isnan()
        each = nn.functional.binary_cross_entropy_with_logits(
            self(batch).float(), labels.nan_to_num(), reduction="none"
        )
        of_tasks = (each * weight).sum(0) / (weight.sum(0) if totals is None else totals).clamp(min=1e-12)
        return of_tasks.sum(), of_tasks

    def targets(self, batch: dict[str, Tensor]) -> Tensor:
        return batch["labels"]

    def predict(self, batch: dict[str, Tensor]) -> Tensor:
        return torch.sigmoid(self(batch))

    def tables(self) -> list[nn.Parameter]:
        return [self.users.weight, self.items.weight]

    def dense(self) -> list[nn.Parameter]:
        return [self.scale, *self.head.parameters()]

    def watch(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"bias": self.head.bias.detach()}
