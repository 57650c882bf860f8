"""Reading settings from YAML or a mapping, with overrides; an error names the key that breaks a rule."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mgoe.config.base import PositiveLength, Settings, did_you_mean
from mgoe.config.comparison import ComparisonSettings
from mgoe.config.experiment import ExperimentSettings
from mgoe.config.log import seconds
from mgoe.config.run import RunSettings
from mgoe.errors import ConfigError

S = TypeVar("S", bound=Settings)


MOVED = {"graph.spark": "spark", "graph.memory": "memory", "training.memory": "memory"}
"""Where a setting of an earlier version is now."""


class Lasting(Settings):
    """A length of time by itself."""

    length: PositiveLength


class _Loader(yaml.SafeLoader):
    """Refuse a key that is given twice; YAML would silently keep the last one."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if (key.tag, key.value) in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} is given twice", problem_mark=key.start_mark
                )
            seen.add((key.tag, key.value))
        return node


def load_settings(path: Path | str, overrides: Sequence[str] = ()) -> RunSettings:
    """Read a YAML file, apply `key.path=value` overrides, and check everything.

    Paths under `data` are not changed; relative ones are looked up from the working folder. The log is not
    read, so `auto` is refused where it stands for a choice from the log; `mgoe.data.read_settings` makes it.

    Raises:
        ConfigError: The file is missing or not YAML, a key is unknown, or a value breaks its rule.

    Example:
        >>> size = Path("mine.yaml").write_text("data: {log: clicks.parquet}\\ntasks: [click, buy]")
        >>> load_settings("mine.yaml", ["training.epochs=2"]).training.epochs
        2
    """
    return make_settings(read_yaml(path, overrides), path)


def load_comparison(path: Path | str, overrides: Sequence[str] = ()) -> ComparisonSettings:
    """Read the YAML file of a comparison, apply `key.path=value` overrides, and check everything but its
    logs.

    Raises:
        ConfigError: The file is missing or not YAML, a key is unknown, or a value breaks its rule.

    Example:
        >>> text = "logs: {mine: {run: mine.yaml}}\\nmodels: [mgoe, mmoe]"
        >>> size = Path("arena.yaml").write_text(text)
        >>> load_comparison("arena.yaml", ["seeds=[0, 1]"]).seeds
        [0, 1]
    """
    return check_settings(
        ComparisonSettings, read_yaml(path, overrides, "must hold a mapping with `logs:` and `models:`"), path
    )


def load_experiment(path: Path | str) -> ExperimentSettings:
    """Read the YAML file of an experiment and check it.

    Raises:
        ConfigError: The file is missing or not YAML, a key is unknown, or a value breaks its rule.

    Example:
        >>> text = "id: one\\narms: [{name: a, share: 0.5}, {name: b, share: 0.5}]"
        >>> size = Path("experiment.yaml").write_text(text)
        >>> load_experiment("experiment.yaml").coverage
        1.0
    """
    raw = read_yaml(path, rule="must hold a mapping with `id:` and `arms:`")
    return check_settings(ExperimentSettings, raw, path)


def load_experiments(paths: Sequence[Path]) -> list[ExperimentSettings]:
    """Read the experiments of one service, which share no unit.

    Raises:
        ConfigError: A file breaks a rule, or one unit could be in two of the experiments.

    Example:
        >>> load_experiments([])
        []
    """
    found = [load_experiment(path) for path in paths]
    for number, path in enumerate(paths):
        for before, other in zip(paths[:number], found, strict=False):
            if other.id == found[number].id or not other.is_apart(found[number]):
                raise ConfigError(
                    path,
                    f"overlaps {before} on one unit: experiments of one service need different ids, the same "
                    "unit, and ranges of one namespace that do not overlap, as in namespace: "
                    "{id: lists, range: [0.5, 1]}; change the file, or serve one of them",
                )
            if found[number].shadow is not None:
                raise ConfigError(path, "shadow: must be in the first file of a service; move it there")
    return found


def read_yaml(
    path: Path | str,
    overrides: Sequence[str] = (),
    rule: str = "must hold a mapping with `data:` and `tasks:`; `mgoe init LOG` writes one",
) -> dict[str, Any]:
    """Read a YAML file that holds a mapping, and apply overrides.

    Args:
        path: The file.
        overrides: `key.path=value`.
        rule: What the file must hold, for messages; by default the settings of a run.

    Raises:
        ConfigError: The file is missing, or not a YAML mapping.

    Example:
        >>> size = Path("own.yaml").write_text("shelves: 3")
        >>> read_yaml("own.yaml", ["shelves=4"], "must hold a mapping")
        {'shelves': 4}
    """
    path = Path(path)
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise ConfigError(path, f"no such file; it {rule}") from None
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: an impossible date, or not UTF-8
        raise ConfigError(path, f"cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ConfigError(path, f"{rule}, found {type(raw).__name__}")
    return overridden(raw, overrides)


def make_settings(raw: dict[str, Any], place: Path | str = "settings") -> RunSettings:
    """Check a mapping and return it as `RunSettings`.

    Raises:
        ConfigError: A key is unknown or a value breaks its rule; the message names the key.

    Example:
        >>> make_settings({"data": {"log": "clicks.parquet"}, "tasks": ["click", "buy"]}).task_names
        ('click', 'buy')
    """
    return check_settings(RunSettings, raw, place)


def check_settings(kind: type[S], raw: dict[str, Any], place: Path | str = "settings") -> S:
    """Check a mapping and return it as settings of one kind.

    Raises:
        ConfigError: A key is unknown or a value breaks its rule; the message names the key.

    Example:
        >>> from mgoe.config import SplitSettings
        >>> check_settings(SplitSettings, {"cuts": [0.4, 0.6, 0.8]}).cuts
        [0.4, 0.6, 0.8]
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(place, _describe(error, kind, raw)) from None


def seconds_of(length: str, place: Path | str) -> int:
    """Return the seconds of a length of time that is given outside of settings.

    Raises:
        ConfigError: It is not written like one.

    Example:
        >>> seconds_of("90m", "--stop-after")
        5400
    """
    return seconds(check_settings(Lasting, {"length": length}, place).length)


def dump_settings(settings: BaseModel) -> str:
    """Return settings as YAML, including every default.

    Example:
        >>> from mgoe.config import NegativeSettings
        >>> print(dump_settings(NegativeSettings()).splitlines()[0])
        ratio: 3
    """
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def overridden(raw: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Set keys of a mapping from `key.path=value`, the value read as YAML, and return the mapping.

    Raises:
        ConfigError: The override is not of this form, or its path leads through a value that is not a
            mapping.

    Example:
        >>> overridden({"training": {"epochs": 4}}, ["training.epochs=2"])
        {'training': {'epochs': 2}}
    """
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise ConfigError("--set", f"takes key.path=value, found {override!r}")
        node: Any = raw
        *parents, last = key.split(".")
        for name in parents:
            if not isinstance(node, dict):
                raise ConfigError(f"--set {key}", f"{name!r} is below a key that is not a mapping")
            node = node.setdefault(name, {})
        if not isinstance(node, dict):
            raise ConfigError(
                f"--set {key}", "is below a key that is not a mapping; give the whole list or value instead"
            )
        try:
            node[last] = yaml.load(value, _Loader)
        except (ValueError, yaml.YAMLError):
            raise ConfigError(f"--set {key}", f"the value is not YAML: {value!r}") from None
    return raw


def _describe(error: ValidationError, kind: type[BaseModel], raw: object) -> str:
    # a misspelled key comes first: it is why another one is missing
    first, *others = sorted(error.errors(), key=lambda one: not _is_unknown(one, raw))
    keys = _keys(first, raw)
    key = ".".join(keys) or "settings"
    # a value of several possible types has one error per type
    elsewhere = {tuple(_keys(other, raw)) for other in others} - {tuple(keys)}
    more = f" (and {len(elsewhere)} more)" if elsewhere else ""
    if first["type"] == "extra_forbidden" and key in MOVED:
        return f"{key!r} is now {MOVED[key]!r}, at the top level; move it there{more}"
    if first["type"] == "extra_forbidden":
        return f"unknown key {key!r}{did_you_mean(keys[-1], _names_at(kind, keys[:-1]))}{more}"
    if first["type"] == "missing":
        return f"{key} is needed and missing{more}"
    found = (
        ""
        if isinstance(first["input"], dict) or first["type"] == "value_error"
        else f", found {first['input']!r}"
    )
    return f"{key}: {first['msg'].removeprefix('Value error, ')}{found}{more}"


def _is_unknown(error: ErrorDetails, raw: object) -> bool:
    """Return whether a key is unknown, whichever of several possible types its settings have."""
    return error["type"] == "extra_forbidden" and len(_keys(error, raw)) == len(error["loc"])


def _keys(error: ErrorDetails, here: object) -> list[str]:
    """Return the keys that lead to an error, without pydantic's own names of types, branches and
    functions."""
    keys = []
    for part in error["loc"]:
        inside = (
            part in here
            if isinstance(here, dict)
            else isinstance(here, list | tuple) and part in range(len(here))
        )
        if inside:
            here = here[part]  # type: ignore[index]
            keys.append(str(part))
    return [*keys, str(error["loc"][-1])] if error["type"] == "missing" else keys


def _names_at(here: type[BaseModel], keys: Sequence[str]) -> list[str]:
    """Return the valid keys of the settings at a place."""
    for key in keys:
        field = here.model_fields.get(key)
        if field is not None:
            here = next(
                (t for t in _leaves(field.annotation) if isinstance(t, type) and issubclass(t, BaseModel)),
                here,
            )
    return list(here.model_fields)


def _leaves(annotation: object) -> list[object]:
    inner = get_args(annotation)
    return [leaf for part in inner for leaf in _leaves(part)] if inner else [annotation]
