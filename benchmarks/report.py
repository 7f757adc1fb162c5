"""The output of a benchmark: lines for people, and as its last line one JSON object for `benchmarks.run`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from configs.console import require_printed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured figure and its target.

    Attributes:
      figure: what was measured.
      ours: our number, with its unit.
      peer: the number that ours is compared with, with its unit; empty if there is none.
      ratio: our number compared with the peer's; a larger ratio is better. None if there is no peer.
      target: the target, in words.
      met: whether the target is met; None if there is no target.
      noise: how much the figure varies between rounds of the same run, as a share of it; None if it was not repeated.
    """

    figure: str
    ours: str
    peer: str = ""
    ratio: float | None = None
    target: str = ""
    met: bool | None = None
    noise: float | None = None

    def line(self) -> str:
        """The figure as one line for people."""
        against = f" against {self.peer}" if self.peer else ""
        ratio = f" = {self.ratio:.3g}x" if self.ratio is not None else ""
        verdict = "" if self.met is None else f" [{self.target}: {'met' if self.met else 'MISSED'}]"
        return f"{self.figure}: {self.ours}{against}{ratio}{verdict}"


def at_least(figure: str, ours: float, peer: float, target: float, *, unit: str) -> Figure:
    """The figure of a rate. Its target: at least `target` times the rate of the peer."""
    ratio = ours / peer
    return Figure(
        figure=figure,
        ours=f"{ours:.4g} {unit}",
        peer=f"{peer:.4g} {unit}",
        ratio=round(ratio, 4),
        target=f">= {target:g}",
        met=ratio >= target,
    )


def limit(figure: str, ours: float, target: float, *, unit: str, at_most: bool = False) -> Figure:
    """A figure without a peer. Its target: at least `target`, or with `at_most` below it."""
    return Figure(
        figure=figure,
        ours=f"{ours:.4g} {unit}".strip(),
        target=f"{'<' if at_most else '>='} {target:g} {unit}".strip(),
        met=ours < target if at_most else ours >= target,
    )


def noise_of(rounds: Sequence[float]) -> float | None:
    """Half of the range of the rounds of a figure, as a share of their mean; None if there was one."""
    mean = sum(rounds) / len(rounds)
    return round((max(rounds) - min(rounds)) / 2 / abs(mean), 4) if len(rounds) > 1 and mean else None


def say(text: str) -> None:
    """Prints a line for people at once."""
    print(text, flush=True)


def finish(benchmark: str, rows: Sequence[Figure], **more: Any) -> None:
    """Prints the figures, and the JSON line that ends a benchmark's output."""
    for row in rows:
        say(row.line())
    say(json.dumps({"benchmark": benchmark, "rows": [dataclasses.asdict(row) for row in rows], **more}))
    require_printed()
