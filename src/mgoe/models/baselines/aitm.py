"""AITM, the adaptive information transfer multi-task framework (Xi et al., KDD 2021, arXiv 2105.08489)."""

from collections.abc import Collection
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mgoe.models.baselines.funnel import FunnelOptions, parents
from mgoe.models.baselines.single_task import SingleTask
from mgoe.models.layers.towers import Transfer
from mgoe.models.spec import FeatureSpec


class AITMOptions(FunnelOptions):
    """Switches of AITM."""

    calibrator: float = Field(default=0.6, ge=0, allow_inf_nan=False)
    """alpha, the weight of the behavioural expectation calibrator."""


class AITM(SingleTask):
    """Single-task networks over shared embeddings, each receiving information from the one before.

    ```text
    z_1 = q_1    p_t = ReLU(W_t z_(t-1))    z_t = sum_v w(v) (V_t v) over v in (p_t, q_t)
    y_t = sigmoid(u_t z_t)
    w   = softmax over v of <K_t v, Q_t v> / sqrt(d)
    loss = cross entropies + alpha sum_t mean max(y_t - y_parent(t), 0)
    ```

    Here `q_t` is the last layer of network t (`Towers` holds the attention). The calibrator penalises a
    behaviour that is more likely than the one it follows from. In the paper that is the previous task, since
    no card is activated without approval; here `funnel` decides, since more is bought than favoured. It is
    part of the later task's loss, on rows where both labels are valid, and only between two binary tasks over
    all exposures: a task with `given` and a regression are in no such order. A regression takes part in the
    transfer like any other task. Networks have the layers of an MMoE expert and of a tower.
    """

    Options = AITMOptions
    options: AITMOptions
    transfer: ClassVar[Transfer] = "aitm"
    parent: Tensor
    follows: Tensor

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: AITMOptions):
        super().__init__(spec, inputs, options)
        tasks = spec.tasks
        of = [
            None if task.given is not None or parent is None or tasks[parent].given is not None else parent
            for task, parent in zip(tasks, parents(tasks, options.funnel), strict=True)
        ]
        self.register_buffer("parent", torch.tensor([parent or 0 for parent in of]), persistent=False)
        self.register_buffer("follows", torch.tensor([p is not None for p in of]), persistent=False)

    def errors(self, raw: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        """Add the calibrator. Shape (B, T)."""
        share = raw.sigmoid()
        excess = (share - share[:, self.parent]).relu() * (self.follows & valid & valid[:, self.parent])
        return super().errors(raw, labels, valid) + self.options.calibrator * excess
