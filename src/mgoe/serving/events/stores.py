"""Where a service keeps its log: a folder, or a store that an address names by its scheme.

An address as in `redis://host:6379/0?prefix=shop` may name more, see `with_query`. Extensions add schemes.
"""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

from mgoe.config import named, names
from mgoe.errors import ConfigError, StoreError
from mgoe.serving.events.log import ServiceLog
from mgoe.serving.events.redis_log import RedisLog
from mgoe.serving.events.redis_server import EXAMPLE
from mgoe.serving.events.store import FILE

Opener = Callable[[str, int | None], ServiceLog]
"""Opens the log at an address, for some window (see `ServiceLog`)."""
STORES: dict[str, Opener] = dict.fromkeys(("redis", "rediss", "unix"), RedisLog)
"""By the scheme of the address."""


def store_at(where: str | Path) -> Opener | None:
    """Return what opens the log at an address; None if it is a folder.

    Raises:
        ConfigError: No store has the scheme of the address, or an extension cannot be imported.
    """
    scheme, address, _ = str(where).partition("://")
    return named("mgoe.stores", STORES, scheme, Callable) if address else None


def open_log(where: str | Path, window: int | None = None, make: bool = True) -> ServiceLog:
    """Open the log of a service, on one machine or of several.

    Args:
        where: Folder of a service's state, or an address as in redis://host:6379/0?prefix=shop.
        window: See `ServiceLog`.
        make: Whether to create a log that is missing. Otherwise a log in a folder is only read.

    Raises:
        StoreError: The store cannot be reached, or there is no log.
        ConfigError: No store has the scheme of the address.

    Example:
        >>> log = open_log("state")
        >>> log.read()
        []
        >>> log.close()
    """
    if opener := store_at(where):
        return opener(str(where), window)
    file = Path(where) / FILE
    if not make and not file.is_file():
        raise StoreError(
            where,
            f"holds no log of events (a file {FILE!r} is missing); "
            "name the state folder of `mgoe serve`, or a redis://",
        )
    return ServiceLog(file, window, make)


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
