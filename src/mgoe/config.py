"""The whole run as typed, frozen settings, read from one YAML file.

Every stage takes its own part and nothing else. Unknown keys are refused with the nearest valid name; `--set a.b=c` overrides one
key; the resolved settings are saved with every result, so that a result can be made again from its folder alone.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, cast, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from mgoe.errors import ConfigError

InputGroup = Literal["ids", "side", "context", "recents", "counts", "pair", "sketch", "edges", "aggregates"]
INPUT_GROUPS: tuple[InputGroup, ...] = get_args(InputGroup)


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str | int | float | date) else value


class Settings(BaseModel):
    """Frozen, and strict about names."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


S = TypeVar("S", bound=Settings)


class FeatureSettings(Settings):
    """One column read beside the ids: of a side table, or of an exposure."""

    name: str
    kind: Literal["categorical", "multi", "numeric"] = "categorical"
    """`multi` holds several categories: a list column, or a string cut at `separator`."""
    separator: str = "|"
    min_count: int = Field(default=1, ge=1)
    """Categories seen less often share one code with the unseen."""


class SideTableSettings(Settings):
    """A table with one row a user (or item)."""

    path: str
    id: str
    features: list[FeatureSettings] = Field(min_length=1)


class DataSettings(Settings):
    """Where the log is and what its columns mean."""

    log: Annotated[list[str], BeforeValidator(_as_list)] = Field(min_length=1)
    """Parquet or CSV files, folders or globs."""
    form: Literal["auto", "events", "exposures"] = "auto"
    """`events`: only what happened, one behaviour a row. `exposures`: one row a shown item, a label column a task. `auto`: exposures
    where any task names a label column, else events."""
    user: str = "user_id"
    item: str = "item_id"
    time: str = "timestamp"
    behavior: str = "behavior"
    time_unit: Literal["auto", "s", "ms", "us", "ns"] = "auto"
    """Of integer times; `auto` goes by their magnitude."""
    start: datetime | None = None
    """First moment that counts."""
    end: datetime | None = None
    """First moment that counts no more."""
    bucket: str = Field(default="1d", pattern=r"^[1-9][0-9]*[smhdw]$")
    """Length of a time bucket. Windows end at bucket boundaries; no example reads an event of its own bucket."""
    weight: str | None = None
    """Column of sample weights (exposures only)."""
    context: list[FeatureSettings] = []
    """Columns of an exposure, known when it is shown; needed again at prediction."""
    position: str | None = None
    """Column of the shown position: a bias in training only (exposures only)."""
    users: SideTableSettings | None = None
    items: SideTableSettings | None = None
    truth: str | None = None
    """The `truth` folder of a simulated log: adds the rows `chance` and `best-reachable`."""
    duplicates: Literal["drop", "refuse"] = "drop"
    """Rows that repeat every column of the schema."""


class TaskSettings(Settings):
    """What a model predicts."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    behaviors: Annotated[list[str], BeforeValidator(_as_list)] = []
    """Event logs: the values of the behaviour column that do this task; the task's name by default."""
    label: str | None = None
    """Exposure logs: the label column. A null is a missing label."""
    kind: Literal["binary", "regression"] = "binary"
    rank: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Strength in the merged graph; the position in the list, from 1, by default."""
    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Of its loss."""
    given: str | None = None
    """Sample space: the label counts only where this (weaker, binary) task's label is 1."""
    known_at: str | None = None
    """Exposure logs: a column with the time at which the label became known."""
    delay: str = Field(default="0s", pattern=r"^[0-9]+[smhdw]$")
    """Exposure logs: how long after the exposure the label is known, where there is no such column."""


class SplitSettings(Settings):
    """Time split. `n` cuts make `n` windows, each with a snapshot of everything up to its cut; the last is test, the one before valid."""

    cuts: list[float] | list[date | datetime] = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    """Quantiles of the examples' positives, or dates (the first day that is after the cut). The cut's own bucket lies before it."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        cuts = cast(list[Any], self.cuts)
        if len(cuts) < 3:
            raise ValueError(f"at least 3 cuts are needed (train, valid and test each read the snapshot before them), found {len(cuts)}")
        if any(a >= b for a, b in itertools.pairwise([_moment(cut) for cut in cuts])):
            raise ValueError(f"cuts must rise, found {cuts}")
        if isinstance(cuts[0], float) and not all(0 < c < 1 for c in cuts):
            raise ValueError(f"quantiles lie between 0 and 1, found {cuts}")
        return self


def _moment(cut: Any) -> Any:
    """Dates and times with or without a zone on one scale; numbers as they are."""
    if not isinstance(cut, date):
        return cut
    moment = cut if isinstance(cut, datetime) else datetime(cut.year, cut.month, cut.day)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class NegativeSettings(Settings):
    """Sampled negatives of event logs; exposure logs have their own."""

    ratio: int = Field(default=3, ge=1)
    """Drawn for each positive example."""
    distribution: Literal["popularity", "uniform"] = "popularity"
    """Items drawn from the positives of the same bucket: as often as they occur there, or each item once."""
    seed: int = 0


def _resolutions(value: object) -> object:
    return value if isinstance(value, str) else [tuple(pair) for pair in value] if isinstance(value, Iterable) else value


class SparkSettings(Settings):
    """Where Spark runs, if the graph is built on it."""

    master: str = "local[*]"
    """`local[n]` for n cores of this machine, `spark://host:port`, `yarn`, or `k8s://https://host:port`."""
    options: dict[str, str] = {}
    """Spark's own, such as `spark.executor.memory`. They are saved with the results: leave secrets to the environment of Spark."""

    @model_validator(mode="before")
    @classmethod
    def _as_text(cls, raw: Any) -> Any:
        options = raw.get("options") if isinstance(raw, dict) else None
        if not isinstance(options, dict):
            return raw
        text = {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in options.items()}
        return raw | {"options": text}


class GraphSettings(Settings):
    """The macro task merging graph."""

    beta: float = Field(default=0.0, ge=0, le=1)
    """Curvature of the merging score (eq. 6)."""
    code: Literal["sum", "bits"] = "sum"
    """How the ranks of several tasks on one pair merge: their sum, or the bit mask read as a number (POGCN)."""
    resolutions: Annotated[Literal["auto"] | list[tuple[int, int]], BeforeValidator(_resolutions)] = "auto"
    """Macro nodes (users, items), coarse to fine. `auto` takes 6/8, 12/20, 25/50, 100/100, 300/300, less what the log is too small for."""
    dense: int = Field(default=1, ge=0)
    """Which resolution the experts aggregate; stored dense. The last one where `auto` kept fewer."""
    rank: int = Field(default=128, ge=1)
    power_iterations: int = Field(default=2, ge=0)
    scale: float = Field(default=1.0, ge=0, le=2)
    """Power of the singular values on the sketch: 1 did best, 2 is the paper's similarity of rows of S S^T."""
    normalize: Literal["degree", "none"] = "degree"
    threshold: float = Field(default=0.25, ge=0, lt=1)
    """Quantile of a node's score sum below which it does not move its macro node's centre (eq. 8)."""
    low_weight: float = Field(default=0.0, ge=0, le=1)
    """Weight of nodes below the threshold."""
    clusters: Literal["learned", "random"] = "learned"
    """`random`: groups of the same number, for ablations."""
    refresh: bool = True
    """New macro nodes at every snapshot, warm-started; else those of the first."""
    recents: int = Field(default=20, ge=1)
    iterations: int = Field(default=20, ge=1)
    """Of k-means."""
    sample: int = Field(default=200_000, ge=1)
    """Users that the sketch, and nodes that the macro nodes, are learned from at most; all of them are assigned."""
    snapshots: Literal["all", "last"] = "all"
    """`all`: one before every window, which training reads. `last`: one of the whole log, without examples: `mgoe graph build` alone."""
    memory: float = Field(default=4.0, ge=0.25, allow_inf_nan=False)
    """Limit of anonymous memory, GiB; what exceeds it is spilled to disk."""
    engine: Literal["embedded", "spark"] = "embedded"
    """`embedded` builds in this process; `spark` where `spark.master` says."""
    spark: SparkSettings = SparkSettings()
    seed: int = 0


class ModelSettings(Settings):
    """One model of the comparison: a base, its inputs, and switches that differ from the base's own defaults."""

    name: str
    base: str
    inputs: tuple[InputGroup, ...] | None = None
    """The base's own where not given."""
    ids: Literal["auto", "on", "off"] = "auto"
    """`auto` switches ids off on logs where they only overfit: where the median user or item has few training positives."""
    options: dict[str, Any] = {}
    """Switches of the base, checked by the base itself."""
    training: dict[str, Any] = {}
    """Training settings that differ for this model (`learning_rate`, `epochs`, ...)."""


class TrainingSettings(Settings):
    """How a model is fitted."""

    epochs: int = Field(default=4, ge=1)
    batch_size: int = Field(default=4096, ge=1)
    learning_rate: float = Field(default=5e-3, gt=0, allow_inf_nan=False)
    table_learning_rate: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    """Of the row-wise optimiser of the embedding tables."""
    weight_decay: float = Field(default=1e-5, ge=0, allow_inf_nan=False)
    schedule: Literal["linear", "constant"] = "linear"
    monitor: str = "all.ranking"
    """What validation picks the epoch by: `task.metric`, or `all.metric` for the mean over tasks. `ranking` is the mean of AUC and GAUC."""
    patience: int = Field(default=2, ge=1)
    """Epochs without a better value before stopping."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"
    threads: int = Field(default=1, ge=1)
    """Of one training process."""


class EvaluationSettings(Settings):
    """What is measured on validation and test."""

    k: list[int] = [10, 50]
    """Depths of HR@k and NDCG@k."""
    ranking_queries: int = Field(default=100, ge=0)
    """Seeded test users whose whole catalogue is ranked; 0 leaves it out."""
    slices: bool = True
    seed: int = 0
    """Of the draw of those users."""


class RunSettings(Settings):
    """One run, end to end."""

    data: DataSettings
    tasks: Annotated[
        list[TaskSettings], BeforeValidator(lambda v: [{"name": t} if isinstance(t, str) else t for t in v] if isinstance(v, list) else v)
    ] = Field(min_length=1, max_length=16)
    """Weakest to strongest."""
    split: SplitSettings = SplitSettings()
    negatives: NegativeSettings = NegativeSettings()
    graph: GraphSettings = GraphSettings()
    models: list[str | ModelSettings] = ["mgoe", "shared-bottom", "mmoe"]
    """Rows of the comparison; the first is the one whose bundle is written. A string names a preset: `mgoe`, `mgoe-paper`,
    `shared-bottom`, `mmoe`, each with `+counts`, `+edges` or `+graph` for other inputs."""
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    seeds: Annotated[list[int], BeforeValidator(_as_list)] = Field(default=[0], min_length=1)
    jobs: int = Field(default=1, ge=1)
    """Training processes side by side."""

    @model_validator(mode="after")
    def _tasks_agree(self) -> Self:
        names = [task.name for task in self.tasks]
        repeated = {n for n in names if names.count(n) > 1}
        if repeated:
            raise ValueError(f"task names must differ, found {sorted(repeated)} twice")
        for position, task in enumerate(self.tasks):
            if task.given is not None and task.given not in names[:position]:
                raise ValueError(
                    f"tasks.{task.name}.given must name a weaker task listed before, found {task.given!r}{did_you_mean(task.given, names)}"
                )
            if task.label is None and self.form == "exposures":
                raise ValueError(f"tasks.{task.name}.label is needed: an exposure log has a label column a task")
            if self.form == "events" and (task.kind == "regression" or task.label):
                raise ValueError(
                    f"tasks.{task.name}: an event log holds only behaviours; regression and label columns need `data.form: exposures`"
                )
        return self

    @property
    def form(self) -> Literal["events", "exposures"]:
        """The form of log, with `auto` resolved."""
        if self.data.form != "auto":
            return self.data.form
        return "exposures" if any(task.label for task in self.tasks) else "events"

    @property
    def ranks(self) -> tuple[float, ...]:
        """Rank of each task, weakest first. Shape (T,)."""
        return tuple(task.rank if task.rank is not None else position + 1.0 for position, task in enumerate(self.tasks))

    @property
    def task_names(self) -> tuple[str, ...]:
        return tuple(task.name for task in self.tasks)


def load_settings(path: Path | str, overrides: Sequence[str] = ()) -> RunSettings:
    """Read a YAML file, apply `key.path=value` overrides, and check everything.

    Paths under `data` stay as written; relative ones are looked up from the working folder.

    Raises:
        ConfigError: The file is missing or no YAML, a key is unknown, or a value breaks its rule.
    """
    path = Path(path)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(path, "no such file; `mgoe init LOG` writes one for your log") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(path, f"cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ConfigError(path, f"must hold a mapping with `data:` and `tasks:`, found {type(raw).__name__}")
    for override in overrides:
        apply_override(raw, override)
    return make_settings(raw, path)


def make_settings(raw: dict[str, Any], place: Path | str = "settings") -> RunSettings:
    """Check a mapping and make it `RunSettings`.

    Raises:
        ConfigError: A key is unknown or a value breaks its rule; the message names the key.
    """
    return check_settings(RunSettings, raw, place)


def check_settings(kind: type[S], raw: dict[str, Any], place: Path | str = "settings") -> S:
    """Check a mapping and make it settings of one kind.

    Raises:
        ConfigError: A key is unknown or a value breaks its rule; the message names the key.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(place, _describe(error, kind)) from None


def dump_settings(settings: BaseModel) -> str:
    """The settings as YAML, every default written out."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def seconds(length: str) -> int:
    """Seconds in a length such as `6h` or `1d`."""
    return int(length[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}[length[-1]]


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Set one key of a mapping from `key.path=value`, the value read as YAML.

    Raises:
        ConfigError: It is no such text, or the path runs through what is no mapping.
    """
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ConfigError("--set", f"takes key.path=value, found {override!r}")
    node: Any = raw
    *parents, last = key.split(".")
    for name in parents:
        if not isinstance(node, dict):
            raise ConfigError(f"--set {key}", f"{name!r} lies below a key that is no mapping")
        node = node.setdefault(name, {})
    if not isinstance(node, dict):
        raise ConfigError(f"--set {key}", "lies below a key that is no mapping; give the whole list or value instead")
    try:
        node[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"--set {key}", f"the value is no YAML: {value!r}") from None


def _describe(error: ValidationError, kind: type[BaseModel]) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("function-", "list[", "literal["))) or "settings"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"unknown key {key!r}{did_you_mean(str(first['loc'][-1]), _names_at(kind, first['loc'][:-1]))}{more}"
    if first["type"] == "missing":
        return f"{key} is needed and missing{more}"
    found = "" if isinstance(first["input"], dict) or first["type"] == "value_error" else f", found {first['input']!r}"
    return f"{key}: {first['msg'].removeprefix('Value error, ')}{found}{more}"


def _names_at(here: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Valid keys of the settings that lie at a location of a validation error."""
    for part in location:
        field = here.model_fields.get(str(part))
        if field is not None:
            here = next((t for t in _leaves(field.annotation) if isinstance(t, type) and issubclass(t, BaseModel)), here)
    return list(here.model_fields)


def _leaves(annotation: object) -> list[object]:
    inner = get_args(annotation)
    return [leaf for part in inner for leaf in _leaves(part)] if inner else [annotation]


def did_you_mean(name: str, valid: Sequence[str]) -> str:
    """End of a message about an unknown name: the nearest valid one, or all of them."""
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; valid names: {', '.join(sorted(valid)) or 'none'}"
