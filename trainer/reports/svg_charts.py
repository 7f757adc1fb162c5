"""Charts for the report as SVG text. They need no library and no script, and are sharp at any size."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from markupsafe import Markup

from configs.console import printable
from configs.counts import counted

# The colours of Okabe and Ito, which colour-blind readers can distinguish too.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#8c564b", "#b8a800", "#000000")

_WIDTH, _HEIGHT = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 26, 14, 42
_MAX_LABEL_CHARACTERS = 18
_MAX_DOTS = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a chart.

    Attributes:
      name: the name in the legend.
      xs: positions; there are as many as `ys`.
      ys: values.
      spread: half the height of the error bar at each point; no bars if empty.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    spread: Sequence[float] = ()


def _element(tag: str, *content: object, **attributes: object) -> Markup:
    """An element of SVG or HTML. All text is escaped, except for what is `Markup` already.

    In the names of attributes "_" stands for "-", except for a "_" at the end. Attributes that are None are left out.
    """
    parts = Markup().join(
        Markup(' {}="{}"').format(name.rstrip("_").replace("_", "-"), printable(str(value)))
        for name, value in attributes.items()
        if value is not None
    )
    inside = Markup().join(one if isinstance(one, Markup) else printable(str(one)) for one in content)
    return Markup("<{0}{1}>{2}</{0}>").format(tag, parts, inside)


def _text(
    x: float, y: float, words: str, *, anchor: str = "middle", kind: str | None = None, turn: float = 0
) -> Markup:
    rotate = f"rotate({turn:g} {x:.1f} {y:.1f})" if turn else None
    return _element("text", words, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, class_=kind, transform=rotate)


def shortened(label: str, limit: int = _MAX_LABEL_CHARACTERS) -> str:
    """The label, or its start and an ellipsis if it is too long."""
    return label if len(label) <= limit else f"{label[: limit - 1]}…"


def _nice_ticks(low: float, high: float, *, about: int = 5) -> list[float]:
    """Round numbers for the ticks of an axis, between `low` and `high` or equal to them."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _svg(body: Sequence[Markup], *, width: float, height: float, title: str) -> Markup:
    return _element(
        "svg",
        _element("title", title),
        *body,
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        style=f"max-width:{width:.0f}px",
        role="img",
        aria_label=title,
    )


@dataclasses.dataclass(frozen=True)
class _Axes:
    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        return _LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - self.y_low) / (self.y_high - self.y_low) * (_HEIGHT - _TOP - _BOTTOM)

    def frame(self, x_name: str, y_name: str) -> list[Markup]:
        parts = []
        for value in _nice_ticks(self.y_low, self.y_high):
            y = self.y(value)
            parts.append(_element("path", class_="grid", d=f"M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"))
            parts.append(_text(_LEFT - 6, y + 4, f"{value:g}", anchor="end", kind="tick"))
        parts += [
            _text(self.x(value), _HEIGHT - _BOTTOM + 16, f"{value:,g}", kind="tick")
            for value in _nice_ticks(self.x_low, self.x_high)
        ]
        parts.append(_element("path", class_="axis", d=f"M{_LEFT} {_TOP}V{_HEIGHT - _BOTTOM}H{_WIDTH - _RIGHT}"))
        parts.append(_text((_LEFT + _WIDTH) / 2, _HEIGHT - 6, x_name))
        parts.append(_text(13, (_HEIGHT - _BOTTOM) / 2, y_name, turn=-90))
        return parts


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _legend(names: Sequence[str]) -> Markup:
    """The legend as HTML: the names of the lines in their colours."""
    keys = (
        _element("span", _element("i", style=f"background:{COLORS[i % len(COLORS)]}"), shortened(name, 40))
        for i, name in enumerate(names)
    )
    return _element("p", *keys, class_="legend")


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_name: str,
    y_name: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
) -> Markup:
    """A line chart with its legend, as HTML; a line of one point is drawn as a dot.

    Args:
      lines: at least one line; each has at least one point.
      title: the title for screen readers.
      x_name: the name of the horizontal axis.
      y_name: the name of the vertical axis.
      x_range: the range of the horizontal axis; None for the range of the values.
      y_range: the range of the vertical axis; None for the range of the values.
    """
    spread = [
        value + sign * s for line in lines for value, s in zip(line.ys, line.spread, strict=False) for sign in (1, -1)
    ]
    y_low, y_high = y_range or _bounds([y for line in lines for y in line.ys] + spread)
    x_low, x_high = x_range or _bounds([x for line in lines for x in line.xs])
    axes = _Axes(x_low, x_high, y_low, y_high)
    body = axes.frame(x_name, y_name)
    for number, line in enumerate(lines):
        color = COLORS[number % len(COLORS)]
        points = [(axes.x(x), axes.y(min(max(y, y_low), y_high))) for x, y in zip(line.xs, line.ys, strict=True)]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        body.append(
            _element("path", d=f"M{path}", fill="none", stroke=color, stroke_width="2", stroke_linejoin="round")
        )
        if len(points) <= _MAX_DOTS:
            body += [_element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r="3.2", fill=color) for x, y in points]
        for x, y, half in zip(line.xs, line.ys, line.spread, strict=False):
            bar = f"M{axes.x(x):.1f} {axes.y(y - half):.1f}V{axes.y(y + half):.1f}"
            body.append(_element("path", d=bar, stroke=color))
    return _svg(body, width=_WIDTH, height=_HEIGHT, title=title) + _legend([line.name for line in lines])


def reliability_chart(lines: Sequence[tuple[str, Sequence[tuple[float, float, int]]]]) -> Markup:
    """A chart of accuracy against score. On the diagonal, the accuracy equals the score.

    Args:
      lines: name, and bins as mean score, accuracy and number of predictions. The area of a dot shows that number.
    """
    axes = _Axes(0, 1, 0, 1)
    body = axes.frame("score", "share of right predictions")
    diagonal = f"M{axes.x(0):.1f} {axes.y(0):.1f}L{axes.x(1):.1f} {axes.y(1):.1f}"
    body.append(_element("path", class_="diagonal", d=diagonal))
    for number, (_, bins) in enumerate(lines):
        total = sum(count for _, _, count in bins)
        color = COLORS[number]
        path = "L".join(f"{axes.x(score):.1f} {axes.y(right):.1f}" for score, right, _ in bins)
        body.append(_element("path", d=f"M{path}", fill="none", stroke=color, stroke_width="1.5"))
        body += [
            _element(
                "circle",
                _element("title", f"{counted(count, 'prediction')}: score {score:.2f}, right {right:.2f}"),
                cx=f"{axes.x(score):.1f}",
                cy=f"{axes.y(right):.1f}",
                r=f"{2 + 12 * math.sqrt(count / total):.1f}",
                fill=color,
                fill_opacity=".55",
            )
            for score, right, count in bins
        ]
    return _svg(body, width=_WIDTH, height=_HEIGHT, title="calibration") + _legend([name for name, _ in lines])


def heatmap(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> Markup:
    """A confusion matrix. The shade of a cell shows its share of the examples in its row.

    Args:
      labels: the labels of rows and columns.
      counts: how many examples of label i were predicted as j.
    """
    names = [shortened(label) for label in labels]
    size = max(20, min(56, 620 // len(labels)))
    margin = 14 + 7.2 * max(len(name) for name in names)
    side = size * len(labels)
    parts = []
    for i, row in enumerate(counts):
        total = sum(row)
        y = margin + i * size
        parts.append(_text(margin - 6, y + size / 2 + 4, names[i], anchor="end"))
        # This text runs from bottom to top, so that long names fit above the columns.
        parts.append(_text(margin + i * size + size / 2 + 4, margin - 6, names[i], anchor="start", turn=-90))
        for j, count in enumerate(row):
            share = count / total if total else 0.0
            color = "0,114,178" if i == j else "213,94,0"
            x = margin + j * size
            parts.append(
                _element(
                    "rect",
                    _element("title", f"{labels[i]} → {labels[j]}: {count}"),
                    x=f"{x:.1f}",
                    y=f"{y:.1f}",
                    width=size,
                    height=size,
                    class_="cell",
                    fill=f"rgba({color},{share:.3f})",
                )
            )
            if count and size >= 7 * len(str(count)) + 4:
                kind = "cell-dark" if share > 0.55 else "cell-light"
                parts.append(_text(x + size / 2, y + size / 2 + 4, str(count), kind=kind))
    return _svg(parts, width=margin + side + 10, height=margin + side + 4, title="confusion matrix")
