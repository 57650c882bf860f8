"""Where the new rows of an update are."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mgoe.errors import ConfigError
from mgoe.serving import EventLog


@dataclass(frozen=True)
class Sources:
    """Where new rows are: in files of the log, or in the live events and exposures of a service.

    Args:
        log: Parquet or CSV files, folders or globs; one or several.
        events: State folder or Redis server of a service, or its log.

    Raises:
        ConfigError: Both are given, or none.

    Example:
        >>> Sources("logs/today.parquet").files
        ['logs/today.parquet']
    """

    log: str | Sequence[str] = ()
    events: Path | str | EventLog | None = None

    def __post_init__(self) -> None:
        if (self.events is None) == (not self.log):
            raise ConfigError("new rows", "are live events or files, found both or none; give one of the two")

    @property
    def files(self) -> list[str]:
        """Files, folders and globs; empty for live events."""
        return [self.log] if isinstance(self.log, str) else [*self.log]
