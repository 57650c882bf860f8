"""Extensions: what installed packages add to what is built in, by entry points.

Built-in models, input groups and so on are in a plain dictionary each. A name that is not there is looked up
among the entry points of installed packages. Settings check names against both, which imports nothing. The
code of an extension is imported when settings or a command use it, but not because a bundle names it, see
`check_asked`.
"""

import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, TypeVar

from mgoe.config.base import did_you_mean
from mgoe.errors import BundleError, ConfigError

Group = Literal[
    "mgoe.models", "mgoe.inputs", "mgoe.generators", "mgoe.baselines", "mgoe.data_sets", "mgoe.stores"
]
"""Groups of entry points."""
ALLOWED = "MGOE_EXTENSIONS"
"""Environment variable with the Python packages that bundles may import, separated by commas."""
T = TypeVar("T")


def names(group: Group, built_in: Collection[str]) -> list[str]:
    """Return the names of what is built in, then those of extensions, of which nothing is imported.

    Raises:
        ConfigError: An extension takes a name that is there already.

    Example:
        >>> names("mgoe.stores", ["redis"])[0]
        'redis'
    """
    return [*built_in, *_registered(group, built_in)]


def named(group: Group, built_in: Mapping[str, T], name: str, kind: Any) -> T:
    """Return what has a name; an extension is imported for it.

    Args:
        group: Entry points to look in.
        built_in: What is built in, by name.
        name: The name.
        kind: Type of what an extension must give.

    Raises:
        ConfigError: Nothing has the name, an extension takes one that is there already, or it cannot be
            imported or gives something else.

    Example:
        >>> named("mgoe.stores", {"redis": 6379}, "redis", int)
        6379
    """
    if name in built_in:
        return built_in[name]
    found = _registered(group, built_in)
    if (entry := found.get(name)) is None:
        raise ConfigError(
            group, f"no installed package registers {name!r}{did_you_mean(name, [*built_in, *found])}"
        )
    try:
        loaded = entry.load()
    except Exception as error:  # a module of others may raise anything
        raise ConfigError(
            _place(entry),
            f"{entry.value!r} cannot be imported ({type(error).__name__}: {' '.join(str(error).split())}); "
            "fix the package, or uninstall it",
        ) from error
    if not isinstance(loaded, kind):
        raise ConfigError(
            _place(entry), f"{entry.value!r} must be a {kind.__name__}, found {loaded!r}; fix the package"
        )
    return loaded


def one_of(group: Group, built_in: Collection[str], what: str) -> Callable[[str], str]:
    """Return a check of a setting that is a name; it raises a `ValueError` that says what the name must be.

    Example:
        >>> one_of("mgoe.stores", ["redis"], "a store")("redis")
        'redis'
    """

    def checked(name: str) -> str:
        if name not in (valid := names(group, built_in)):
            raise ValueError(f"must be {what}, found {name!r}{did_you_mean(name, valid)}")
        return name

    return checked


def check_asked(group: Group, built_in: Collection[str], asked: Iterable[str], place: object) -> None:
    """Check that a bundle names no code that it would be the first to import here.

    A bundle may come from somebody else, so its extensions, and models by import path, are taken only if
    Python has imported their module already or the environment variable `MGOE_EXTENSIONS` lists its package.

    Args:
        group: Entry points to look in.
        built_in: Names of what is built in.
        asked: Names in the bundle.
        place: The bundle.

    Raises:
        BundleError: There is such a name.

    Example:
        >>> check_asked("mgoe.models", ["mgoe"], ["mgoe"], "bundle")
    """
    allowed = {one.strip() for one in os.environ.get(ALLOWED, "").split(",")}
    for name in {*asked}.difference(built_in):
        entry = _registered(group, built_in).get(name)
        module = name.rpartition(":")[0] if entry is None else entry.module
        package = module.partition(".")[0]
        if package and module not in sys.modules and package not in allowed:
            raise BundleError(
                place,
                f"names {name!r}, for which the package {package!r} would be imported, and a bundle does not "
                f"decide that; if you trust both, set {ALLOWED}={package}, or import {module} before",
            )


def _registered(group: Group, built_in: Collection[str]) -> dict[str, EntryPoint]:
    """Return the entry points of a group by name, in its order."""
    return _found(group, frozenset(built_in), tuple(sys.path))


@cache
def _found(group: Group, built_in: frozenset[str], path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Read the entry points of the packages on a path, once."""
    found = dict[str, EntryPoint]()
    for entry in sorted(entry_points(group=group), key=lambda one: one.name):
        if entry.name in built_in or entry.name in found:
            raise ConfigError(
                _place(entry),
                f"the name {entry.name!r} is taken by "
                f"{'mgoe' if entry.name in built_in else _place(found[entry.name])}; register "
                "another name, or uninstall the package",
            )
        found[entry.name] = entry
    return found


def _place(entry: EntryPoint) -> str:
    return f"{entry.dist.name if entry.dist else 'a package'}, {entry.group}"
