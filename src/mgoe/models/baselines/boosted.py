"""Gradient-boosted trees (LightGBM: Ke et al., NeurIPS 2017): the practitioner's baseline, on simple
counts."""

import re
from collections.abc import Collection
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from mgoe.config import Settings
from mgoe.errors import ConfigError
from mgoe.models.base import RankingModel
from mgoe.models.layers.inputs import DenseInputs
from mgoe.models.spec import Batch, FeatureSpec


class BoostedTreesOptions(Settings):
    """Switches of boosted trees.

    Example:
        >>> BoostedTreesOptions(rounds=100).leaves
        63
    """

    rounds: int = Field(default=1000, ge=1)
    """Largest number of trees per task."""
    patience: int = Field(default=50, ge=1)
    """Trees without a better value on validation before stopping."""
    learning_rate: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    """Weight of each further tree."""
    leaves: int = Field(default=63, ge=2)
    """Largest number of leaves of a tree."""
    leaf_rows: int = Field(default=100, ge=1)
    """Smallest number of training examples of a leaf."""
    share: float = Field(default=0.8, gt=0, le=1)
    """Share of the rows, and of the columns, that a tree sees; drawn by the seed."""


class Booster(Protocol):
    """The interface of `lightgbm.Booster` that is used."""

    def predict(self, data: NDArray[np.float32], **kwargs: Any) -> Any: ...
    def model_to_string(self) -> str: ...
    def num_trees(self) -> int: ...


class BoostedTrees(RankingModel):
    """One ensemble of trees per task; tasks share nothing.

    Trees read dense inputs and single-valued categories unchanged. They ignore features with several
    categories per row, ids, recents and the macro task table. Gradients train nothing here:
    `mgoe.training.fit_trees` sets `boosters`. Until then, and for a task without any label, every logit is 0.
    A regression is fitted by squared error on the standardised label. The bias of the shown position is not
    learned.

    Example:
        >>> from mgoe.models import make_model, resolve
        >>> sorted(make_model(resolve("lightgbm"), spec, seed=0).needs)
        ['content', 'context', 'counts', 'pair', 'side']
    """

    Options = BoostedTreesOptions
    options: BoostedTreesOptions

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: BoostedTreesOptions):
        read: list[str] = [group for group in inputs if group not in ("ids", "recents")]
        super().__init__(spec, read, options)
        self.bias = None
        dense = DenseInputs(spec, read, 1, edge_vectors=True)  # names the columns
        self.keys = dense.keys
        self.categories = [key.name for key in dense.embedded if not key.multi]
        self.columns = [
            f"{key}_{column}" for key in self.keys for column in range(spec.widths[key])
        ] + self.categories
        if not self.columns:
            raise ConfigError(
                "inputs", f"leave the model nothing to read, found {sorted(inputs)}; add `counts`"
            )
        self.boosters: list[Booster | None] = [None] * len(spec.tasks)

    def features(self, batch: Batch) -> NDArray[np.float32]:
        """Return what trees read, with the columns named by `columns`. Shape (B, F)."""
        numbers = [batch[key].float() for key in self.keys]
        return torch.cat(numbers + [batch[key][:, None].float() for key in self.categories], 1).cpu().numpy()

    def logits(self, batch: Batch) -> Tensor:
        return self.grown(self.features(batch)).to(self.means.device)

    def grown(self, features: NDArray[np.float32]) -> Tensor:
        """Return the logits of the ensembles, (B, T), for features (B, F)."""
        found = torch.zeros(len(features), len(self.boosters))
        for t, booster in enumerate(self.boosters):
            if booster is not None:
                found[:, t] = torch.from_numpy(
                    booster.predict(features, raw_score=True, num_threads=torch.get_num_threads())
                )
        return found

    @property
    def size(self) -> int:
        """Number of values: one per leaf, and a column and a threshold per split."""
        leaves = re.findall(r"^num_leaves=(\d+)", "\n".join(self.texts().values()), re.MULTILINE)
        return sum(3 * int(count) - 2 for count in leaves)

    def texts(self) -> dict[str, str]:
        """Return each task's ensemble in LightGBM's text form, by task."""
        return {
            task.name: booster.model_to_string()
            for task, booster in zip(self.spec.tasks, self.boosters, strict=True)
            if booster is not None
        }
