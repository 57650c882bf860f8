"""Settings that a configuration leaves to the log by `auto`: rules choose them before anything else reads
it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mgoe._util.tables import Frame
from mgoe.config import AUTO, RunSettings, deep_merge, make_settings, nested, read_yaml
from mgoe.data.log import open_source, place_of, work_database
from mgoe.data.rules import Chosen, Scan, choose


def read_settings(
    settings: RunSettings | Path | str, overrides: Sequence[str] = (), table: Frame | None = None
) -> RunSettings:
    """Return the settings of a run; those that the file leaves to the log by `auto` are chosen from it.

    Args:
        settings: The YAML file that holds them, or settings, which are returned.
        overrides: `key.path=value`, for a file.
        table: Read instead of the log's files.

    Raises:
        ConfigError: The file is missing or not YAML, a key is unknown, or a value breaks its rule.
        DataError: The log cannot be read, or lacks a column.

    Example:
        >>> text = f"data: {{log: {log}}}\\ntasks: [click, buy]\\ntraining: {{batch_size: auto}}"
        >>> size = Path("auto.yaml").write_text(text)
        >>> read_settings("auto.yaml").training.batch_size
        256
    """
    if isinstance(settings, RunSettings):
        return settings
    raw = read_yaml(settings, overrides)
    found = choices(raw, settings, table)
    return make_settings(deep_merge(raw, nested({key: one.value for key, one in found.items()})), settings)


def choices(
    raw: Mapping[str, Any], place: Path | str = "settings", table: Frame | None = None
) -> dict[str, Chosen]:
    """Return what the rules choose for the keys of a configuration that say `auto`, by dotted key.

    The log is read only if there are some.

    Args:
        raw: The configuration.
        place: What it is, for messages.
        table: Read instead of the log's files.

    Raises:
        ConfigError: A key is unknown or a value breaks its rule.
        DataError: The log cannot be read, or lacks a column.

    Example:
        >>> raw = {"data": {"log": str(log)}, "tasks": ["click", "buy"], "training": {"epochs": "auto"}}
        >>> choices(raw)["training.epochs"].value
        8
    """
    parts = {section: part for section, part in raw.items() if isinstance(part, Mapping)}
    asked = [(s, name) for s in AUTO for name in AUTO[s] if parts.get(s, {}).get(name) == "auto"]
    if not asked:
        return {}
    rest = {s: {k: v for k, v in part.items() if (s, k) not in asked} for s, part in parts.items()}
    settings = make_settings({**raw, **rest}, place)
    title = place_of(settings.data.log) if table is None else "the table"
    with (
        TemporaryDirectory(prefix="mgoe-") as folder,
        work_database(Path(folder, "work"), title, settings.memory, settings.data.timezone) as con,
    ):
        source = open_source(con, settings.data, table)
        scan = Scan.of(source, settings, title, settings.data.bucket)
        found = choose(scan, ("data", "end") in asked, settings.data.timezone)
    usual = {f"{section}.{name}": getattr(getattr(settings, section), name) for section, name in asked}
    return {key: found.get(key, Chosen(value, "the default")) for key, value in usual.items()}


def advice(settings: RunSettings, table: Frame | None = None) -> dict[str, str]:
    """Say what the rules would choose for each setting that may be `auto`, why, and what the settings have.

    Args:
        settings: Of a run.
        table: Read instead of the log's files.

    Raises:
        DataError: The log cannot be read, or lacks a column.

    Example:
        >>> advice(settings)["training.epochs"]
        '8 (at most; validation chooses), configured: 1'
    """
    has = settings.model_dump(mode="json")
    return {
        key: f"{one.value or 'none'} ({one.reason}), configured: {has[section][name] or 'none'}"
        for key, one in choices(deep_merge(has, AUTO), table=table).items()
        for section, name in [key.split(".")]
    }
