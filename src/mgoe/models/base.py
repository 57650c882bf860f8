"""The contract between models and the trainer, the comparison and the exporter."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgoe.config import Settings
from mgoe.models.decomposition import Decomposition
from mgoe.models.spec import Batch, FeatureSpec, batch_keys


class RankingModel(nn.Module, ABC):
    """A multi-task ranking model over named batches.

    A model of your own sets `Options` (its switches), takes `(spec, inputs, options)` and defines `logits`.
    It must treat each row of a batch alone: a prediction may not depend on the other rows.

    Args:
        spec: Describes the batches.
        inputs: The input groups to read.
        options: The model's switches.

    Example:
        >>> from mgoe.models import BASES
        >>> [name for name, kind in BASES.items() if kind.requires]
        ['din', 'macgnn', 'rates', 'popularity', 'history', 'constant']
    """

    Options: ClassVar[type[Settings]] = Settings
    requires: ClassVar[frozenset[str]] = frozenset()
    """Input groups that it needs."""
    probabilistic: ClassVar[bool] = True
    """Whether predictions of binary tasks are probabilities; otherwise only their order means something."""

    def __init__(self, spec: FeatureSpec, inputs: Iterable[str], options: Settings):
        super().__init__()
        self.spec = spec
        self.options = options
        self.needs: frozenset[str] = frozenset(inputs)
        tasks = spec.tasks
        regression = [task.kind == "regression" for task in tasks]
        self.means = nn.Buffer(torch.tensor([task.mean for task in tasks]), persistent=False)
        self.stds = nn.Buffer(torch.tensor([task.std for task in tasks]), persistent=False)
        self.task_weights = nn.Buffer(torch.tensor([task.weight for task in tasks]), persistent=False)
        self.regression = nn.Buffer(torch.tensor(regression), persistent=False)
        self.tops = nn.Buffer(torch.tensor([task.top for task in tasks]), persistent=False)
        self.has_regression = any(regression)  # reading the buffer would wait for the device
        self.bias = nn.Embedding(spec.positions, len(tasks)) if spec.positions else None
        if self.bias is not None:
            nn.init.zeros_(self.bias.weight)

    @abstractmethod
    def logits(self, batch: Batch) -> Tensor:
        """Return the logit of each binary task and the standardised value of each regression.

        Shape (B, T).
        """

    def forward(self, batch: Batch) -> Tensor:
        """Return `logits` in float32, plus the bias of the shown position if the batch has one.

        Shape (B, T).
        """
        return self.at_position(self.logits(batch).float(), batch)

    def at_position(self, raw: Tensor, batch: Batch) -> Tensor:
        """Return `raw` (B, T) plus the bias of the shown position if the batch has one.

        An unknown position, -1, has none. Shape (B, T).
        """
        position = batch.get("position")
        if self.bias is None or position is None:
            return raw
        bias = self.bias(position.clamp(0, self.spec.positions - 1))
        return raw + bias.where(position[:, None] >= 0, 0)

    def loss(self, batch: Batch, totals: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the weighted sum over tasks of the mean loss over a task's valid labels.

        The mean is weighted by `weight` (B,). A label is valid if it is not NaN; a task without valid labels
        has loss 0.

        Args:
            batch: Batch with labels.
            totals: Weight of all valid labels per task, (T,), if the batch is part of a larger one: the
                losses of the parts then add up to that of the whole.

        Returns:
            The total, a scalar, and the loss of each task before its weight, (T,).
        """
        labels = self.targets(batch)
        valid = ~labels.isnan()
        each = self.errors(self(batch), torch.where(valid, labels, 0.0), valid)
        weight = batch["weight"][:, None] * valid
        losses = (each * weight).sum(0) / (weight.sum(0) if totals is None else totals).clamp_min(1e-12)
        return (losses * self.task_weights).sum(), losses

    def targets(self, batch: Batch) -> Tensor:
        """Return the labels that the loss compares with predictions, NaN where missing. Shape (B, T)."""
        return batch["labels"]

    def errors(self, raw: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        """Return the loss of each label; labels that are not valid are 0 and do not count.

        All (B, T).
        """
        each = F.binary_cross_entropy_with_logits(raw, labels, reduction="none")
        if self.has_regression:
            each = torch.where(
                self.regression, (raw - (labels.minimum(self.tops) - self.means) / self.stds).square(), each
            )
        return each

    @torch.no_grad()
    def predict(self, batch: Batch) -> Tensor:
        """Return the probability of each binary task and the value of each regression in its unit.

        Shape (B, T). The position is ignored. A task with a sample space (`given`) is predicted within it.
        """
        return self.in_units(self.logits(batch).float())

    def in_units(self, raw: Tensor) -> Tensor:
        """Map `logits` to probabilities, and to values in the label's unit from 0 to `tops`. Shape (B, T)."""
        return torch.where(
            self.regression, (raw * self.stds + self.means).clamp(0).minimum(self.tops), raw.sigmoid()
        )

    def expert_weights(self, batch: Batch) -> Tensor | None:
        """Return the weight of each expert per task, (B, T, S), or (B, 1, S) if tasks share one gate; None
        without gates."""
        return None

    @torch.no_grad()
    def watch(self, batch: Batch) -> dict[str, Tensor]:
        """Return what the report shows of the model's inside: `gates`, the mean weight of each expert per
        task, (T, S)."""
        weights = self.expert_weights(batch)
        return {} if weights is None else {"gates": weights.mean(0).expand(len(self.spec.tasks), -1)}

    def decompose(self) -> Decomposition:
        """Return the model in parts that a service can compute ahead of requests; by default one part."""
        return Decomposition(self, batch_keys(self.spec, self.needs))

    def explain(self, batch: Batch) -> dict[str, Tensor]:
        """Return what contributed to each prediction; nothing by default.

        Returns:
            Any of these, one row per pair: `gates` (B, T, S); weights of macro nodes `u1`, `u2`, `i1`, `i2`
                (B, K), the mean over experts if these differ; weights of recent neighbours `recent_items`,
                `recent_users` (B, R).
        """
        return {}

    def tables(self) -> list[nn.Parameter]:
        """Return the embedding tables, whose gradients are sparse by row."""
        return [p for m in self.modules() if isinstance(m, nn.Embedding) and m.sparse for p in m.parameters()]

    def dense(self) -> list[nn.Parameter]:
        """Return all parameters except the tables."""
        tables = {id(p) for p in self.tables()}
        return [p for p in self.parameters() if id(p) not in tables]

    @property
    def size(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.parameters())
