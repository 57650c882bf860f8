"""Two rows that put a simulated log's table in proportion: chance, and the best that any model can reach."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mgoe.config import RunSettings, seconds
from mgoe.data import Prepared
from mgoe.evaluation import Row, measure
from mgoe.simulate import Truth, reachable


def reference_rows(settings: RunSettings, prepared: Prepared) -> list[Row]:
    """Rows of `chance` and `best-reachable` on validation and test where `data.truth` names a simulated world, else none."""
    return list(_rows(settings, prepared)) if settings.data.truth is not None else []


def _rows(settings: RunSettings, prepared: Prepared) -> Iterator[Row]:
    truth = Truth.open(Path(settings.data.truth or ""))
    for split in ("valid", "test"):
        examples = prepared.examples(split)
        users = prepared.users.ids(examples.user).to_numpy(zero_copy_only=False)
        items = prepared.items.ids(examples.item).to_numpy(zero_copy_only=False)
        times = (examples.bucket.astype(np.int64) * seconds(settings.data.bucket)).astype("datetime64[s]")
        best = reachable(truth, settings, users, items, times)
        for model, scores in (("chance", np.full_like(best, 0.5)), ("best-reachable", best)):
            yield from measure(scores, examples.labels, examples.user, settings.tasks, model=model, seed=settings.seeds[0], split=split)
