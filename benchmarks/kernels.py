"""The stages of a build as bare kernels: what a good engineer writes for this one task, in memory, with
numba, BLAS and faiss.

From coded events (user, item, task) come scores, a sketch, macro nodes, and edges of both orders. Left out
is all that makes a library: fixed-point sums, bounds on memory, neighbours, counts, the macro task table, a
saved result. What is counted begins with reading the coded Parquet; compiling is not.

Axes: `E` distinct pairs, `U` users, `I` items, `K` macro nodes, `D` rank.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import faiss
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.cluster import kmeans_plusplus

from benchmarks import compiled

RANK, POWER_ITERATIONS, OVERSAMPLING, SHARE = 64, 2, 8, 0.2
_TASKS = 4
_SEEDING = 10_000  # nodes that k-means++ looks at
_ITERATIONS = 20


@dataclass(frozen=True)
class Rows:
    """A sparse matrix of scores, row after row.

    Attributes:
        indptr: Shape (rows + 1,).
        other: Columns. Shape (E,).
        score: Shape (E,).
    """

    indptr: NDArray[np.int64]
    other: NDArray[np.int32]
    score: NDArray[np.float32]

    def __matmul__(self, dense: NDArray[np.float32]) -> NDArray[np.float32]:
        return compiled.product(self.indptr, self.other, self.score, np.ascontiguousarray(dense, np.float32))

    def transposed(self, columns: int) -> Rows:
        return Rows(*compiled.transposed(self.indptr, self.other, self.score, columns))


@dataclass
class Result:
    """What the kernels found, each array by side, and the seconds of each stage."""

    macro: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    first: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    second: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count a block's seconds."""
        started = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


def run(history: Path, k: int, rank: int = RANK, seed: int = 0) -> Result:
    """All stages from coded events.

    Args:
        history: Parquet with `user`, `item` and `task`; every code below the largest occurs.
        k: Macro nodes of either side.
        rank: Of the sketch.
        seed: Of sketch and clusters.
    """
    done = Result()
    with done.stage("scores and 1st order"):
        by_user = scores(*read(history))
        by_item = by_user.transposed(int(by_user.other.max()) + 1)
    with done.stage("sketch"):
        vectors = dict(zip(("user", "item"), sketch(by_user, by_item, rank, seed), strict=True))
    with done.stage("clusters"):
        done.macro = {side: cluster(rows, k, seed) for side, rows in vectors.items()}
    with done.stage("scores and 1st order"):
        done.first["user"] = first_order(by_user, done.macro["item"], k)
        done.first["item"] = first_order(by_item, done.macro["user"], k)
    with done.stage("2nd order"):
        done.second["user"] = second_order(by_user, done.first["item"], done.macro["user"])
        done.second["item"] = second_order(by_item, done.first["user"], done.macro["item"])
    return done


def read(history: Path) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int8]]:
    """Users, items and tasks of the events."""
    table = pq.read_table(history, columns=["user", "item", "task"])
    user, item, task = (
        np.require(table[name].to_numpy(), requirements="W") for name in ("user", "item", "task")
    )
    return user, item, task


def scores(user: NDArray[np.int32], item: NDArray[np.int32], task: NDArray[np.int8]) -> Rows:
    """Distinct pairs by user, then item, scored ln(1 + sum of the ranks of the tasks done), ranks 1, 2 ...
    T.
    """
    codes = np.arange(1 << _TASKS)[:, None] >> np.arange(_TASKS) & 1
    table = np.log1p(codes @ np.arange(1, _TASKS + 1)).astype(np.float32)
    return Rows(*compiled.scores(user, item, task, int(user.max()) + 1, table))


def sketch(
    by_user: Rows, by_item: Rows, rank: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Unit vectors of users and items: a randomised SVD of a fifth of the users, degree-normalised; all
    users projected.

    Returns:
        Shapes (U, D), (I, D).
    """
    rng = np.random.default_rng(seed)
    users, items = len(by_user.indptr) - 1, len(by_item.indptr) - 1
    scale_user, scale_item = (
        1 / np.sqrt(compiled.sums(rows.indptr, rows.score))[:, None] for rows in (by_user, by_item)
    )
    chosen = np.flatnonzero(rng.random(users) < SHARE)
    part = Rows(*compiled.rows_of(by_user.indptr, by_user.other, by_user.score, chosen))
    back, scale_part = part.transposed(items), scale_user[chosen]
    basis = orthonormal(
        (part @ (scale_item * rng.standard_normal((items, rank + OVERSAMPLING), np.float32))) * scale_part
    )
    for _ in range(POWER_ITERATIONS):
        basis = orthonormal((back @ (scale_part * basis)) * scale_item)
        basis = orthonormal((part @ (scale_item * basis)) * scale_part)
    profile = (back @ (scale_part * basis)) * scale_item
    rotation, strength = principal(profile)
    right = profile @ (rotation / strength)[:, :rank].astype(np.float32)
    projected = (by_user @ (scale_item * right)) * scale_user
    return unit(projected), unit(right * strength[:rank].astype(np.float32))


def principal(columns: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Right singular vectors and singular values, falling, without those of rounding."""
    wide = columns.astype(np.float64)
    squares, rotation = np.linalg.eigh(wide.T @ wide)
    strength = np.sqrt(np.maximum(squares[::-1], 0))
    span = int((strength > 1e-6 * strength[0]).sum())
    return rotation[:, ::-1][:, :span], strength[:span]


def orthonormal(columns: NDArray[np.float32]) -> NDArray[np.float32]:
    """A basis of the columns' span."""
    rotation, strength = principal(columns)
    return columns @ (rotation / strength).astype(np.float32)


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-20)


def cluster(rows: NDArray[np.float32], k: int, seed: int) -> NDArray[np.int64]:
    """Spherical k-means by faiss on its own sample (256 rows a centre), from k-means++ seeds; then every row
    to its nearest centre.
    """
    rows = np.ascontiguousarray(rows, np.float32)
    sample = (
        rows
        if len(rows) <= _SEEDING
        else rows[np.random.default_rng(seed).choice(len(rows), _SEEDING, replace=False)]
    )
    start = kmeans_plusplus(sample, k, random_state=seed)[0]
    kmeans = faiss.Kmeans(
        rows.shape[1], k, niter=_ITERATIONS, spherical=True, seed=seed, min_points_per_centroid=1
    )
    kmeans.train(rows, init_centroids=np.ascontiguousarray(start, np.float32))
    return kmeans.assign(rows)[1]


def first_order(rows: Rows, macro: NDArray[np.integer], k: int) -> NDArray[np.float32]:
    """Score between each row and each macro node of the other side. Shape (rows, K)."""
    return compiled.first_order(rows.indptr, rows.other, rows.score, macro, k)


def second_order(rows: Rows, edges: NDArray[np.float32], own: NDArray[np.integer]) -> NDArray[np.float32]:
    """The same over two steps, less the way back to the row itself. Shape (rows, K)."""
    out = rows @ edges
    compiled.take_way_back(rows.indptr, rows.score, own, out)
    return out


def main() -> None:
    """Run the kernels on a coded history, after a run on a little of it that compiles them; print the
    seconds of each stage.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("history", type=Path)
    parser.add_argument("warm_up", type=Path)
    parser.add_argument("--macro-nodes", type=int, default=100)
    options = parser.parse_args()
    run(options.warm_up, 2, rank=8)
    print(json.dumps(run(options.history, options.macro_nodes).seconds))


if __name__ == "__main__":
    main()
