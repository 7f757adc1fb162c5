"""A decode worker that somebody stops before it is ready."""

import os
import signal

if __name__ == "__main__":
    os.kill(os.getpid(), signal.SIGSTOP)
