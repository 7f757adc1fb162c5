"""`trainer.predict`, for which one photo never comes: `python -m tests.support.slow_predict PHOTO FLAGS ...`."""

from __future__ import annotations

import sys
import time

from configs.program import run_program
from trainer import photo_reader, predict

never = sys.argv.pop(1)
read = photo_reader.read_photo


def _read(location):
    while location == never:
        time.sleep(60)
    return read(location)


photo_reader.read_photo = _read
run_program(predict.main)
