"""What is compared: models, how they are fitted, and what is measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from mgoe.config.base import Count, Length, Seed, Settings

Balance = Literal["fixed", "uncertainty", "upgrad", "dualproj", "pcgrad", "mgda", "imtl-g", "aligned-mtl"]
BOUNDS = ("chance", "best-reachable")
"""Rows beside those of models on a simulated log."""


class ModelSettings(Settings):
    """One model of the comparison: a base, its inputs, and switches that differ from the base's own defaults."""

    name: str
    base: str
    inputs: tuple[str, ...] | None = None
    """Input groups by name; those of the base by default."""
    ids: Annotated[
        Literal["auto", "on", "off"] | None,
        BeforeValidator(lambda v: ("off", "on")[v] if isinstance(v, bool) else v),
    ] = None
    """The base's own where not given. `auto` switches ids off on logs where they only overfit: where the median user or item has few
    training positives. YAML takes `on` and `off` for yes and no, which are read as them."""
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
"""By name, or in full."""


class TrainingSettings(Settings):
    """How a model is fitted."""

    epochs: int = Field(default=4, ge=1)
    batch_size: int = Field(default=4096, ge=1)
    learning_rate: float = Field(default=5e-3, gt=0, allow_inf_nan=False)
    table_learning_rate: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    """Of the row-wise optimiser of the embedding tables."""
    weight_decay: float = Field(default=1e-5, ge=0, allow_inf_nan=False)
    clip: float = Field(default=1.0, gt=0)
    """Norm that all dense gradients together are cut to. Tables need none: their optimiser divides by it."""
    balance: Balance = "fixed"
    """How tasks share what they all move: `fixed` adds up losses times their weights, `uncertainty` learns the weights, the others
    reconcile gradients (TorchJD)."""
    monitor: str = "all.ranking"
    """What validation picks the epoch by: `task.metric`, or `all.metric` for the mean over tasks. `ranking` is the mean of AUC and GAUC.
    Where every task is a regression, the default stands for `all.rmse`."""
    patience: int = Field(default=2, ge=1)
    """Epochs without a better value before stopping."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"
    threads: int = Field(default=1, ge=1)
    """Of one training process."""
    compile: bool = False
    """Compile the dense part, which takes a minute at the start and a C++ compiler."""
    tables: Literal["auto", "replicated", "sharded"] = "auto"
    """Where several processes train: every table on each of them, rows spread over them (TorchRec), or `auto`: spread where the tables
    would take more than half of the memory that a process may still take."""
    memory: float = Field(default=4.0, gt=0, allow_inf_nan=False)
    """GiB that training examples may take; more are streamed from disk, shuffled in windows of an eighth of that."""
    checkpoint: Length = "10m"
    """Time between checkpoints, besides those after each epoch."""
    keep: int = Field(default=2, ge=1)
    """Checkpoints kept of an unfinished fit, besides the best weights."""
    track: Literal["none", "tensorboard", "mlflow"] = "none"
    """What is told how each fit goes, besides `curves.json`."""


class EvaluationSettings(Settings):
    """What is measured on validation and test."""

    k: list[Count] = [10, 50]
    """Depths of HR@k and NDCG@k."""
    ranking_queries: int = Field(default=100, ge=0)
    """Seeded test users whose whole catalogue is ranked; 0 leaves it out."""
    slices: bool = True
    seed: Seed = 0
    """Of the draw of those users."""


def check_folders(models: Sequence[str | ModelSettings]) -> None:
    """See that a folder can be named after each model, and that none has the name of another row.

    Raises:
        ValueError: One is not.
    """
    for model in models:
        name = model if isinstance(model, str) else model.name
        if not name or name.startswith(".") or "/" in name or "\\" in name:
            raise ValueError(
                f"models: a folder is named after each, so that a name has no slash and begins with no dot, found {name!r}"
            )
        if name in BOUNDS:
            raise ValueError(
                f"models: {' and '.join(BOUNDS)} are rows of every table on a simulated log; choose another name than {name!r}"
            )


def check_differ(kind: str, names: Sequence[str | int]) -> None:
    """See that nothing is named twice.

    Raises:
        ValueError: Something is.
    """
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ValueError(f"{kind} must differ, found {repeated!r} twice")
