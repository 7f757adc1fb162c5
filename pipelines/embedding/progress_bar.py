"""Shows the progress of a local run: as a bar on a terminal, elsewhere as a line every 15 seconds."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

from tqdm import tqdm

from configs.console import bar_stream, printable
from preprocess.jobs import progress

_SECONDS_BETWEEN_LINES = 15.0


class _Lines:
    """Progress as lines, for logs: a bar would fill them with control characters."""

    def __init__(self, total: int, name: str):
        self._total = total
        self._name = name
        self._done = 0
        self._started = self._last_line = time.monotonic()

    def update(self, rows: int) -> None:
        self._done += rows
        now = time.monotonic()
        if now - self._last_line < _SECONDS_BETWEEN_LINES or not self._done:
            return
        self._last_line = now
        rate = self._done / (now - self._started)
        left_sec = max(self._total - self._done, 0) / rate
        share = 100 * self._done / max(self._total, 1)
        print(
            f"{self._name}: {self._done} of {self._total} rows ({share:.0f} %), {rate:.1f} rows/s, "
            f"{tqdm.format_interval(left_sec)} left",
            file=sys.stderr,
            flush=True,
        )


@contextlib.contextmanager
def show_progress(total: int, name: str) -> Iterator[None]:
    """Within this context, shows the rows done, the rate and the time left on standard error.

    Args:
      total: rows of the job.
      name: the name of the set, for example "train".
    """
    lock = threading.Lock()
    with contextlib.ExitStack() as stack:
        if sys.stderr.isatty():
            bar: tqdm | _Lines = stack.enter_context(
                tqdm(
                    total=total,
                    desc=printable(name),
                    unit=" rows",
                    file=bar_stream(),
                    dynamic_ncols=True,
                    smoothing=0.1,
                )
            )
        else:
            bar = _Lines(total, name)

        def on_rows(rows: int) -> None:
            with lock:
                bar.update(rows)

        stack.enter_context(progress.listening(on_rows))
        yield
