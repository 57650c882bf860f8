"""Models, their training, and what is evaluated."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from mgoe.config.base import Count, Length, Seed, Settings

Balance = Literal["fixed", "uncertainty", "upgrad", "dualproj", "pcgrad", "mgda", "imtl-g", "aligned-mtl"]
BOUNDS = ("chance", "best-reachable")
"""Rows beside those of models on a simulated log."""


class ModelSettings(Settings):
    """One model of the comparison: a base, its inputs, and switches that differ from the base's own
    defaults."""

    name: str
    base: str
    inputs: tuple[str, ...] | None = None
    """Input groups by name; those of the base by default."""
    ids: Annotated[
        Literal["auto", "on", "off"] | None,
        BeforeValidator(lambda v: ("off", "on")[v] if isinstance(v, bool) else v),
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
    """Training of a model."""

    epochs: int = Field(default=4, ge=1)
    batch_size: int = Field(default=4096, ge=1)
    learning_rate: float = Field(default=5e-3, gt=0, allow_inf_nan=False)
    table_learning_rate: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    """Learning rate of the row-wise optimiser of the embedding tables."""
    weight_decay: float = Field(default=1e-5, ge=0, allow_inf_nan=False)
    clip: float = Field(default=1.0, gt=0)
    """Maximum norm of all dense gradients together. Tables need no limit: their optimiser divides by the
    norm."""
    balance: Balance = "fixed"
    """How the losses of tasks are combined: `fixed` adds them with their weights, `uncertainty` learns the
    weights, the others reconcile gradients (TorchJD)."""
    monitor: str = "all.ranking"
    """Metric by which validation selects the epoch: `task.metric`, or `all.metric` for the mean over tasks.
    `ranking` is the mean of AUC and GAUC. If every task is a regression, the default means `all.rmse`."""
    patience: int = Field(default=2, ge=1)
    """Epochs without improvement before training stops."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"
    threads: int = Field(default=1, ge=1)
    """Threads of one training process."""
    compile: bool = False
    """Whether to compile the dense part, which takes a minute at the start and needs a C++ compiler."""
    tables: Literal["auto", "replicated", "sharded"] = "auto"
    """If several processes train: `replicated` keeps every table in each process, `sharded` spreads rows over
    them (TorchRec), `auto` spreads them if the tables would take more than half of a process's free
    memory."""
    memory: float = Field(default=4.0, gt=0, allow_inf_nan=False)
    """GiB that training examples may take; more are streamed from disk and shuffled in windows of an
    eighth of this."""
    checkpoint: Length = "10m"
    """Time between checkpoints, besides those after each epoch."""
    keep: int = Field(default=2, ge=1)
    """Checkpoints kept of unfinished training, besides the best weights."""
    track: Literal["none", "tensorboard", "mlflow"] = "none"
    """Where training curves are logged, besides `curves.json`."""


class EvaluationSettings(Settings):
    """Metrics on validation and test."""

    k: list[Count] = [10, 50]
    """Depths of HR@k and NDCG@k."""
    ranking_queries: int = Field(default=100, ge=0)
    """Number of test users for whom the whole catalogue is ranked; 0 skips this."""
    slices: bool = True
    seed: Seed = 0
    """Seed of the choice of those users."""


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
