"""The settings of one run: the macro graph, models, their training, what is evaluated, and all together."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from mgoe.config.base import (
    MEMORY,
    Count,
    Length,
    PositiveLength,
    Seed,
    Seeds,
    Settings,
    did_you_mean,
    or_auto,
)
from mgoe.config.log import DataSettings, NegativeSettings, SplitSettings, TaskSettings
from mgoe.config.retrain import RetrainSettings
from mgoe.config.retrieval import Retrieval

BOUNDS = ("chance", "best-reachable")
"""Rows beside those of models on a simulated log."""


def _resolutions(value: object) -> object:
    pairs = value if isinstance(value, list | tuple) else []
    right = [
        isinstance(pair, list | tuple)
        and len(pair) == 2
        and all(isinstance(size, int) and size >= 1 for size in pair)
        for pair in pairs
    ]
    if value != "auto" and not (right and all(right)):
        raise ValueError(
            "must be `auto` or pairs of macro nodes (users, items), each at least 1, "
            f"found {value}; write them as in [[12, 20], [100, 100]]"
        )
    return value


def _as_texts(options: object) -> object:
    if not isinstance(options, dict):
        return options
    return {
        key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in options.items()
    }


class SparkSettings(Settings):
    """The Spark cluster of what runs on one.

    Example:
        >>> SparkSettings(options={"spark.sql.shuffle.partitions": 8}).options
        {'spark.sql.shuffle.partitions': '8'}
    """

    master: str = "local[*]"
    """`local[n]` for n cores of this machine, `spark://host:port`, `yarn`, `k8s://https://host:port`, or
    `sc://host:port` for Spark Connect, which builds no graph."""
    options: Annotated[
        dict[str, str],
        BeforeValidator(_as_texts, json_schema_input_type=dict[str, str | bool | int | float]),
    ] = {}
    """Options of Spark, such as `spark.executor.memory`. They are saved with the results, so secrets belong
    in the environment of Spark."""


class RateSettings(Settings):
    """A group of exposures that is counted: by one or two of its nodes, all history or the last of it.

    A string such as `user x items.tag` is short for `by: [user, items.tag]`.

    Example:
        >>> RateSettings(by="user x items.tag").by
        ['user', 'items.tag']
    """

    by: Annotated[
        list[str],
        Field(min_length=1, max_length=2),
        BeforeValidator(
            lambda by: [part.strip() for part in by.split(" x ")] if isinstance(by, str) else by,
            json_schema_input_type=str | list[str],
        ),
    ]
    """`user`, `item`; `user_macro`, `item_macro`, the macro node at the dense resolution, or with the place
    of another one, as in `item_macro@2`; `users.NAME` or `items.NAME`, a category of a side table; the name
    of a category of the context, unless it is one of the names before."""
    last: PositiveLength | None = None
    """Count only exposures and labels of this time before the snapshot; at least a bucket."""


Rate = Annotated[
    RateSettings,
    BeforeValidator(
        lambda rate: {"by": rate} if isinstance(rate, str) else rate,
        json_schema_input_type=RateSettings | str,
    ),
]


class GraphSettings(Settings):
    """The macro task merging graph.

    Example:
        >>> GraphSettings(resolutions=[[12, 20], [100, 100]]).dense_of(resolutions=2)
        1
    """

    beta: float = Field(default=0.0, ge=0, le=1)
    """Curvature of the merging score (eq. 6)."""
    code: Literal["sum", "bits"] = "sum"
    """How the ranks of several tasks on one pair merge: their sum, or the bit mask read as a number
    (POGCN)."""
    resolutions: Annotated[Literal["auto"] | list[tuple[int, int]], BeforeValidator(_resolutions)] = "auto"
    """Numbers of macro nodes (users, items), coarse to fine. `auto` takes 6/8, 12/20, 25/50, 100/100 and
    300/300, without those that the log is too small for."""
    dense: int = Field(default=1, ge=0)
    """Place of the resolution that the experts aggregate, which is stored dense; the last one if there are
    fewer."""
    rank: int = Field(default=128, ge=1)
    """Width of the sketch."""
    power_iterations: int = Field(default=4, ge=0)
    """Power iterations of the sketch of every snapshot."""
    scale: float = Field(default=1.0, ge=0, le=2)
    """Power of the singular values in the sketch: 1 was best, 2 is the paper's similarity of rows of S
    S^T."""
    normalize: Literal["degree", "none"] = "degree"
    """`degree` divides a score by the square root of both nodes' sums before the sketch; `none` does not."""
    threshold: float = Field(default=0.25, ge=0, lt=1)
    """Quantile of a node's score sum below which it does not move its macro node's centre (eq. 8)."""
    clusters: Literal["learned", "random"] = "learned"
    """`random` assigns nodes to the same number of random groups, for ablations."""
    refresh: bool = True
    """Whether every snapshot has new macro nodes, warm-started; otherwise all have those of the first."""
    recents: int = Field(default=20, ge=1)
    """Recent neighbours kept per node."""
    rates: Literal["auto"] | list[Rate] = "auto"
    """Exposure logs: the groups whose rates a model reads. `auto` takes those that `docs/inputs.md` lists; an
    empty list counts none."""
    rounds: int = Field(default=20, ge=0)
    """Maximum number of refinement rounds after k-means, in which users and items move to the macro node that
    fits them best. They stop earlier when few nodes move."""
    sample: int = Field(default=200_000, ge=1)
    """Maximum number of users from which the sketch and the macro nodes are learned; all users are
    assigned."""
    snapshots: Literal["all", "last"] = "all"
    """`all`: one before every window, for training. `last`: one of the whole log, without examples, which
    only `mgoe graph build` makes."""
    engine: Literal["local", "spark"] = "local"
    """`local` builds in this process, `spark` on `spark.master`."""
    seed: Seed = 0
    """Seed of sketch and clusters."""

    @model_validator(mode="after")
    def _dense_is_one(self) -> Self:
        if self.resolutions != "auto" and self.dense > (
            last := max(1, len(self.resolutions) - 1)
        ):  # 1 is also the default
            raise ValueError(
                f"dense must be the place of one of the resolutions, from 0, found {self.dense}; set {last} "
                "at most"
            )
        return self

    def dense_of(self, resolutions: int) -> int:
        """Return the place of the resolution that the experts aggregate, given the number of resolutions."""
        return min(self.dense, resolutions - 1)


class ModelSettings(Settings):
    """One model of the comparison: a base, its inputs, and switches that differ from the base's own
    defaults.

    Example:
        >>> ModelSettings(name="wide", base="mmoe", options={"experts": 12}).ids is None
        True
    """

    name: str
    """Name of its row in tables."""
    base: str
    """A preset to start from, a model of an extension, or `module:Class` for a model of your own."""
    inputs: tuple[str, ...] | None = None
    """Input groups by name; those of the base by default."""
    ids: Annotated[
        Literal["auto", "on", "off"] | None,
        BeforeValidator(
            lambda v: ("off", "on")[v] if isinstance(v, bool) else v,
            json_schema_input_type=Literal["auto", "on", "off"] | bool | None,
        ),
    ] = None
    """By default as the base has it. `auto` switches ids off on logs where they only overfit, because the
    median user or item has few training positives. YAML reads `on` and `off` as true and false, which are
    accepted too."""
    options: dict[str, Any] = {}
    """Switches of the base, checked by the base itself."""
    training: dict[str, Any] = {}
    """Training settings that differ for this model (`learning_rate`, `epochs`, ...)."""


Models = list[
    Annotated[
        Annotated[ModelSettings, Tag("ModelSettings")] | Annotated[str, Tag("str")],
        Discriminator(lambda model: "ModelSettings" if isinstance(model, dict | ModelSettings) else "str"),
    ]
]
"""Models by name, or with all their settings."""


class TrainingSettings(Settings):
    """Training of a model.

    Example:
        >>> TrainingSettings(epochs=2).batch_size
        4096
    """

    epochs: int = Field(default=4, ge=1, json_schema_extra=or_auto)
    """Maximum number of epochs, or `auto`."""
    batch_size: int = Field(default=4096, ge=1, json_schema_extra=or_auto)
    """Examples per step, or `auto`."""
    learning_rate: float = Field(default=5e-3, gt=0, allow_inf_nan=False, json_schema_extra=or_auto)
    """Learning rate of AdamW, for everything but tables, or `auto`."""
    table_learning_rate: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    """Learning rate of the row-wise optimiser of the embedding tables."""
    weight_decay: float = Field(default=1e-5, ge=0, allow_inf_nan=False)
    """Weight decay of AdamW."""
    clip: float = Field(default=1.0, gt=0)
    """Maximum norm of all dense gradients together. Tables need no limit: their optimiser divides by the
    norm."""
    monitor: str = "all.ranking"
    """Metric by which validation selects the epoch: `task.metric`, or `all.metric` for the mean over tasks.
    `ranking` is the mean of AUC and GAUC. If every task is a regression, the default means `all.rmse`."""
    patience: int = Field(default=2, ge=1)
    """Epochs without improvement before training stops."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`float32`, `bfloat16`, or `auto`: bfloat16 if the hardware multiplies it."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda|cuda:[0-9]+)$")
    """`cpu`, `cuda`, `cuda:N`; `auto` takes a GPU if there is one."""
    threads: int = Field(default=1, ge=1)
    """Threads of one training process."""
    tables: Literal["auto", "replicated", "sharded"] = "auto"
    """If several processes train: `replicated` keeps every table in each process, `sharded` spreads rows over
    them (TorchRec), `auto` spreads them if the tables would take more than half of a process's free
    memory."""
    rows: int | None = Field(default=None, ge=1)
    """Maximum number of training rows, the newest: whole buckets, in which an event log's positives count
    with all negatives that may be drawn. All by default."""
    refit: Literal["none", "anew", "continue"] = "none"
    """How weights learn the validation rows once these have chosen, and the test rows for the bundle: trained
    `anew` on all rows for the epochs that were chosen, or `continue` as `retrain` says, with older rows
    replayed; `none` leaves them out. Boosted trees are always trained anew."""
    checkpoint: Length = "10m"
    """Time between checkpoints, besides those after each epoch."""
    track: Literal["none", "mlflow"] = "none"
    """Where training curves are logged, besides `curves.json`."""


class EvaluationSettings(Settings):
    """Metrics on validation and test.

    Example:
        >>> EvaluationSettings(k=[20]).slices
        True
    """

    k: list[Count] = [10, 50]
    """Depths of HR@k and NDCG@k."""
    ranking_queries: int = Field(default=100, ge=0)
    """Number of test users for whom the whole catalogue is ranked; 0 skips this."""
    slices: bool = True
    """Also measure parts of the test examples."""


class RunSettings(Settings):
    """Settings of a run, from log to bundle.

    Example:
        >>> RunSettings(data={"log": "clicks.parquet"}, tasks=["click", "buy"]).ranks
        (1.0, 2.0)
    """

    data: DataSettings
    """Where the log is and what its columns mean."""
    memory: float = Field(default=MEMORY, ge=0.25, allow_inf_nan=False)
    """Limit of anonymous memory in GiB, of every stage; the rest is on disk."""
    spark: SparkSettings = SparkSettings()
    """The cluster of what runs on Spark."""
    tasks: Annotated[
        list[TaskSettings],
        BeforeValidator(
            lambda v: [{"name": t} if isinstance(t, str) else t for t in v] if isinstance(v, list) else v,
            json_schema_input_type=list[TaskSettings | str],
        ),
    ] = Field(min_length=1, max_length=16)
    """The tasks, weakest to strongest."""
    split: SplitSettings = SplitSettings()
    """Cuts in time."""
    negatives: NegativeSettings = NegativeSettings()
    """Sampled negatives of event logs."""
    graph: GraphSettings = GraphSettings()
    """The macro graph."""
    models: Models = Field(default=["mgoe", "shared-bottom+mgoe", "popularity", "history"], min_length=1)
    """Rows of the comparison. The first one is served, unless validation puts another one measurably ahead.
    A string names a preset, such as `mgoe`, `mgoe-paper`, `mmoe`, `ple`, `macgnn` or `lightgbm`, each with
    `+counts`, `+moment`, `+edges`, `+graph` or `+mgoe` for other inputs."""
    serve: str | None = None
    """The one of `models` that the bundle holds, whatever validation says."""
    training: TrainingSettings = TrainingSettings()
    """How a model is fitted."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """What is measured."""
    retrieval: Retrieval = "auto"
    """How a bundle finds the items that it ranks. `exact` ranks the whole catalogue, settings retrieve
    candidates, and `auto` does the latter from 2,000 items on."""
    retrain: RetrainSettings = RetrainSettings()
    """How the weights of a bundle learn from new rows."""
    seeds: Seeds = Field(default=[0], min_length=1)
    """Every model is trained once per seed, which decides initialisation and order of examples. Negatives and
    graph have seeds of their own."""
    jobs: int = Field(default=1, ge=1)
    """Number of models that are trained at the same time, each in a process."""

    @model_validator(mode="after")
    def _tasks_agree(self) -> Self:
        names = [task.name for task in self.tasks]
        check_differ("task names", names)
        if "all" in names:
            raise ValueError(
                "tasks.all: results call the mean over tasks `all`, found a task of that name; choose another"
            )
        check_differ("seeds", self.seeds)
        if self.form == "events" and self.data.user is None:
            raise ValueError(
                "data.user: an event log says who did what, found null; name the column, or give each task "
                "the column of its label if rows say what was shown"
            )
        if self.form == "events" and self.data.behavior is None and len(names) > 1:
            raise ValueError(
                "data.behavior: a log that does not say what happened has one task, which every row does, "
                f"found {', '.join(names)}; name the column, or keep one task"
            )
        if self.data.history == "moment" and self.negatives.distribution == "uniform":
            raise ValueError(
                "negatives.distribution: where rows read up to their moment (data.history: moment), "
                "negatives are what others did next, found uniform; leave it out, or set data.history: bucket"
            )
        check_folders(self.models)
        rows = [model if isinstance(model, str) else model.name for model in self.models]
        if self.serve is not None and self.serve not in rows:
            raise ValueError(
                f"serve must name one of `models`, {', '.join(rows)}, found {self.serve!r}"
                f"{did_you_mean(self.serve, rows)}"
            )
        for position, task in enumerate(self.tasks):
            if task.given is not None and task.given not in names[:position]:
                raise ValueError(
                    f"tasks.{task.name}.given must name a weaker task listed before, found "
                    f"{task.given!r}{did_you_mean(task.given, names)}"
                )
            if task.given is not None and self.tasks[names.index(task.given)].kind == "regression":
                raise ValueError(
                    f"tasks.{task.name}.given must name a binary task, found {task.given!r}, a regression; "
                    "leave it out"
                )
            if task.label is None and self.form == "exposures":
                raise ValueError(
                    f"tasks.{task.name}.label is needed: an exposure log has one label column per task"
                )
            if self.form == "events" and (task.kind == "regression" or task.label):
                raise ValueError(
                    f"tasks.{task.name}: an event log holds only behaviours; regression and label columns "
                    "need `data.form: exposures`"
                )
        return self

    @model_validator(mode="after")
    def _graph_has_a_driver(self) -> Self:
        if self.graph.engine == "spark" and self.spark.master.startswith("sc://"):
            raise ValueError(
                "spark.master: Spark Connect builds no graph, because its arrays go to the workers as files "
                f"of the driver, found {self.spark.master}; name a classic master, such as "
                "spark://host:7077, or set graph.engine: local"
            )
        return self

    @property
    def form(self) -> Literal["events", "exposures"]:
        """The form of the log, with `auto` resolved."""
        found = "exposures" if any(task.label for task in self.tasks) else "events"
        return found if self.data.form == "auto" else self.data.form

    @property
    def ranks(self) -> tuple[float, ...]:
        """Rank of each task, weakest first. Shape (T,)."""
        return tuple(
            task.rank if task.rank is not None else position + 1.0 for position, task in enumerate(self.tasks)
        )

    @property
    def task_names(self) -> tuple[str, ...]:
        return tuple(task.name for task in self.tasks)


def check_folders(models: Sequence[str | ModelSettings]) -> None:
    """Check that a folder can be named after each model, and that no model has the name of another row.

    Raises:
        ValueError: A name is not allowed.
    """
    for model in models:
        name = model if isinstance(model, str) else model.name
        if not name or name.startswith(".") or "/" in name or "\\" in name:
            raise ValueError(
                "models: a folder is named after each, so a name has no slash and does not begin with a "
                f"dot, found {name!r}"
            )
        if name in BOUNDS:
            raise ValueError(
                f"models: {' and '.join(BOUNDS)} are rows of every table on a simulated log; choose another "
                f"name than {name!r}"
            )


def check_differ(kind: str, names: Sequence[str | int]) -> None:
    """Check that all names differ.

    Raises:
        ValueError: A name occurs twice.
    """
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ValueError(f"{kind} must differ, found {repeated!r} twice")
