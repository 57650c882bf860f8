"""Baselines that any model should beat: a constant, popularity, the user's own history, a sum of rates, and
logistic regression."""

from abc import abstractmethod
from collections.abc import Collection

import torch
from pydantic import Field
from torch import Tensor, nn

from mgoe.config import Settings, did_you_mean
from mgoe.errors import ConfigError
from mgoe.models.base import RankingModel
from mgoe.models.baselines.flat import AdditiveModel, BaselineOptions
from mgoe.models.spec import Batch, FeatureSpec


class _Reference(RankingModel):
    """A score that is read and not learned, plus an intercept; a regression gets the intercept alone."""

    Options = Settings
    probabilistic = False

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: Settings):
        super().__init__(spec, inputs, options)
        self.intercept = nn.Parameter(torch.zeros(len(spec.tasks)))

    @abstractmethod
    def score(self, batch: Batch) -> Tensor:
        """Return what orders the rows by each task. Shape (B, T)."""

    def logits(self, batch: Batch) -> Tensor:
        return torch.where(self.regression, 0, self.score(batch)) + self.intercept


class Constant(_Reference):
    """The share of a task in training, or the mean of a regression, for every pair (ours): `y_t = logit
    share_t`.

    Its AUC is 0.5, and its log loss is what probabilities cost that know nothing of the pair.
    """

    requires = frozenset({"counts"})
    probabilistic = True

    def __init__(self, spec: FeatureSpec, inputs: Collection[str], options: Settings):
        super().__init__(spec, inputs, options)
        self.intercept.data.copy_(torch.where(self.regression, 0, self.means.logit(eps=1e-6)))

    def score(self, batch: Batch) -> Tensor:
        return torch.zeros_like(batch["counts"][:, :1], dtype=torch.float)


class Popularity(_Reference):
    """How often an item had the task done, and how much was done with it since the snapshot before (ours):
    `y_t = b_t + log(1 + pairs_t) + log(1 + recent)`.
    """

    requires = frozenset({"counts"})

    def score(self, batch: Batch) -> Tensor:
        tasks, of_item = len(self.spec.tasks), batch["counts"].shape[1] // 2
        item = batch["counts"][:, of_item:].float()
        return item[:, :tasks] + item[:, tasks + 1, None]


class History(_Reference):
    """Whether the user has done the task with the item before, and how lately anything (ours): `y_t = b_t +
    done_t + freshness`.
    """

    requires = frozenset({"pair"})

    def score(self, batch: Batch) -> Tensor:
        pair = batch["pair"].float()
        return pair[:, :-1] + pair[:, -1:]


class RateSumOptions(Settings):
    """Switches of the sum of rates."""

    groups: list[str] = Field(default=["user", "item"], min_length=1)
    """Groups of exposures by name, such as `user`, `user x items.tag` or `item, last 3`."""


class RateSum(RankingModel):
    """The sum of a pair's rates (ours): `y_t = b_t + sum_g rate_gt`.

    Rates are log-odds, or means of a regression in its unit, shrunk and centred; nothing is trained but the
    intercept. Means are corrected for each other, as adjusted rates have it.
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
        tasks = len(spec.tasks)
        ends = torch.tensor([0, *(one.width(tasks) for one in spec.rates)]).cumsum(0)
        starts = ends[[names.index(name) for name in options.groups]]
        self.columns = nn.Buffer(starts[:, None] + 1 + torch.arange(tasks), persistent=False)
        joint = [spec.rates[names.index(name)].adjusted for name in options.groups]
        self.adjusted = nn.Buffer(self.columns[joint] + tasks, persistent=False)
        self.intercept = nn.Parameter(torch.zeros(tasks))

    def logits(self, batch: Batch) -> Tensor:
        rates = batch["rates"][:, self.columns].sum(1)
        rates = rates + batch["rates"][:, self.adjusted].sum(1) * self.regression
        return torch.where(self.regression, rates / self.stds, rates) + self.intercept


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
