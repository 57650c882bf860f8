"""Names of a package that are imported when they are first used."""

from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any


def lazy(
    package: str, modules: Mapping[str, Collection[str]], exported: Collection[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the `__getattr__` and the `__dir__` of a package.

    Args:
        package: Its name.
        modules: Names to export, by the module of the package that has them; `.bundle.items` is one of the
            package's parent.
        exported: What `dir` lists; these names if it is empty.
    """
    module_of = {name: module for module, names in modules.items() for name in names}

    def get(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f".{module_of[name]}", package), name)

    return get, lambda: sorted(exported or module_of)
