"""MGOE, the Macro Graph of Experts: from behaviour logs to a served multi-task ranking model.

import mgoe

ranker = mgoe.Ranker(tasks=["click", "cart", "buy"]).fit(events)  # a data frame, or the path of a log
ranker.recommend([42, 43], k=10, objective="click * buy^2")

result = mgoe.run("config.yaml", "runs/mine")
bundle = mgoe.load("runs/mine/bundle")
bundle.predict(users, items)
"""

from typing import TYPE_CHECKING, Any

from mgoe._util.kernel_cache import place_kernels

if TYPE_CHECKING:
    from pathlib import Path

    from mgoe.bundle import Bundle
    from mgoe.experiments import compare, run
    from mgoe.ranker import Ranker

__version__ = "0.1.0"
__all__ = ["Bundle", "Ranker", "__version__", "compare", "load", "run"]

place_kernels()


def load(path: "Path | str") -> "Bundle":
    """Open a bundle.

    Raises:
        BundleError: The folder holds no bundle, one of another format, or a file that is missing or changed.

    Example:
        >>> load(folder / "bundle").tasks
        ('click', 'buy')
    """
    from mgoe.bundle import Bundle

    return Bundle.open(path)


def __getattr__(name: str) -> Any:
    """All but `load` need torch, so they are imported when first asked for."""
    if name in ("run", "compare"):
        from mgoe import experiments

        return getattr(experiments, name)
    if name == "Bundle":
        from mgoe.bundle import Bundle

        return Bundle
    if name == "Ranker":
        from mgoe.ranker import Ranker

        return Ranker
    raise AttributeError(f"module 'mgoe' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
