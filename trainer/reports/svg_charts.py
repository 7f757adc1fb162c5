"""Charts for the report as SVG text. They need no library and no script, and are sharp at any size."""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Sequence

from configs.console import printable

# The colours of Okabe and Ito, which colour-blind readers can distinguish too.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#8c564b", "#b8a800", "#000000")

_WIDTH, _HEIGHT = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 26, 14, 42
_MAX_LABEL_CHARACTERS = 18


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


def escaped(words: object) -> str:
    """Escapes any text for HTML or SVG. Characters that are invisible or change the text direction are spelled out."""
    return html.escape(printable(str(words)))


def _text(x: float, y: float, words: str, *, anchor: str = "middle", kind: str = "", turn: float = 0) -> str:
    rotate = f' transform="rotate({turn:g} {x:.1f} {y:.1f})"' if turn else ""
    css = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{css}{rotate}>{escaped(words)}</text>'


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


def _svg(body: str, *, width: float, height: float, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" style="max-width:{width:.0f}px" role="img" '
        f'aria-label="{escaped(title)}"><title>{escaped(title)}</title>{body}</svg>'
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

    def frame(self, x_name: str, y_name: str) -> str:
        parts = []
        for value in _nice_ticks(self.y_low, self.y_high):
            y = self.y(value)
            parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
            parts.append(_text(_LEFT - 6, y + 4, f"{value:g}", anchor="end", kind="tick"))
        parts += [
            _text(self.x(value), _HEIGHT - _BOTTOM + 16, f"{value:,g}", kind="tick")
            for value in _nice_ticks(self.x_low, self.x_high)
        ]
        parts.append(f'<path class="axis" d="M{_LEFT} {_TOP}V{_HEIGHT - _BOTTOM}H{_WIDTH - _RIGHT}"/>')
        parts.append(_text((_LEFT + _WIDTH) / 2, _HEIGHT - 6, x_name))
        parts.append(_text(13, (_HEIGHT - _BOTTOM) / 2, y_name, turn=-90))
        return "".join(parts)


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def legend(names: Sequence[str]) -> str:
    """The legend as HTML: the names of the lines in their colours."""
    keys = "".join(
        f'<span><i style="background:{COLORS[i % len(COLORS)]}"></i>{escaped(shortened(name, 40))}</span>'
        for i, name in enumerate(names)
    )
    return f'<p class="legend">{keys}</p>'


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_name: str,
    y_name: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
) -> str:
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
        body += f'<path d="M{path}" fill="none" stroke="{color}" stroke-width="2" stroke-linejoin="round"/>'
        if len(points) <= 12:
            body += "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="{color}"/>' for x, y in points)
        for x, y, half in zip(line.xs, line.ys, line.spread, strict=False):
            body += f'<path d="M{axes.x(x):.1f} {axes.y(y - half):.1f}V{axes.y(y + half):.1f}" stroke="{color}"/>'
    return _svg(body, width=_WIDTH, height=_HEIGHT, title=title) + legend([line.name for line in lines])


def reliability_chart(lines: Sequence[tuple[str, Sequence[tuple[float, float, int]]]]) -> str:
    """A chart of accuracy against score. On the diagonal, the accuracy equals the score.

    Args:
      lines: name, and bins as mean score, accuracy and number of predictions. The area of a dot shows that number.
    """
    axes = _Axes(0, 1, 0, 1)
    body = axes.frame("score", "share of right predictions")
    body += f'<path class="diagonal" d="M{axes.x(0):.1f} {axes.y(0):.1f}L{axes.x(1):.1f} {axes.y(1):.1f}"/>'
    for number, (_, bins) in enumerate(lines):
        total = sum(count for _, _, count in bins)
        color = COLORS[number]
        path = "L".join(f"{axes.x(score):.1f} {axes.y(right):.1f}" for score, right, _ in bins)
        body += f'<path d="M{path}" fill="none" stroke="{color}" stroke-width="1.5"/>'
        for score, right, count in bins:
            radius = 2 + 12 * math.sqrt(count / total)
            body += (
                f'<circle cx="{axes.x(score):.1f}" cy="{axes.y(right):.1f}" r="{radius:.1f}" fill="{color}" '
                f'fill-opacity=".55"><title>{count} predictions: score {score:.2f}, right {right:.2f}</title></circle>'
            )
    return _svg(body, width=_WIDTH, height=_HEIGHT, title="calibration") + legend([name for name, _ in lines])


def heatmap(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
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
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{size}" height="{size}" class="cell" '
                f'fill="rgba({color},{share:.3f})"><title>{escaped(labels[i])} → {escaped(labels[j])}: '
                f"{count}</title></rect>"
            )
            if count and size >= 7 * len(str(count)) + 4:
                kind = "cell-dark" if share > 0.55 else "cell-light"
                parts.append(_text(x + size / 2, y + size / 2 + 4, str(count), kind=kind))
    return _svg("".join(parts), width=margin + side + 10, height=margin + side + 4, title="confusion matrix")
