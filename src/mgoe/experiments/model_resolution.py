"""Which models a run compares, with nothing left open."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mgoe.config import ModelSettings, RunSettings
from mgoe.data import Prepared
from mgoe.errors import ConfigError
from mgoe.models import BASES, BoostedTrees, resolve

IDS_MIN_POSITIVES = 50
"""Positives of the median training user and item from which on `ids: auto` keeps ids: on a log with 19 and 9 they overfit."""


def named_models(settings: RunSettings) -> list[ModelSettings]:
    """The models of a run, inputs and options filled in.

    Raises:
        ConfigError: A model or an option is unknown, or two rows share a name.
    """
    models = [resolve(model) for model in settings.models]
    names = [model.name for model in models]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated:
        raise ConfigError(
            "models", f"each row needs a name of its own, found {repeated!r} twice; give one another `name`"
        )
    return models


def model_rows(settings: RunSettings, prepared: Prepared) -> list[ModelSettings]:
    """The same with ids decided: nothing is left open."""
    return decided(named_models(settings), prepared)


def decided(models: Sequence[ModelSettings], prepared: Prepared) -> list[ModelSettings]:
    """Resolved models with `ids` decided by what a log holds."""
    pay = ids_pay(prepared) if any(model.ids == "auto" for model in models) else True
    keep: dict[str | None, bool] = {"on": True, "off": False, "auto": pay}
    return [
        model if keep[model.ids] else model.model_copy(update={"inputs": _without_ids(model.inputs or ())})
        for model in models
    ]


def is_boosted(model: ModelSettings) -> bool:
    """Whether a resolved model is one of trees."""
    return BASES.get(model.base) is BoostedTrees


def check_bundled(model: ModelSettings) -> None:
    """See that a model can go into a bundle.

    Raises:
        ConfigError: It is one of trees, which no bundle holds.
    """
    if is_boosted(model):
        rule = "a bundle holds a model of weights, found boosted trees; name another model first, and this one after it to compare"
        raise ConfigError(f"models.{model.name}", rule)


def ids_pay(prepared: Prepared) -> bool:
    """Whether the median user and the median item have enough training positives to learn an embedding from (ours)."""
    counts = [np.zeros(vocabulary.size, np.int64) for vocabulary in (prepared.users, prepared.items)]
    for train in prepared.streamed("train").parts():
        done = (np.nan_to_num(train.labels) > 0).any(axis=1)
        for count, codes in zip(counts, (train.user, train.item), strict=True):
            count += np.bincount(codes[done], minlength=len(count))
    medians = [np.median(count[count > 0]) if count.any() else 0 for count in counts]
    return bool(min(medians) >= IDS_MIN_POSITIVES)


def _without_ids(inputs: Sequence[str]) -> tuple[str, ...]:
    return tuple(group for group in inputs if group != "ids")
