"""A decoder for `ParallelLoader` that ends the process in which it runs; without real images."""

import dataclasses
import os
import signal

import numpy as np


@dataclasses.dataclass(frozen=True)
class KillingDecoder:
    """Pixels that say which file it was; b"kill" ends the process, as often as the folder `lives` has files left."""

    lives: str
    side: int = 4

    def __call__(self, data):
        if data == b"kill" and os.listdir(self.lives):
            os.unlink(os.path.join(self.lives, os.listdir(self.lives)[0]))
            os.kill(os.getpid(), signal.SIGKILL)
        if data == b"fail":
            raise ValueError("a bug")
        return np.full((self.side, self.side, 3), data[-1], np.uint8)
