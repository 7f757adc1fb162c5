"""`trainer.predict`, for which one photo never comes: `python -m tests.support.slow_predict PHOTO FLAGS ...`."""

from __future__ import annotations

import sys
import time

from configs.program import run_program
from trainer import predict

never = sys.argv.pop(1)
read = predict._read


def _read(location):
    while location == never:
        time.sleep(60)
    return read(location)


predict._read = _read
run_program(predict.main)
