"""Pictures for the report as SVG text: no library, no script, sharp at any size."""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Sequence

from configs.console import printable

# Okabe and Ito's colours, which colour-blind readers tell apart too.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#8c564b", "#b8a800", "#000000")

_WIDTH, _HEIGHT = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 26, 14, 42
_MAX_LABEL_CHARACTERS = 18


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a chart.

    Attributes:
      name: for the legend.
      xs: positions, as many as `ys`.
      ys: values.
      spread: half the height of a bar at each point; none if empty.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    spread: Sequence[float] = ()


def escaped(words: object) -> str:
    """Text as HTML or SVG, harmless whatever it holds; what turns text around or cannot be seen is spelt out."""
    return html.escape(printable(str(words)))


def _text(x: float, y: float, words: str, *, anchor: str = "middle", kind: str = "", turn: float = 0) -> str:
    rotate = f' transform="rotate({turn:g} {x:.1f} {y:.1f})"' if turn else ""
    css = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{css}{rotate}>{escaped(words)}</text>'


def shortened(label: str, limit: int = _MAX_LABEL_CHARACTERS) -> str:
    """A label that fits: its start and an ellipsis where it is too long."""
    return label if len(label) <= limit else f"{label[: limit - 1]}…"


def _nice_ticks(low: float, high: float, *, about: int = 5) -> list[float]:
    """Round numbers from at or above `low` to at or below `high`."""
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
    """The names of the lines in their colours, as HTML."""
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
    """A chart of lines with its legend, as HTML; a line of one point is a dot.

    Args:
      lines: at least one, each with at least one point.
      title: for those who do not see it.
      x_name: of the horizontal axis.
      y_name: of the vertical axis.
      x_range: of the horizontal axis; None for that of the values.
      y_range: of the vertical axis; None for that of the values.
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
    """Scores beside how often they are right; on the diagonal they can be taken at their word.

    Args:
      lines: name, and bins as mean score, accuracy and number of answers. The area of a dot is that number.
    """
    axes = _Axes(0, 1, 0, 1)
    body = axes.frame("score", "share that is right")
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
                f'fill-opacity=".55"><title>{count} answers: score {score:.2f}, right {right:.2f}</title></circle>'
            )
    return _svg(body, width=_WIDTH, height=_HEIGHT, title="calibration") + legend([name for name, _ in lines])


def heatmap(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """A confusion matrix; a row is shaded by the share of its examples.

    Args:
      labels: of rows and columns.
      counts: examples of label i that were predicted as j.
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
        # Read from the bottom up, so that long names stay in the margin above the columns.
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
