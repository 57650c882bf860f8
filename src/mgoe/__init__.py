"""MGOE, the Macro Graph of Experts: from behaviour logs to a served multi-task ranking model.

import mgoe

result = mgoe.run("config.yaml", "runs/mine")
bundle = mgoe.load("runs/mine/bundle")
bundle.predict(users, items)
bundle.recommend(user, k=10)
"""

from typing import TYPE_CHECKING, Any

from mgoe._util.kernel_cache import place_kernels

if TYPE_CHECKING:
    from pathlib import Path

    from mgoe.bundle import Bundle
    from mgoe.experiments import compare, run

__version__ = "0.1.0"
__all__ = ["Bundle", "__version__", "compare", "load", "run"]

place_kernels()


def load(path: "Path | str") -> "Bundle":
    """Open a bundle.

    Raises:
        BundleError: The folder holds no bundle, one of another format, or a file that is missing or changed.
    """
    from mgoe.bundle import Bundle

    return Bundle.open(path)


def __getattr__(name: str) -> Any:
    """`run`, `compare` and `Bundle` load torch, so they are imported when first asked for."""
    if name in ("run", "compare"):
        from mgoe import experiments

        return getattr(experiments, name)
    if name == "Bundle":
        from mgoe.bundle import Bundle

        return Bundle
    raise AttributeError(f"module 'mgoe' has no attribute {name!r}")
