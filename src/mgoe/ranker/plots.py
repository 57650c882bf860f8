"""Plots of a ranker as Axes of matplotlib, which the caller can change, of the data that the report shows."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mgoe._util.plotting import axes_of, pyplot
from mgoe.config import load_settings
from mgoe.evaluation.report import MacroView
from mgoe.evaluation.report.axes import draw
from mgoe.evaluation.report.charts import curve_charts, reliability_chart
from mgoe.evaluation.report.data import DOUBLINGS
from mgoe.experiments.folder import SETTINGS
from mgoe.experiments.pages import curves_of, reliability_of
from mgoe.experiments.plan import Plan
from mgoe.ranker.workdir import Workdir

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
        curves = {
            model if len(by_seed) == 1 else f"{model}, seed {seed}": run
            for model, by_seed in curves_of(self._plan).items()
            for seed, run in by_seed.items()
        }
        for chart, ax in zip(curve_charts("every model", curves), axes, strict=True):
            draw(chart, ax)
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
        bins = reliability_of(self._plan)[self._plan.comparison.lead]
        drawn = {task: one for task, one in bins.items() if one.get("rows")}
        return draw(reliability_chart("Reliability", drawn), axes_of(ax, (4.5, 4.5)))


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
