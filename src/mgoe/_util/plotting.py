"""Axes of matplotlib, which is an extra."""

from typing import TYPE_CHECKING, Any

from mgoe._util.extras import load

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def pyplot() -> Any:
    """Return `matplotlib.pyplot`.

    Raises:
        MissingExtra: The extra `plot` is not installed.
    """
    return load("matplotlib.pyplot", "plot", "matplotlib", "pip install 'mgoe[plot]'")


def axes_of(given: "Axes | None", size: tuple[float, float]) -> "Axes":
    """Return the given Axes, or new ones of a size in inches.

    Raises:
        MissingExtra: The extra `plot` is not installed.
    """
    return pyplot().subplots(figsize=size, layout="constrained")[1] if given is None else given
