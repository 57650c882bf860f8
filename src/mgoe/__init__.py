"""MGOE, the Macro Graph of Experts: from behaviour logs to a served multi-task ranking model.

import mgoe

ranker = mgoe.Ranker(tasks=["click", "cart", "buy"]).fit(events)  # a data frame, or the path of a log
ranker.recommend([42, 43], k=10, objective="click * buy^2")

result = mgoe.run("config.yaml", "runs/mine")
bundle = mgoe.load("runs/mine/bundle")
bundle.predict(users, items)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from mgoe import errors
    from mgoe.bundle import Bundle
    from mgoe.experiments import compare, run
    from mgoe.ranker import Ranker

    __version__: str

__all__ = ["Bundle", "Ranker", "__version__", "compare", "errors", "load", "run"]
_PACKAGE_OF = {"Bundle": "bundle", "Ranker": "ranker", "compare": "experiments", "run": "experiments"}


def load(path: "Path | str") -> "Bundle":
    """Open a bundle.

    Args:
        path: Folder of a bundle that `mgoe run`, `mgoe update` or `Ranker.save` wrote.

    Raises:
        BundleError: The folder holds no bundle, one of another format, or a file that is missing or changed.

    Example:
        >>> load(folder / "bundle").tasks
        ('click', 'buy')
    """
    from mgoe.bundle import Bundle

    return Bundle.open(path)


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for: most need torch."""
    if name == "errors":
        return import_module("mgoe.errors")
    if name == "__version__":
        return _version()
    if name not in _PACKAGE_OF:
        raise AttributeError(f"module 'mgoe' has no attribute {name!r}")
    return getattr(import_module(f"mgoe.{_PACKAGE_OF[name]}"), name)


def _version() -> str:
    """Return the version that was installed, or `0.0` if the source runs without an installation."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("mgoe")
    except PackageNotFoundError:
        return "0.0"


def __dir__() -> list[str]:
    return __all__
