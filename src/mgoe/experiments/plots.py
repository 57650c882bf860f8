"""Plots of a run or a comparison as Axes of matplotlib, which the caller can change."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from mgoe._util.plotting import axes_of
from mgoe.config import did_you_mean
from mgoe.errors import ConfigError, OutputError
from mgoe.evaluation import Standings
from mgoe.evaluation.pareto import COSTS, CostName
from mgoe.evaluation.report.axes import draw
from mgoe.evaluation.report.cost_chart import cost_chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

By: TypeAlias = Literal["serving", "training"]
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
        chart = cost_chart(self._table(question, log), COST_OF[by])
        if chart is None:
            raise OutputError("plot", f"{COSTS[COST_OF[by]]} are known of no model; {_FIXES[by]}")
        return draw(chart, axes_of(ax, (7, 4.5)))

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
