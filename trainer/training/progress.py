"""Progress of training: a bar on a terminal, and elsewhere a line from time to time."""

from __future__ import annotations

import contextlib
import shutil
import sys
from types import TracebackType
from typing import TextIO

import tqdm

from configs.activity import doing
from configs.console import bar_stream
from trainer.evaluation.metrics import Measures

_LINES_PER_RUN = 10


class TrainingProgress:
    """Shows the progress of a run on a stream. Use it as a context manager and pass `update` to `train_head`."""

    def __init__(self, max_steps: int, *, stream: TextIO | None = None):
        self._stream = sys.stderr if stream is None else stream
        self._bar_stream = bar_stream() if stream is None else stream
        self._max_steps = max_steps
        self._next_line_step = max(1, max_steps // _LINES_PER_RUN)
        self._bar: tqdm.tqdm | None = None
        self._lines = contextlib.ExitStack()

    def __enter__(self) -> TrainingProgress:
        if self._stream.isatty():
            # Some terminals in containers have no size, and then tqdm shows nothing. This assumes 80 x 24 for them.
            size = shutil.get_terminal_size()
            self._bar = tqdm.tqdm(
                total=self._max_steps,
                bar_format="training {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
                file=self._bar_stream,
                ncols=size.columns,
                nrows=size.lines,
            )
        else:
            self._steps = self._lines.enter_context(doing("training", total=self._max_steps, unit="step"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        self._lines.close()

    def update(self, step: int, loss: float, measures: Measures | None) -> None:
        """Shows a step: its number from 1, the loss of its batch, and the evaluation if there was one."""
        if self._bar is None:
            self._steps.done = step
        if self._bar is not None:
            if measures is not None:
                self._bar.set_postfix(
                    {"loss": f"{loss:.3f}", "eval accuracy": f"{measures.accuracy:.3f}"}, refresh=False
                )
            if not self._bar.n:
                # What is left is estimated from here on: the first step is compiled first, and those before a
                # checkpoint took no time now.
                self._bar.n = self._bar.initial = step
                self._bar.unpause()
                self._bar.refresh()
            self._bar.update(step - self._bar.n)
        elif measures is not None and (step >= self._next_line_step or step == self._max_steps):
            print(
                f"step {step}/{self._max_steps}  loss {loss:.3f}  eval loss {measures.loss:.3f}  "
                f"eval accuracy {measures.accuracy:.3f}",
                file=self._stream,
                flush=True,
            )
            while self._next_line_step <= step:
                self._next_line_step += max(1, self._max_steps // _LINES_PER_RUN)
