"""`pipelines.embed` with a stand-in for the network that takes its time, to be stopped by a test.

python -m tests.pipelines.slow_job BATCH_SEC EMBED_FLAGS...
"""

import sys
import time

import numpy as np

from configs.errors import run_program
from pipelines import embed
from preprocess.transforms import EngineLoader
from tests.preprocess.stand_ins import StandInEngine


class SlowEngine(StandInEngine):
    """Embeds an image as a few sums over its pixels."""

    def __init__(self, batch_sec):
        super().__init__()
        self.batch_sec = batch_sec

    def embed(self, pixels):
        time.sleep(self.batch_sec)
        values = pixels.astype(np.float32)
        return np.stack([values.mean(axis=(1, 2, 3)) + 1, values[:, 0].sum(axis=(1, 2)), values[:, :, 0, 0].sum(1)], 1)


def main(argv=None):
    engine = SlowEngine(float(sys.argv[1]))
    EngineLoader.__call__ = lambda self: engine
    return embed.main(sys.argv[2:])


if __name__ == "__main__":
    run_program(main)
