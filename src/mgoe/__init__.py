"""MGOE, the Macro Graph of Experts: from behaviour logs to a served multi-task ranking model.

import mgoe

ranker = mgoe.Ranker(tasks=["click", "cart", "buy"]).fit(events)  # a data frame, or the path of a log
ranker.recommend([42, 43], k=10, objective="click * buy^2")

result = mgoe.run("config.yaml", "runs/mine")
bundle = mgoe.load("runs/mine/bundle")
bundle.predict(users, items)
"""

from typing import TYPE_CHECKING

from mgoe import errors
from mgoe._util.lazy import lazy

if TYPE_CHECKING:
    from pathlib import Path

    from mgoe._util.version import __version__
    from mgoe.bundle import Bundle
    from mgoe.experiments import compare, run
    from mgoe.ranker import Ranker

__all__ = ["Bundle", "Ranker", "__version__", "compare", "errors", "load", "run"]
# Most of them need torch.
__getattr__, __dir__ = lazy(
    __name__,
    {
        "_util.version": ("__version__",),
        "bundle": ("Bundle",),
        "experiments": ("compare", "run"),
        "ranker": ("Ranker",),
    },
    __all__,
)


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
