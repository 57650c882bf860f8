"""A comparison: models x seeds x logs x variants, in one YAML file; and the JSON Schema of such files."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from mgoe.config.base import Count, PositiveLength, Seed, Seeds, Settings, Texts, as_list, did_you_mean
from mgoe.config.extensions import one_of
from mgoe.config.retrieval import Retrieval
from mgoe.config.run import Models, RunSettings, check_differ, check_folders

BASELINE_NAMES = (
    "popularity",
    "frequent",
    "transitions",
    "sknn",
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
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
"""Name of a folder and of a row."""
Changed = Annotated[str, Field(pattern=r"^(graph|training|model)\.")]
"""Key that a variant may change. Not data, split and negatives, because all models are evaluated on the same
rows."""
Searched = Annotated[str, Field(pattern=r"^(training|options)\.")]
"""Key that a search may change."""


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
    next_item: bool = False
    """Measure baselines, and no models, by the next item of a user: every event of a test window gets a list
    as of its moment."""
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
    """Users, or events with `next_item`, drawn at random, for which validation lists are made."""
    exact_users: int = Field(default=1000, ge=0)
    """Test users, drawn at random, for whom a model that retrieves candidates scores every item too; 0 leaves
    this out."""
    seed: Seed = 0
    """Seed of the draws of users, and of the search."""

    def hides(self, held_out: bool) -> bool:
        """Return whether known items leave the lists of a log, of which last items are held out or not."""
        return held_out if self.hide_known == "auto" else self.hide_known


class SectionSettings(Settings):
    """The sections of a run that a comparison sets for all of its logs, and each log for itself.

    Example:
        >>> SectionSettings(training={"epochs": 2}).training
        {'epochs': 2}
    """

    data: dict[str, Any] = {}
    """Keys of `data` of a run."""
    split: dict[str, Any] = {}
    """Keys of `split` of a run."""
    negatives: dict[str, Any] = {}
    """Keys of `negatives` of a run."""
    graph: dict[str, Any] = {}
    """Keys of `graph` of a run."""
    training: dict[str, Any] = {}
    """Keys of `training` of a run."""
    evaluation: dict[str, Any] = {}
    """Keys of `evaluation` of a run."""


class LogSettings(SectionSettings):
    """One log: settings of a run without models and seeds, which override those of the comparison.

    Example:
        >>> LogSettings(run="mine.yaml", split={"cuts": [0.4, 0.6, 0.8]}).run
        'mine.yaml'
    """

    run: str | None = None
    """The YAML file of a run from which the settings start."""
    simulate: dict[str, Any] | None = None
    """Settings of a simulated world, drawn once into the folder of the results; they determine `data.log` and
    `data.truth`, and with `content` also `data.users` and `data.items`."""
    hold_out: Literal["last"] | None = None
    """`last` takes the last item of each user out of the log; lists are measured by how well they find it.
    Models are trained and compared on what is left."""
    tasks: list[Any] | None = None
    """Tasks, as in a run."""


class TableSettings(Settings):
    """A table of results: a question and the models that answer it.

    Example:
        >>> TableSettings(title="With equal inputs", models=["mgoe", "mmoe+mgoe"]).reference is None
        True
    """

    title: str = ""
    """What stands above the table."""
    models: list[str] = Field(min_length=1)
    """Names of models and of variants (`MODEL:VARIANT`), in order."""
    reference: str | None = None
    """The model that the others are compared with; by default that of the comparison."""


class RangeSettings(Settings):
    """A range of numbers to search; integers if both ends are integers.

    Example:
        >>> RangeSettings(low=1e-3, high=1e-2, log=True).high
        0.01
    """

    low: int | float
    """Smallest value."""
    high: int | float
    """Largest value."""
    log: bool = False
    """Whether to search on a logarithmic scale."""

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if not 0 <= self.low < self.high or (self.log and self.low == 0):
            raise ValueError(
                f"`low` must be below `high` and at least 0 (above 0 with `log`), found {self.low} and "
                f"{self.high}"
            )
        return self


Choices = Annotated[
    Annotated[list[Any], Field(min_length=1), Tag("choices")] | Annotated[RangeSettings, Tag("range")],
    Discriminator(lambda values: "choices" if isinstance(values, list) else "range"),
]


class TuneSettings(Settings):
    """Search of settings on validation: the same number of trials for every model, on the same rows.

    Example:
        >>> TuneSettings(trials=4, space={"options.width": [8, 16]}).trials
        4
    """

    trials: int = Field(default=8, ge=1)
    """Number of trials; the first one uses the settings unchanged."""
    budget: PositiveLength | None = None
    """Time that the trials of a model may take, such as `10m`: one that would take longer fails."""
    share: float = Field(default=0.25, gt=0, le=1)
    """Share of the training rows, drawn once for all models. Validation uses all rows."""
    seed: Seed = 0
    """Seed of the search and of the rows."""
    space: dict[Searched, Choices] = {
        "training.learning_rate": RangeSettings(low=1e-3, high=2e-2, log=True),
        "training.table_learning_rate": RangeSettings(low=1e-2, high=0.2, log=True),
        "training.weight_decay": RangeSettings(low=1e-6, high=1e-3, log=True),
        "training.epochs": [2, 3, 4, 6],
    }
    """What is searched: `training.KEY`, or `options.KEY` for models with that switch; a list of choices, or
    `low`, `high` and `log`."""
    first: list[dict[str, Any]] = []
    """Points of the space, complete or partial, to try right after the unchanged settings, for models that
    have all of their keys."""

    @field_validator("space")
    @classmethod
    def _without_monitor(cls, space: dict[str, Choices]) -> dict[str, Choices]:
        if "training.monitor" in space:
            raise ValueError(
                "training.monitor is what trials are compared by, so it cannot be searched; leave it out"
            )
        return space

    @model_validator(mode="after")
    def _of_the_space(self) -> Self:
        for key, value in (item for point in self.first for item in point.items()):
            if key not in self.space:
                raise ValueError(
                    f"`first` holds keys of `space`, found {key!r}{did_you_mean(key, [*self.space])}"
                )
            if not _holds(self.space[key], value):
                raise ValueError(f"`first` holds values that `space` allows, found {key}: {value!r}")
        if len(self.first) >= self.trials:
            raise ValueError(
                f"`trials` must be more than the {len(self.first)} points of `first`, found {self.trials}"
            )
        return self


def _holds(values: Choices, value: Any) -> bool:
    if isinstance(values, list):
        return any(
            choice == value and isinstance(choice, bool) == isinstance(value, bool) for choice in values
        )
    whole = isinstance(values.low, int) and isinstance(values.high, int)
    number = isinstance(value, int if whole else int | float)
    return number and not isinstance(value, bool) and values.low <= value <= values.high


class ComparisonSettings(SectionSettings):
    """Models x seeds x logs x variants.

    Example:
        >>> ComparisonSettings(logs={"mine": {}}, models=["mgoe", "mmoe"]).lead
        'mgoe'
    """

    logs: dict[Name, LogSettings] = Field(min_length=1)
    """The logs by name."""
    models: Models = Field(min_length=1)
    """Models, as in a run."""
    variants: dict[Name, dict[Changed, Any]] = {}
    """Ablations: name to overrides with dotted keys below `graph`, `training` or `model` (`model.options.tau:
    1`)."""
    variants_of: Texts = []
    """The models of which these are variants; by default the reference."""
    tables: dict[Name, TableSettings] = {}
    """Tables by name; by default one table of everything."""
    reference: str | None = None
    """The model that the others are compared with; by default the first."""
    seeds: Seeds = Field(default=[0], min_length=1)
    """A seed varies initialisation, order of batches, negatives of training and macro nodes, but not the rows
    of evaluation."""
    tune: TuneSettings | None = None
    """The search of settings; by default nothing is tuned."""
    jobs: int = Field(default=1, ge=1)
    """Number of processes at the same time."""
    topn: TopNSettings | None = None
    """Measure top-N lists of every model and of baselines; by default none are made."""
    serving_requests: int = Field(default=50, ge=0)
    """Requests of 500 candidates by which the serving of each model is timed; 0 leaves it out."""

    @property
    def model_names(self) -> list[str]:
        return [model if isinstance(model, str) else model.name for model in self.models]

    @property
    def lead(self) -> str:
        """The reference, with the default resolved."""
        return self.reference or self.model_names[0]

    @property
    def variant_names(self) -> list[str]:
        """Every variant as `MODEL:VARIANT`."""
        return [
            variant_name(model, variant)
            for model in self.variants_of or [self.lead]
            for variant in self.variants
        ]

    @property
    def all_tables(self) -> dict[str, TableSettings]:
        """The tables, with the default resolved."""
        return self.tables or {"all": TableSettings(models=[*self.model_names, *self.variant_names])}

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        _known("reference", [self.lead], self.model_names)
        _known("variants_of", self.variants_of, self.model_names)
        everyone = [*self.model_names, *self.variant_names]
        for name, table in self.tables.items():
            _known(
                f"tables.{name}", [*table.models, *([table.reference] if table.reference else [])], everyone
            )
        for place, part in (("", self), *((f"logs.{name}.", log) for name, log in self.logs.items())):
            for section, key in (("graph", "seed"), ("negatives", "training_seed")):
                if key in getattr(part, section):
                    raise ValueError(f"{place}{section}.{key} follows the comparison's `seeds`; leave it out")
        check_folders(self.models)
        baselines = self.topn.baselines if self.topn else []
        for kind, names in (
            ("models and variants", everyone),
            ("models and baselines of `topn`", [*everyone, *baselines]),
            ("seeds", self.seeds),
        ):
            check_differ(kind, names)
        return self


def variant_name(model: str, variant: str) -> str:
    """Return the name of a variant in tables and folders.

    Example:
        >>> variant_name("mgoe", "random")
        'mgoe:random'
    """
    return f"{model}:{variant}"


def deep_merge(below: Mapping[str, Any], *above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge mappings: nested mappings key by key, other values from the last.

    Example:
        >>> deep_merge({"a": 1, "b": {"c": 2}}, {"b": {"d": 3}})
        {'a': 1, 'b': {'c': 2, 'd': 3}}
    """
    joined = dict(below)
    for key, value in (item for part in above for item in part.items()):
        old = joined.get(key)
        joined[key] = (
            deep_merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
        )
    return joined


def nested(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping with dotted keys as nested mappings.

    Example:
        >>> nested({"training.epochs": 2, "training.threads": 4})
        {'training': {'epochs': 2, 'threads': 4}}
    """
    found: dict[str, Any] = {}
    for key, value in changes.items():
        for name in reversed(key.split(".")):
            value = {name: value}
        found = deep_merge(found, value)
    return found


def _known(place: str, names: Sequence[str], valid: Sequence[str]) -> None:
    for name in names:
        if name not in valid:
            raise ValueError(
                f"{place}: {name!r} is not one of the comparison's models{did_you_mean(name, valid)}"
            )


def json_schema(of: Literal["settings", "comparison"]) -> dict[str, Any]:
    """Return the JSON Schema of the file of a run, or of a comparison, as plain values.

    It knows the keys, types, ranges and meanings. Rules between several keys, and the switches of models, are
    checked when the file is read.

    Example:
        >>> json_schema("settings")["required"]
        ['data', 'tasks']
    """
    kind = RunSettings if of == "settings" else ComparisonSettings
    schema = kind.model_json_schema()
    for part in (schema, *schema["$defs"].values()):
        part["description"] = part["description"].split("\n\nExample:")[0]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
