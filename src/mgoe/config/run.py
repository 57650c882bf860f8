"""The settings of one run."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from mgoe.config.base import Seeds, Settings, did_you_mean
from mgoe.config.graph import GraphSettings
from mgoe.config.log import DataSettings, NegativeSettings, SplitSettings, TaskSettings
from mgoe.config.models import EvaluationSettings, Models, TrainingSettings, check_differ, check_folders


class RunSettings(Settings):
    """Settings of a run, from log to bundle."""

    data: DataSettings
    tasks: Annotated[
        list[TaskSettings],
        BeforeValidator(
            lambda v: [{"name": t} if isinstance(t, str) else t for t in v] if isinstance(v, list) else v
        ),
    ] = Field(min_length=1, max_length=16)
    """The tasks, weakest to strongest."""
    split: SplitSettings = SplitSettings()
    negatives: NegativeSettings = NegativeSettings()
    graph: GraphSettings = GraphSettings()
    models: Models = Field(default=["mgoe", "shared-bottom", "mmoe"], min_length=1)
    """Rows of the comparison; a bundle is written for the first. A string names a preset, such as `mgoe`,
    `mgoe-paper`, `mmoe`, `ple`, `macgnn` or `lightgbm`, each with `+counts`, `+edges`, `+graph` or `+mgoe`
    for other inputs."""
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    seeds: Seeds = Field(default=[0], min_length=1)
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
        check_folders(self.models)
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

    @property
    def form(self) -> Literal["events", "exposures"]:
        """The form of the log, with `auto` resolved."""
        if self.data.form != "auto":
            return self.data.form
        return "exposures" if any(task.label for task in self.tasks) else "events"

    @property
    def ranks(self) -> tuple[float, ...]:
        """Rank of each task, weakest first. Shape (T,)."""
        return tuple(
            task.rank if task.rank is not None else position + 1.0 for position, task in enumerate(self.tasks)
        )

    @property
    def task_names(self) -> tuple[str, ...]:
        return tuple(task.name for task in self.tasks)
