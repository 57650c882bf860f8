"""Plots of a run or a comparison as Axes of matplotlib, which the caller can change."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from mgoe._util.plotting import axes_of
from mgoe.config import did_you_mean
from mgoe.errors import ConfigError, OutputError
from mgoe.evaluation import Standings
from mgoe.evaluation.pareto import COSTS, CostName, pareto
from mgoe.evaluation.report.charts import short
from mgoe.evaluation.report.pareto_plot import BOTTOM, TOP, ParetoLayout, Side
from mgoe.evaluation.rows import LOWER, MEAN, head, headline, summarize

if TYPE_CHECKING:
    from matplotlib.axes import Axes

By: TypeAlias = Literal["serving", "training"]
OFFSETS: dict[Side, tuple[tuple[float, float], dict[str, Any]]] = {
    "right": ((6, 0), {"ha": "left", "va": "center"}),
    "left": ((-6, 0), {"ha": "right", "va": "center"}),
    "above": ((0, 5), {"ha": "center", "va": "bottom"}),
    "below": ((0, -5), {"ha": "center", "va": "top"}),
}
"""Offset of a name from its point, in points of type, and how it is aligned."""
COST_OF: dict[By, CostName] = {"serving": "serving_ms", "training": "cpu_seconds"}


class ResultPlots:
    """Plots of what a run or a comparison measured: `result.plot`.

    Args:
        standings: Its tables.
    """

    def __init__(self, standings: Sequence[Standings]):
        self._standings = standings

    def cost(
        self,
        by: By = "serving",
        *,
        question: str | None = None,
        log: str | None = None,
        ax: "Axes | None" = None,
    ) -> "Axes":
        """Plot the quality of every model of a table against its cost.

        Args:
            by: `serving`, milliseconds per 500 candidates, or `training`, processor seconds.
            question: Title of the table; by default the first one that fits.
            log: Name of the log, likewise.
            ax: Axes to draw in; new ones by default.

        Returns:
            The Axes: one point per model, full on the front, which a line joins: no other model is at least
            as good for at most its cost. Models far behind are arrows at the edge, and names that would
            overlap are left out.

        Raises:
            ConfigError: There is no such cost or table.
            OutputError: The cost is known of no model.
            MissingExtra: The extra `plot` is not installed.
        """
        if by not in COST_OF:
            raise ConfigError(
                "by", f"must be one of {', '.join(COST_OF)}, found {by!r}{did_you_mean(by, [*COST_OF])}"
            )
        cost = COST_OF[by]
        one = self._table(question, log)
        points = pareto(one, cost)
        if not points:
            raise OutputError("plot", f"{COSTS[cost]} are known of no model; {_FIXES[by]}")
        column = headline(summarize(one.rows))
        lower = bool(LOWER.fullmatch(column[1]))
        layout = ParetoLayout(points, one.reference, lower)
        ax = axes_of(ax, (7, 4.5))
        ax.set(
            xscale="log" if layout.log else "linear",
            xlim=(layout.across.low, layout.across.high),
            ylim=(layout.up.low, layout.up.high),
            xlabel=COSTS[cost],
            ylabel="mean of AUC and GAUC" if column == MEAN else head(column),
        )
        ax.set_xticks([], minor=True)
        ax.set_xticks(layout.across.ticks(5), [short(tick) for tick in layout.across.ticks(5)])
        front = [point for point in points if point.on_front]
        ax.plot(
            [p.cost for p in front], [p.quality for p in front], "--", color="gray", linewidth=1, zorder=1
        )
        for point in sorted(points, key=lambda point: point.on_front):
            color = "C0" if point.model == one.reference else "0.35"
            face = color if point.on_front else "white"
            inside = point.model in layout.inside
            height = np.interp(layout.at[point.model][1], (TOP, BOTTOM), (layout.up.high, layout.up.low))
            at = point.cost, height
            marker = "o" if inside else "^" if lower else "v"
            ax.plot(*at, marker, color=color, markerfacecolor=face, clip_on=False)
            if side := layout.sides.get(point.model):
                offset, align = OFFSETS[side]
                ax.annotate(point.model, at, offset, textcoords="offset points", fontsize=8, **align)
        return ax

    def _table(self, question: str | None, log: str | None) -> Standings:
        for name, wanted, known in (
            ("question", question, [one.question for one in self._standings]),
            ("log", log, [one.log for one in self._standings]),
        ):
            if wanted is not None and wanted not in known:
                listed = ", ".join(map(repr, dict.fromkeys(known)))
                raise ConfigError(
                    name, f"must be one of {listed}, found {wanted!r}{did_you_mean(wanted, known)}"
                )
        return next(
            one for one in self._standings if question in (None, one.question) and log in (None, one.log)
        )


_FIXES: dict[By, str] = {
    "serving": "call `time_serving()` of a run, or set `serving_requests` of a comparison above 0",
    "training": "train the models again with this version",
}
