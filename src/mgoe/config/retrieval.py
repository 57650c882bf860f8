"""The settings of retrieval: which items a model ranks for a user."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from mgoe.config.base import Count, Settings
from mgoe.config.extensions import one_of

LARGE = 2_000
"""Items from which `auto` retrieves: four times the default number of candidates. Fewer are all ranked."""
GENERATOR_NAMES = ("own", "item_to_item", "swing", "sketch", "unseen", "macro", "recent", "popular")
"""What gives candidates; `docs/retrieval.md` describes each."""
Generator = Annotated[str, AfterValidator(one_of("mgoe.generators", GENERATOR_NAMES, "a generator"))]


class RetrievalSettings(Settings):
    """Candidates that are retrieved before the model ranks them.

    Example:
        >>> RetrievalSettings(candidates=200).neighbors
        150
    """

    candidates: Count = 500
    """Number of items per request that the model ranks."""
    quotas: dict[Generator, Annotated[int, Field(ge=0)]] | None = None
    """Candidates of each generator, in proportion: together they are `candidates`. By default those that
    find most in the validation window."""
    neighbors: Count = 150
    """Maximum number of item-to-item links per item."""

    @model_validator(mode="after")
    def _some_quota(self) -> Self:
        if self.quotas is not None and not any(self.quotas.values()):
            raise ValueError(
                "quotas must give candidates of at least one generator, found none; leave `quotas` out to "
                "have them chosen"
            )
        return self


Retrieval = Annotated[
    Annotated[RetrievalSettings, Tag("settings")] | Annotated[Literal["auto", "exact"], Tag("word")],
    Discriminator(lambda value: "settings" if isinstance(value, dict | RetrievalSettings) else "word"),
]
"""How items are found: by settings, or by rules."""


def quotas_of(setting: str | RetrievalSettings) -> dict[str, int]:
    """Return the quotas that a setting names; none if they are chosen, or all items are ranked.

    Example:
        >>> quotas_of("auto")
        {}
    """
    return (setting.quotas or {}) if isinstance(setting, RetrievalSettings) else {}


def retrieval_of(setting: str | RetrievalSettings, items: int) -> RetrievalSettings | None:
    """Return how candidates are retrieved from a catalogue of some size; None if all of it is ranked.

    Example:
        >>> retrieval_of("auto", items=1999) is None
        True
    """
    if isinstance(setting, RetrievalSettings):
        return setting
    return RetrievalSettings() if setting == "auto" and items >= LARGE else None
