"""Two reference rows for a simulated log: chance, and the best that any model can reach."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mgoe.config import RunSettings, seconds
from mgoe.data import Examples, Prepared
from mgoe.evaluation import Row, measure
from mgoe.simulation import Truth, reachable


def reference_rows(settings: RunSettings, prepared: Prepared) -> list[Row]:
    """Return rows of `chance` and `best-reachable` on validation and test.

    There are none unless `data.truth` names a simulated world. Chance predicts one half for every example,
    and for a regression the mean of the training labels.
    """
    return list(_rows(settings, prepared)) if settings.data.truth is not None else []


def _rows(settings: RunSettings, prepared: Prepared) -> Iterator[Row]:
    truth = Truth.open(Path(settings.data.truth or ""))
    chance = _chance(settings, prepared)
    for split in ("valid", "test"):
        examples = prepared.examples(split)
        users = prepared.users.ids(examples.user).to_numpy(zero_copy_only=False)
        items = prepared.items.ids(examples.item).to_numpy(zero_copy_only=False)
        times = (examples.bucket.astype(np.int64) * seconds(settings.data.bucket)).astype("datetime64[s]")
        best = reachable(truth, settings, users, items, times, _devices(prepared, examples))
        for model, scores in (("chance", np.broadcast_to(chance, best.shape)), ("best-reachable", best)):
            yield from measure(
                scores,
                examples.labels,
                examples.user,
                settings.tasks,
                model=model,
                seed=settings.seeds[0],
                split=split,
            )


def _chance(settings: RunSettings, prepared: Prepared) -> NDArray[np.float64]:
    """Return the prediction of chance for each task. Shape (T,)."""
    labels = prepared.streamed("train").labels
    binary = (task.kind == "binary" for task in settings.tasks)
    return np.array(
        [0.5 if half else np.nanmean(labels[:, t], dtype=np.float64) for t, half in enumerate(binary)]
    )


def _devices(prepared: Prepared, examples: Examples) -> NDArray[np.object_] | None:
    """Return the names of devices if models read them, null where models do not know them either."""
    features = prepared.context_features
    if "device" not in features.names("categorical"):
        return None
    names = features.vocabularies["device"].ids(examples.context["device"].astype(np.int64) - 1)
    return np.array(names.to_pylist(), object)
