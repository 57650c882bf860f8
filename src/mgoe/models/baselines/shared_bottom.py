"""Shared-Bottom (Caruana, 1997): one MLP for all tasks, and one tower per task."""

from collections.abc import Collection

from torch import Tensor

from mgoe.models.baselines.flat import AdditiveModel, BaselineOptions
from mgoe.models.layers.inputs import Knots
from mgoe.models.layers.stacked import StackedMLP, Widths
from mgoe.models.layers.towers import Towers
from mgoe.models.spec import Batch, FeatureSpec


class SharedBottomOptions(BaselineOptions):
    """Switches of Shared-Bottom."""

    hidden: Widths | None = None
    """Layers of the bottom; by default (128 T, 64), as many parameters as MMoE's T experts of (128, 64)."""
    knots: Knots = ()
    """Knots of piecewise-linear features, as in MGOE. They separate the effect of its experts from that of
    its knots."""


class SharedBottom(AdditiveModel):
    """A bottom that all towers read."""

    Options = SharedBottomOptions

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: SharedBottomOptions):
        super().__init__(spec, inputs, options, options.knots)
        tasks = len(spec.tasks)
        self.bottom = StackedMLP(1, self.inputs.width, 0, options.hidden or (128 * tasks, 64))
        self.towers = Towers(tasks, self.bottom.width, 0, options.tower_hidden, "none")

    def first(self, batch: Batch, x: Tensor) -> list[Tensor]:
        return [self.bottom.first(x, None)]

    def rest(self, first: list[Tensor], batch: Batch) -> Tensor:
        return self.towers(self.bottom.rest(first[0]).squeeze(0), None)
