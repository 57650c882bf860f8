"""Baselines whose tasks follow from each other: ESMM multiplies along this order, AITM calibrates by it."""

from collections.abc import Collection, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mgoe.models.baselines.flat import LayerOptions, SingleTask
from mgoe.models.layers.stacked import Transfer
from mgoe.models.spec import Batch, FeatureSpec, TaskSpec


class FunnelOptions(LayerOptions):
    """Switches of a model with a funnel.

    Example:
        >>> FunnelOptions(width=8).width
        8
    """

    funnel: Literal["first", "chain"] = "first"
    """What a task without `given` follows from: the first binary task, as conversions follow from a click,
    or, in a `chain`, the binary task before it. A chain fits if every behaviour presupposes the one before,
    unlike favouring and buying."""


def parents(tasks: Sequence[TaskSpec], funnel: Literal["first", "chain"]) -> list[int | None]:
    """Return the task that each task follows from.

    None for the first binary task, for regressions, and for tasks given by a regression.
    """
    found: list[int | None] = []
    for t, task in enumerate(tasks):
        steps = [step for step, earlier in enumerate(tasks[:t]) if earlier.kind == "binary"]
        default = None if not steps else steps[0 if funnel == "first" else -1]
        parent = default if task.given is None else task.given
        follows = task.kind == "binary" and parent is not None and tasks[parent].kind == "binary"
        found.append(parent if follows else None)
    return found


class ESMM(SingleTask):
    """ESMM, the entire space multi-task model (Ma et al., SIGIR 2018, arXiv 1804.07931).

    Towers for the probability of each step, multiplied along the funnel: `p(ctcvr) = p(ctr) p(cvr)`, over
    every exposure.

    ```text
    p_t = p_parent(t) sigmoid(c_t)          c_t: the logit of tower t
    ```

    The first binary task has no parent, so its probability is `sigmoid(c_t)`. A task's parent is its `given`
    if it has one, else what `funnel` says. The loss is that of `p_t` over all exposures, so the step is never
    trained on a selected sample:

    - a task without `given` has labels over all exposures, and `p_t` is its prediction;
    - a task with `given` has labels only where that task was done. Where that task is known not to be done,
      the label of `p_t` is 0. Its prediction is the step, `sigmoid(c_t)`, which is conditional as its labels
      are.

    A regression is no step of a funnel: it has a tower of its own, and no task follows from it. Towers are
    single-task networks over shared embeddings, as published, with the layers of an MMoE expert and a tower.

    Example:
        >>> from mgoe.models import neutral
        >>> ESMM(spec, ("ids", "side"), FunnelOptions()).predict(neutral(spec)).shape
        torch.Size([1, 2])
    """

    Options = FunnelOptions

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: FunnelOptions):
        super().__init__(spec, inputs, options)
        self.parents = parents(spec.tasks, options.funnel)
        self.conditional = nn.Buffer(
            torch.tensor([task.given is not None for task in spec.tasks]), persistent=False
        )

    def logits(self, batch: Batch) -> Tensor:
        steps = super().logits(batch).float()
        return torch.where(self.conditional, steps, self.product(steps))

    def forward(self, batch: Batch) -> Tensor:
        """Return logits of `p_t`, for the loss; the bias of the shown position is added to the steps.

        Shape (B, T).
        """
        return self.product(self.at_position(super().logits(batch).float(), batch))

    def targets(self, batch: Batch) -> Tensor:
        """Return labels over all exposures: 0 where a task could not be done. Shape (B, T)."""
        labels = list(batch["labels"].unbind(1))
        for t, task in enumerate(self.spec.tasks):
            if task.given is not None and task.given == self.parents[t]:
                labels[t] = torch.where(labels[t].isnan() & (labels[task.given] == 0), 0.0, labels[t])
        return torch.stack(labels, 1)

    def product(self, steps: Tensor) -> Tensor:
        """Map logits of the steps, (B, T), to logits of their products along the funnel, (B, T)."""
        found: list[Tensor] = []
        for parent, step in zip(self.parents, steps.unbind(1), strict=True):
            found.append(step if parent is None else logit_of_product(found[parent], step))
        return torch.stack(found, 1)


def logit_of_product(a: Tensor, b: Tensor) -> Tensor:
    """Return the logit of `sigmoid(a) sigmoid(b)`, exact near 0 and near 1.

    1/p - 1 is (1 + e^-a) (1 + e^-b) - 1 = e^-a + e^-b + e^-(a + b), so no probability is formed.
    """
    return -torch.logsumexp(torch.stack([-a, -b, -a - b]), 0)


class AITMOptions(FunnelOptions):
    """Switches of AITM.

    Example:
        >>> AITMOptions(calibrator=0.1).calibrator
        0.1
    """

    calibrator: float = Field(default=0.6, ge=0, allow_inf_nan=False)
    """alpha, the weight of the behavioural expectation calibrator."""


class AITM(SingleTask):
    """AITM, the adaptive information transfer multi-task framework (Xi et al., KDD 2021, arXiv 2105.08489).

    Single-task networks over shared embeddings, each receiving information from the one before:

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

    Example:
        >>> from mgoe.models import neutral
        >>> AITM(spec, ("ids", "side"), AITMOptions()).predict(neutral(spec)).shape
        torch.Size([1, 2])
    """

    Options = AITMOptions
    options: AITMOptions
    transfer: ClassVar[Transfer] = "aitm"

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: AITMOptions):
        super().__init__(spec, inputs, options)
        tasks = spec.tasks
        of = [
            None if task.given is not None or parent is None or tasks[parent].given is not None else parent
            for task, parent in zip(tasks, parents(tasks, options.funnel), strict=True)
        ]
        self.parent = nn.Buffer(torch.tensor([parent or 0 for parent in of]), persistent=False)
        self.follows = nn.Buffer(torch.tensor([parent is not None for parent in of]), persistent=False)

    def errors(self, raw: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        """Add the calibrator. Shape (B, T)."""
        share = raw.sigmoid()
        excess = (share - share[:, self.parent]).relu() * (self.follows & valid & valid[:, self.parent])
        return super().errors(raw, labels, valid) + self.options.calibrator * excess
