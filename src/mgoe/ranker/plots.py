"""The macro graph as Axes of matplotlib, which the caller can change, of the data that the report shows."""

from typing import TYPE_CHECKING

import numpy as np

from mgoe._util.plotting import axes_of
from mgoe.evaluation.report import MacroView
from mgoe.evaluation.report.data import DOUBLINGS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_macro_graph(view: MacroView, ax: "Axes | None" = None) -> "Axes":
    """Plot the score between user and item macro nodes over the score that their sizes make one expect.

    Args:
        view: The macro graph.
        ax: Axes to draw in; new ones by default.

    Returns:
        The Axes with a heat map, in which similar macro nodes are adjacent.

    Raises:
        MissingExtra: The extra `plot` is not installed.
    """
    users, items = ([one.node for one in side] for side in view.shown)
    ax = axes_of(ax, (6, 5))
    doublings = view.doublings[np.ix_(users, items)]
    image = ax.imshow(doublings, cmap="RdBu_r", vmin=-DOUBLINGS, vmax=DOUBLINGS, aspect="auto")
    ax.set(xlabel="item macro node", ylabel="user macro node")
    for side, nodes in ((ax.xaxis, items), (ax.yaxis, users)):
        side.set_ticks(range(len(nodes)), [str(node) for node in nodes], fontsize=7)
    bar = ax.figure.colorbar(image, ax=ax, label="score over the expected score")
    bar.set_ticks(range(-DOUBLINGS, DOUBLINGS + 1), labels=["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    return ax
