"""Holds the lock of a folder, and publishes when it is told to; to be suspended, killed and raced by tests.

python -m tests.support.lock_program FOLDER TERM_SEC

Says "held" once it has the lock. Each line of standard input makes it publish the file `published`, and say so.
"""

import sys

from configs.program import run_program
from preprocess.locks.lease import Timing
from preprocess.locks.lock_holder import this_process
from preprocess.locks.output_lock import fenced, locked
from preprocess.storage.base import write_file
from preprocess.storage.router import UriStorage


def main(_argv=None):
    folder, term_sec = sys.argv[1], float(sys.argv[2])
    timing = Timing(term_sec=term_sec, margin_sec=term_sec / 6, renew_every_sec=term_sec / 4, poll_sec=0.05)
    storage = UriStorage()
    holder = this_process(program="lock_program")
    with locked(folder, holder=holder, flag="folder", output=folder, storage=storage, timing=timing) as lock:
        print("held", flush=True)
        for line in sys.stdin:
            write_file(fenced(storage, lock), f"{folder}/published", line.encode())
            print("published", flush=True)


if __name__ == "__main__":
    run_program(main)
