"""Settings of top-N evaluation: lists of a comparison's models and of baselines, over the whole catalogue."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from mgoe.config.base import Count, Seed, Settings, Texts, as_list
from mgoe.config.extensions import one_of
from mgoe.config.retrieval import Retrieval

BASELINE_NAMES = (
    "popularity",
    "item-knn",
    "swing",
    "rp3beta",
    "ease",
    "slim",
    "ials",
    "lightgcn",
    "sasrec",
    "hstu",
    "cascading-rank",
)
"""Names of the top-N baselines that are built in."""
BaselineName = Annotated[str, AfterValidator(one_of("mgoe.baselines", BASELINE_NAMES, "a baseline"))]


class TopNSettings(Settings):
    """What lists are made, and how they are measured.

    Example:
        >>> TopNSettings(k=10, baselines=["item-knn", "ease"]).trials
        8
    """

    k: Annotated[list[Count], BeforeValidator(as_list, json_schema_input_type=Count | list[Count])] = Field(
        default=[10, 50], min_length=1
    )
    """Lengths of the lists that are measured. Settings are chosen by NDCG at the first."""
    tasks: Texts = []
    """Tasks that make an item relevant; all binary ones if empty."""
    objective: str | None = None
    """What a model orders items by, as in a request; by default the sum of the probabilities of `tasks`."""
    hide_known: bool | Literal["auto"] = "auto"
    """Whether items that a user did before leave the list; `auto` hides them where last items are held
    out."""
    retrieval: Retrieval = "auto"
    """How models find the items that they rank, as in a run."""
    baselines: list[BaselineName] = list(BASELINE_NAMES)
    """Baselines beside the models."""
    trials: Count = 8
    """Settings that are tried on validation, the same number for every baseline; the first ones are its
    defaults."""
    trial_minutes: float = Field(default=10.0, gt=0)
    """Processor minutes of a trial, and of the fit with the best settings. A baseline that learns in epochs
    stops with the epoch in which they are used up; the fits of others cannot be cut short."""
    tuning_users: Count = 2000
    """Users, drawn at random, for whom validation lists are made."""
    exact_users: int = Field(default=1000, ge=0)
    """Test users, drawn at random, for whom a model that retrieves candidates scores every item too; 0 leaves
    this out."""
    seed: Seed = 0
    """Seed of the draws of users, and of the search."""

    def hides(self, held_out: bool) -> bool:
        """Return whether known items leave the lists of a log, of which last items are held out or not."""
        return held_out if self.hide_known == "auto" else self.hide_known
