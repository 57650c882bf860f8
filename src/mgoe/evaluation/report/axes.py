"""Charts of a report on Axes of matplotlib, which the caller can change."""

from typing import TYPE_CHECKING, Any

from mgoe.evaluation.report.charts import Chart, Side

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OFFSETS: dict[Side, tuple[tuple[float, float], dict[str, Any]]] = {
    "right": ((6, 0), {"ha": "left", "va": "center"}),
    "left": ((-6, 0), {"ha": "right", "va": "center"}),
    "above": ((0, 5), {"ha": "center", "va": "bottom"}),
    "below": ((0, -5), {"ha": "center", "va": "top"}),
}
"""Offset of a name from its point, in points of type, and how it is aligned."""


def draw(chart: Chart, ax: "Axes") -> "Axes":
    """Draw a chart in some Axes, and return them."""
    for name, axis in (("x", chart.x), ("y", chart.y)):
        scale = "log" if axis.log else "linear"
        ax.set(**{f"{name}scale": scale, f"{name}lim": (axis.low, axis.high), f"{name}label": axis.title})
        side = getattr(ax, f"{name}axis")
        side.set_ticks([], minor=True)
        side.set_ticks([*axis.ticks()], [*axis.ticks().values()])
    for line in chart.lines:
        points = [*zip(*line.points, strict=True)] or [(), ()]
        color, style = (f"C{line.color - 1}", ".-") if line.color else ("gray", "--")
        ax.plot(*points, style, color=color, linewidth=1, label=line.name)
    for dot in reversed(chart.dots):
        color = f"C{dot.color - 1}" if dot.color else "0.35"
        face = color if dot.full else "white"
        marker = "o" if not dot.beyond else "^" if dot.y == chart.y.high else "v"
        ax.plot(dot.x, dot.y, marker, color=color, markerfacecolor=face, markersize=5, clip_on=False)
        if dot.side:
            offset, align = OFFSETS[dot.side]
            ax.annotate(dot.name, (dot.x, dot.y), offset, textcoords="offset points", fontsize=8, **align)
    if any(line.name for line in chart.lines):
        ax.legend()
    return ax
