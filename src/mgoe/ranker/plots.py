"""Plots of a ranker as Axes of matplotlib, which the caller can change, of the data that the report shows."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mgoe._util.plotting import axes_of, pyplot
from mgoe.config import load_settings
from mgoe.evaluation.report import Curve, MacroView
from mgoe.experiments.folder import SETTINGS
from mgoe.experiments.pages import curves_of, reliability_of
from mgoe.experiments.plan import Plan
from mgoe.ranker.workdir import Workdir

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DECADES = 100
"""From this ratio of the largest to the smallest prediction on, reliability is drawn on logarithmic axes."""
MOST = 60
"""Macro nodes per side that are drawn."""
DEPTH = 3
"""Doublings of the score between macro nodes at which the color is full."""


class RankerPlots:
    """Plots of the run of a ranker: `ranker.plot`.

    Args:
        home: The folder that the ranker works in.

    Raises:
        OutputError: The ranker was loaded, so there is no run.
    """

    def __init__(self, home: Workdir):
        run, self._home = home.need_run("plot"), home
        self._plan = Plan(load_settings(run / SETTINGS), run)

    def curves(self) -> NDArray[Any]:
        """Plot training loss and validation over epochs, one line per model of the latest `compare`.

        Returns:
            Two Axes: of the loss, and of the metric that selects the epoch, where a dot marks the best.

        Raises:
            MissingExtra: The extra `plot` is not installed.

        Example:
            >>> loss, validation = ranker.plot.curves()
            >>> validation.set_title("A long run")
            Text(0.5, 1.0, 'A long run')
        """
        _, axes = pyplot().subplots(1, 2, figsize=(9, 3.5), layout="constrained")
        for model, by_seed in curves_of(self._plan).items():
            for seed, run in by_seed.items():
                curve = Curve.of(run)
                label = model if len(by_seed) == 1 else f"{model}, seed {seed}"
                axes[0].plot(*zip(*curve.loss, strict=True), marker=".")
                [line] = axes[1].plot(*zip(*curve.validation, strict=True), marker=".", label=label)
                axes[1].plot(*curve.best, "o", color=line.get_color())
                axes[1].set_ylabel(f"validation, {curve.monitor}")
        axes[0].set_ylabel("training loss")
        for one in axes:
            one.set_xlabel("epoch")
            one.xaxis.get_major_locator().set_params(integer=True)
        axes[1].legend()
        return axes

    def reliability(self, ax: "Axes | None" = None) -> "Axes":
        """Plot how often each task was done on test against how often the ranker predicted it.

        Args:
            ax: Axes to draw in; new ones by default.

        Returns:
            The Axes: one line per task, and the diagonal on which predictions equal observations. On
            logarithmic axes, which rare tasks get, what was never observed stands at the lower edge.

        Raises:
            MissingExtra: The extra `plot` is not installed.

        Example:
            >>> ax = ranker.plot.reliability()
            >>> ax.get_xlabel()
            'predicted'
        """
        ax = axes_of(ax, (4.5, 4.5))
        drawn = {
            task: bins
            for task, bins in reliability_of(self._plan)[self._plan.comparison.lead].items()
            if bins.get("rows")
        }
        positive = [
            value
            for bins in drawn.values()
            for name in ("predicted", "observed")
            for value in bins[name]
            if value > 0 and math.isfinite(value)
        ] or [1.0]
        low, high = 0.8 * min(positive), 1.25 * max(positive)
        if high > DECADES * low:
            ax.set(xscale="log", yscale="log")
        else:
            low = 0.0
        for task, bins in drawn.items():
            ax.plot(np.maximum(bins["predicted"], low), np.maximum(bins["observed"], low), ".-", label=task)
        ax.plot([low, high], [low, high], "--", color="gray", linewidth=1)
        ax.set(xlabel="predicted", ylabel="observed", xlim=(low, high), ylim=(low, high))
        ax.legend()
        return ax


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
    users, items = view.order(MOST)
    ax = axes_of(ax, (6, 5))
    lift = np.log2(np.maximum(view.lift[np.ix_(users, items)], 1e-9))
    image = ax.imshow(lift, cmap="RdBu_r", vmin=-DEPTH, vmax=DEPTH, aspect="auto")
    ax.set(xlabel="item macro node", ylabel="user macro node")
    for side, nodes in ((ax.xaxis, items), (ax.yaxis, users)):
        side.set_ticks(range(len(nodes)), [str(node) for node in nodes], fontsize=7)
    bar = ax.figure.colorbar(image, ax=ax, label="score over the expected score")
    bar.set_ticks(range(-DEPTH, DEPTH + 1), labels=["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    return ax
