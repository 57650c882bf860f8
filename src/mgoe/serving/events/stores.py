"""Where a service keeps its events and exposures: a folder, or a store that an address names by its scheme.

An address as in `redis://host:6379/0?prefix=shop` may name more, see `with_query`. Extensions add schemes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

from mgoe.config import named, names
from mgoe.errors import ConfigError, StoreError
from mgoe.serving.events.event import EventLog
from mgoe.serving.events.exposure_log import ExposureLog
from mgoe.serving.events.redis_exposures import RedisExposures
from mgoe.serving.events.redis_log import RedisLog
from mgoe.serving.events.redis_server import EXAMPLE
from mgoe.serving.events.sqlite_log import SqliteLog
from mgoe.serving.events.store import FILE


class Stores(NamedTuple):
    """What opens the logs at an address.

    Attributes:
        events: Opens the log of events.
        exposures: Opens the log of exposures, for some window (see `ExposureLog`).

    Example:
        >>> shelf = Stores(lambda address: SqliteLog(Path("shelf.sqlite")), RedisExposures)
        >>> log = shelf.events("shelf://main")
        >>> log.read()
        []
        >>> log.close()
    """

    events: Callable[[str], EventLog]
    exposures: Callable[[str, int | None], ExposureLog]


STORES: dict[str, Stores] = dict.fromkeys(("redis", "rediss", "unix"), Stores(RedisLog, RedisExposures))
"""By the scheme of the address."""


def stores_at(where: str | Path) -> Stores | None:
    """Return what opens the logs at an address; None if it is a folder.

    Raises:
        ConfigError: No store has the scheme of the address, or an extension cannot be imported.
    """
    scheme, address, _ = str(where).partition("://")
    return named("mgoe.stores", STORES, scheme, Stores) if address else None


def open_events(where: str | Path, make: bool = True) -> EventLog:
    """Open the log of live events of one machine or of several.

    Args:
        where: Folder of a service's state, or an address as in redis://host:6379/0?prefix=shop.
        make: Whether to create a log that is missing. Otherwise the log is only read.

    Raises:
        StoreError: The store cannot be reached, or there is no log.
        ConfigError: No store has the scheme of the address.

    Example:
        >>> log = open_events("state")
        >>> log.read()
        []
        >>> log.close()
    """
    if stores := stores_at(where):
        return stores.events(str(where))
    file = Path(where) / FILE
    if not make and not file.is_file():
        raise StoreError(
            where,
            f"holds no log of events (a file {FILE!r} is missing); "
            "name the state folder of `mgoe serve`, or a redis://",
        )
    return SqliteLog(file, make)


def open_exposures(where: str | Path, window: int | None = None, make: bool = True) -> ExposureLog:
    """Open the exposures of one machine or of several.

    Args:
        where: Folder of a service's state, or an address as for `open_events`.
        window: See `ExposureLog`.
        make: Whether to create a log that is missing. Otherwise a log in a folder is only read.

    Raises:
        StoreError: There is no log, or it cannot be opened.
        ConfigError: No store has the scheme of the address.

    Example:
        >>> log = open_exposures("state")
        >>> log.counts["exposures taken"]
        0
        >>> log.close()
    """
    if stores := stores_at(where):
        return stores.exposures(str(where), window)
    return ExposureLog(Path(where) / FILE, window, make)


def with_query(url: str, **more: object) -> str:
    """Return an address that names more; what is None is left out.

    Raises:
        ConfigError: No store has its scheme. It is not shown, since it may hold a password.

    Example:
        >>> with_query("redis://host:6379/0?prefix=shop", state=Path("state"), password_file=None)
        'redis://host:6379/0?prefix=shop&state=state'
    """
    *others, last = (f"{scheme}://" for scheme in names("mgoe.stores", STORES))
    if not url.startswith((*others, last)):
        raise ConfigError(
            "--redis", f"must begin with {', '.join(others)} or {last}; write it as in {EXAMPLE}"
        )
    added = urlencode({name: value for name, value in more.items() if value is not None})
    return f"{url}{'&' if '?' in url else '?'}{added}" if added else url
