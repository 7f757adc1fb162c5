from __future__ import annotations

import io

from trainer.evaluation.metrics import Measures
from trainer.training.progress import TrainingProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 1000.0

    def time(self) -> float:
        return self.now


def follow(stream: io.StringIO, *, max_steps: int, every: int) -> str:
    with TrainingProgress(max_steps, stream=stream) as progress:
        for step in range(1, max_steps + 1):
            measures = Measures(accuracy=0.5, loss=1.25) if step % every == 0 or step == max_steps else None
            progress.update(step, 0.75, measures)
    return stream.getvalue()


def test_a_line_now_and_then_where_there_is_no_terminal():
    lines = follow(io.StringIO(), max_steps=1000, every=25).splitlines()
    assert len(lines) == 10
    assert lines[-1] == "step 1000/1000  loss 0.750  eval loss 1.250  eval accuracy 0.500"


def test_few_steps_still_end_with_a_line():
    assert follow(io.StringIO(), max_steps=3, every=2).splitlines()[-1].startswith("step 3/3")


def test_a_bar_on_a_terminal():
    shown = follow(Terminal(), max_steps=40, every=10)
    assert "training 100%" in shown
    assert "40/40" in shown
    assert "eval accuracy=0.500" in shown


def test_the_estimate_leaves_out_the_compilation_and_the_steps_of_an_earlier_run():
    """An hour until the first step, which is step 500; then a step a second: 400 steps are left after 100 more."""
    stream, clock = Terminal(), Clock()
    with TrainingProgress(1000, stream=stream) as progress:
        bar = progress._bar
        bar._time = clock.time
        bar.start_t = bar.last_print_t = clock.now
        clock.now += 3600
        progress.update(500, 0.75, None)
        assert bar.format_dict["n"] == 500
        for step in range(501, 601):
            clock.now += 1
            progress.update(step, 0.75, None)
        bar.refresh()
    assert "600/1000 [01:40<06:40" in stream.getvalue()
