"""The shapes of the charts as inline SVG, coloured by the page's CSS variables."""

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

Point = tuple[float, float]


class Svg:
    """A drawing that scales with its container.

    Args:
        width, height: In user units, about one pixel each at full width.
        label: Description for screen readers.
    """

    def __init__(self, width: float, height: float, label: str):
        self.width, self.height, self.label = width, height, label
        self.parts: list[Markup] = []

    def line(self, a: Point, b: Point, css: str) -> None:
        self._add("line", css, x1=a[0], y1=a[1], x2=b[0], y2=b[1])

    def rect(
        self, at: Point, size: Point, css: str, tip: str = "", opacity: float | None = None, radius: float = 0
    ) -> None:
        self._add(
            "rect",
            css,
            tip,
            x=at[0],
            y=at[1],
            width=max(size[0], 0),
            height=max(size[1], 0),
            fill_opacity=opacity,
            rx=radius or None,
        )

    def circle(self, at: Point, radius: float, css: str, tip: str = "") -> None:
        self._add("circle", css, tip, cx=at[0], cy=at[1], r=radius)

    def text(
        self, at: Point, text: object, css: str = "", anchor: str = "start", turned: bool = False
    ) -> None:
        turn = f"translate({_number(at[0])} {_number(at[1])}) rotate(-90)" if turned else None
        x, y = (0.0, 0.0) if turned else at
        self._add(
            "text",
            css,
            body=str(text),
            x=x,
            y=y,
            text_anchor=anchor if anchor != "start" else None,
            transform=turn,
        )

    def path(self, points: Iterable[Point], css: str, tip: str = "") -> None:
        points = list(points)
        if points:
            self._add("path", css, tip, d="M" + "L".join(f"{_number(x)} {_number(y)}" for x, y in points))

    def __html__(self) -> str:
        return Markup('<svg viewBox="0 0 {} {}" style="--w:{}px" role="img" aria-label="{}">{}</svg>').format(
            _number(self.width),
            _number(self.height),
            _number(self.width),
            self.label,
            Markup("").join(self.parts),
        )

    def _add(
        self, tag: str, css: str, tip: str = "", body: str = "", **attributes: float | str | None
    ) -> None:
        written = Markup(" ").join(
            Markup('{}="{}"').format(
                name.replace("_", "-"), value if isinstance(value, str) else _number(value)
            )
            for name, value in attributes.items()
            if value is not None
        )
        inner = Markup("<title>{}</title>").format(tip) if tip else escape(body)
        self.parts.append(Markup('<{0} class="{1}" {2}>{3}</{0}>').format(Markup(tag), css, written, inner))


_LEAST = 1e-9
"""Of a scale's width, in parts of its values: what is closer together is one value."""


class Scale:
    """A linear or logarithmic map from values to positions."""

    def __init__(self, values: tuple[float, float], positions: tuple[float, float], log: bool = False):
        low, high = values
        if high - low <= _LEAST * max(abs(low), abs(high), _LEAST):
            low, high = (low / 2, low * 2) if log and low > 0 else (low - 0.5, low + 0.5)
        self.low, self.high, self.positions, self.log = low, high, positions, log

    def __call__(self, value: float) -> float:
        a, b = self.positions
        share = (self._of(value) - self._of(self.low)) / (self._of(self.high) - self._of(self.low))
        return a + (b - a) * min(max(share, 0), 1)

    def ticks(self, about: int = 4) -> list[float]:
        """Return round values inside the scale."""
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            powers = [10.0**e for e in range(first, last + 1) if self.low <= 10.0**e <= self.high]
            return powers if len(powers) > 1 else [self.low, self.high]
        raw = (self.high - self.low) / about
        base = 10.0 ** math.floor(math.log10(raw))
        step = next(base * m for m in (1, 2, 2.5, 5, 10) if base * m >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [round(k * step, 12) + 0.0 for k in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def _of(self, value: float) -> float:
        return math.log(max(value, self.low)) if self.log else value


def finite(values: Iterable[float | None]) -> list[float]:
    """Return the finite values."""
    return [v for v in values if v is not None and math.isfinite(v)]


AIR = 0.08
"""Share of a range left free on either side."""


def padded(values: Sequence[float]) -> tuple[float, float]:
    """Return a range around values with some space on either side."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    air = (high - low) * AIR or abs(high) * AIR or 0.5
    return low - air, high + air


def short(value: float) -> str:
    """Format a tick label."""
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _number(value: float | None) -> str:
    return f"{value or 0:.2f}".rstrip("0").rstrip(".")
