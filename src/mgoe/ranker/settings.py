"""The parameters of a `Ranker` as the settings of a run, and back."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from mgoe.config import ModelSettings, RunSettings, check_settings, deep_merge, load_settings, make_settings
from mgoe.data import guess
from mgoe.data.arrow import is_list, is_text
from mgoe.data.guess_side import NAMES
from mgoe.errors import ConfigError, DataError
from mgoe.models import RankingModel, resolve
from mgoe.pipeline.folder import SETTINGS

Model = str | Mapping[str, Any] | type[RankingModel]
"""A preset by name, all settings of a model, or a class of one's own."""
Tasks = Sequence[str | Mapping[str, Any]] | None
"""Tasks by name, or with their settings; None guesses them."""
COLUMNS = ("user", "item", "time", "behavior")
SECTIONS = ("split", "negatives", "graph", "training", "evaluation")
"""Sections of the settings of a run that a ranker has no parameters of its own for."""


def settings_of_run(
    files: Mapping[str, Path | str],
    tasks: Tasks,
    columns: Mapping[str, str],
    model: Model,
    *sections: Mapping[str, Any],
) -> RunSettings:
    """Return the settings that `mgoe init` would write for a log, below what is given.

    Rows without an id are refused unless `data.missing_ids` is given.

    Args:
        files: The log, `events`, and the side tables, `users` and `items`.
        tasks: Weakest to strongest. A name is a label column if the log has columns of all names and no
            column of behaviours is given; otherwise a behaviour.
        columns: By the names of `COLUMNS`; others are guessed.
        model: The model to train.
        sections: More settings by section, above everything before.

    Raises:
        ConfigError: A setting is unknown or breaks its rule.
        DataError: The log cannot be read, a column is missing, or it is unclear what a column means.
    """
    data = [item for part in sections for item in part.get("data", {}).items()]
    twice = [name for name, value in data if value and name in files]
    if twice:
        raise ConfigError(
            twice[0], f"is given twice, as a frame or path and in settings; leave `data.{twice[0]}` out there"
        )
    for name, column in columns.items():
        if not isinstance(column, str):
            raise ConfigError(name, f"must be the name of a column, found {column!r}; give a text")
    given = _checked(tasks)
    values = None if given is None else [_value(task) for task in given]
    raw = yaml.safe_load(guess(files["events"], columns, values))
    raw["data"].pop("missing_ids", None)  # nobody reads here how many rows `init` would leave out
    sides = {
        f"{node}s": _side_table(files[f"{node}s"], raw["data"][node])
        for node in ("user", "item")
        if f"{node}s" in files
    }
    own: dict[str, Any] = {"models": [_settings_of_model(model)], "data": sides}
    if given is not None:
        own["tasks"] = [_settings_of_task(task, "behavior" not in raw["data"]) for task in given]
    return make_settings(deep_merge(raw, own, *sections), "Ranker")


def sections_of(
    context: Sequence[str | Mapping[str, Any]], seed: int, threads: int | None, memory: float | None
) -> dict[str, Any]:
    """Return the parameters of a ranker that are settings of their own, by section.

    Raises:
        ConfigError: The context is not a list.
    """
    if isinstance(context, str | Mapping) or not isinstance(context, Sequence):
        raise ConfigError("context", f"must be a list of columns or settings, found {context!r}; give one")
    features = [{"name": one} if isinstance(one, str) else dict(one) for one in context]
    return {
        "data": {"context": features} if features else {},
        "training": {} if threads is None else {"threads": threads},
        "seeds": [seed],
        **({} if memory is None else {"memory": memory}),
    }


def with_models(run: Path, models: Sequence[Model]) -> RunSettings:
    """Return the settings of a run with its first model, and others after it.

    Args:
        run: Its folder.
        models: The others. One that is the first model itself is left out.

    Raises:
        ConfigError: There is no other model, or one is unknown or breaks a rule.
    """
    if isinstance(models, str | Mapping) or not isinstance(models, Sequence):
        raise ConfigError("models", f"must be a list of models, found {models!r}; give a list")
    settings = load_settings(run / SETTINGS)
    own, given = settings.models[0], [_settings_of_model(model) for model in models]
    others = [one if isinstance(one, str) else check_settings(ModelSettings, one, "models") for one in given]
    others = [model for model in others if resolve(model) != resolve(own)]
    if not others:
        raise ConfigError("models", "must hold a model to compare with, found none; name one, such as 'mmoe'")
    raw = settings.model_dump(mode="json") | {"models": [own, *others]}
    return make_settings(raw, "compare")


def parameters_of(settings: RunSettings, model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of the ranker that a bundle comes from.

    Args:
        settings: Of its run.
        model: Of its model.
    """
    raw = settings.model_dump(mode="json")
    columns = COLUMNS if settings.form == "events" else COLUMNS[:-1]
    own = {
        "tasks": raw["tasks"],
        **{name: raw["data"][name] for name in columns},
        "context": raw["data"].pop("context"),
        "model": dict(model),
        "seed": settings.seeds[0],
        "threads": raw["training"].pop("threads"),
        "memory": settings.memory,
    }
    absent = [name for name in ("users", "items") if raw["data"][name] is None]
    rest = {key: value for key, value in raw["data"].items() if key not in (*COLUMNS, "log", *absent)}
    return own | {"settings": {"data": rest} | {name: raw[name] for name in SECTIONS}}


def _checked(tasks: Tasks) -> list[dict[str, Any]] | None:
    if tasks is None:
        return None
    several = isinstance(tasks, Sequence) and not isinstance(tasks, str)
    if not (several and tasks and all(isinstance(task, str | Mapping) for task in tasks)):
        raise ConfigError("tasks", f"must be a list of names or of settings, found {tasks!r}; give a list")
    given = [{"name": task} if isinstance(task, str) else dict(task) for task in tasks]
    if unnamed := next((task for task in given if not isinstance(task.get("name"), str)), None):
        raise ConfigError("tasks", f"each task needs a name, found {unnamed}; add its `name`")
    return given


def _value(task: Mapping[str, Any]) -> str:
    """Return the label column of a task, or its first behaviour."""
    behaviors = task.get("behaviors") or task["name"]
    return task.get("label") or (behaviors if isinstance(behaviors, str) else behaviors[0])


def _settings_of_task(task: Mapping[str, Any], shown: bool) -> dict[str, Any]:
    return {**task, "label": _value(task)} if shown and "behaviors" not in task else dict(task)


def _settings_of_model(model: Model) -> str | dict[str, Any]:
    if isinstance(model, type):
        return {"name": model.__name__, "base": _path_of(model)}
    if not isinstance(model, str | Mapping):
        raise ConfigError("model", f"must be a name, settings or a class, found {model!r}; give one of them")
    if isinstance(model, str):
        return model
    return {key: _path_of(value) if isinstance(value, type) else value for key, value in model.items()}


def _path_of(model: type) -> str:
    if not issubclass(model, RankingModel):
        raise ConfigError("model", f"a class must be a mgoe.models.RankingModel, found {model.__name__}")
    return f"{model.__module__}:{model.__qualname__}"


def _side_table(file: Path | str, id: str) -> dict[str, Any]:
    """Return the settings of a side table whose columns are all features, but for the id and the names.

    A text column called `name` or `title` holds names. Floats are numeric features, lists of floats are
    vectors, other lists hold several categories, and all other columns are categories; times are left out.

    Args:
        file: A Parquet file.
        id: Its column of ids.

    Raises:
        DataError: It is no Parquet file, there is no such column, or it is the only one.
    """
    try:
        schema = pq.read_schema(file)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            file, f"a side table is a frame or a Parquet file, found that {error}; read it into a frame first"
        ) from None
    name = next((one.name for one in schema if one.name.lower() in NAMES and is_text(one.type)), None)
    features = [
        {"name": field.name, "kind": _kind(field.type)}
        for field in schema
        if field.name not in (id, name) and not pa.types.is_temporal(field.type)
    ]
    if id not in schema.names or not (features or name):
        raise DataError(
            file,
            f"a side table has the id column of the log, {id!r}, and a column per feature, found "
            f"{', '.join(schema.names)}; rename or add columns",
        )
    return {"path": str(file), "id": id, "name": name, "features": features}


def _kind(type: pa.DataType) -> str:
    if is_list(type):
        return "vector" if pa.types.is_floating(type.value_type) else "multi"
    return "numeric" if pa.types.is_floating(type) or pa.types.is_decimal(type) else "categorical"
