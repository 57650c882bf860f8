"""Baselines that any model should beat where exposures are logged: a sum of rates, and logistic
regression."""

from collections.abc import Collection

import torch
from pydantic import Field
from torch import Tensor, nn

from mgoe.config import Settings, did_you_mean
from mgoe.errors import ConfigError
from mgoe.models.base import RankingModel
from mgoe.models.baselines.flat import AdditiveModel, BaselineOptions
from mgoe.models.spec import Batch, FeatureSpec


class RateSumOptions(Settings):
    """Switches of the sum of rates."""

    groups: list[str] = Field(default=["user", "item"], min_length=1)
    """Groups of exposures by name, such as `user`, `user x items.tag` or `item, last 3`."""


class RateSum(RankingModel):
    """The sum of a pair's rates (ours): `y_t = b_t + sum_g rate_gt`.

    Rates are log-odds, shrunk and centred; nothing is trained but the intercept.
    """

    Options = RateSumOptions
    requires = frozenset({"rates"})

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: RateSumOptions):
        super().__init__(spec, inputs, options)
        names = [one.name for one in spec.rates]
        if not names:
            raise ConfigError(
                "inputs", "the rates of an exposure log are needed, found none; leave this model out"
            )
        for name in options.groups:
            if name not in names:
                raise ConfigError(
                    "options.groups", f"{name!r} is no group of exposures{did_you_mean(name, names)}"
                )
        tasks, ends = len(spec.tasks), [0]
        for one in spec.rates:
            ends.append(ends[-1] + one.width(len(spec.tasks)))
        starts = torch.tensor([ends[names.index(name)] for name in options.groups])
        self.columns = nn.Buffer(starts[:, None] + 1 + torch.arange(tasks), persistent=False)
        self.intercept = nn.Parameter(torch.zeros(tasks))

    def logits(self, batch: Batch) -> Tensor:
        return batch["rates"][:, self.columns].sum(1) + self.intercept


class LogisticRegression(AdditiveModel):
    """Logistic regression per task on all inputs, a linear one for regressions: `y_t = b_t + w_t x`."""

    Options = BaselineOptions

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: BaselineOptions):
        super().__init__(spec, inputs, options)
        self.linear = nn.Linear(self.inputs.width, len(spec.tasks))
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def first(self, batch: Batch, x: Tensor) -> list[Tensor]:
        return [self.linear(x)]

    def rest(self, first: list[Tensor], batch: Batch) -> Tensor:
        return first[0]
