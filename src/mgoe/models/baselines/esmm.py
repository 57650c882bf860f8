"""ESMM, the entire space multi-task model (Ma et al., SIGIR 2018, arXiv 1804.07931)."""

from collections.abc import Collection

import torch
from torch import Tensor

from mgoe.models.baselines.funnel import FunnelOptions, parents
from mgoe.models.baselines.single_task import SingleTask
from mgoe.models.spec import Batch, FeatureSpec


class ESMM(SingleTask):
    """Towers for the probability of each step, multiplied along the funnel: `p(ctcvr) = p(ctr) p(cvr)`, over
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
    """

    Options = FunnelOptions
    conditional: Tensor

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: FunnelOptions):
        super().__init__(spec, inputs, options)
        self.parents = parents(spec.tasks, options.funnel)
        conditional = torch.tensor([task.given is not None for task in spec.tasks])
        self.register_buffer("conditional", conditional, persistent=False)

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
