"""The rate of a pipeline in its steady state."""

from __future__ import annotations

from collections.abc import Sequence

_SKIPPED_SHARE = 0.1


def steady_rate(notes: Sequence[tuple[float, int]], *, rows: int, last_read: float) -> float:
    """Images a second in the steady state.

    The window begins when a tenth of the rows are finished, and ends with the last finished rows before the last
    image is read. At both times, reading and decoding are as far ahead as they may be, so the window holds as many
    decodes as inferences. If the window reached to the end, it would hold more inferences than decodes, and the
    rate would be too high. Start-up and the last batches are outside of the window.

    Args:
      notes: pairs of seconds since the start and the number of rows finished by then, in order.
      rows: rows of the list.
      last_read: seconds from the start until the last image began to be read.

    Raises:
      ValueError: the run is too short to have such a window.
    """
    window = [note for note in notes if note[1] >= _SKIPPED_SHARE * rows and note[0] <= last_read]
    if len(window) < 2 or window[-1][0] <= window[0][0]:
        raise ValueError(f"{rows} rows are too few for a steady state: embed more.")
    return (window[-1][1] - window[0][1]) / (window[-1][0] - window[0][0])
