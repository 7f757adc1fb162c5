"""`pipelines.embed` with a stand-in for the network that takes its time, to be stopped by a test.

python -m tests.support.slow_job BATCH_SEC EMBED_FLAGS...
python -m tests.support.slow_job BATCH_SEC predict_all FLAGS...

With TRY_AGAIN_SEC in the environment, what the machine fails at is tried again for as many seconds.
"""

import dataclasses
import os
import sys
import time

import numpy as np

from configs.program import run_program
from pipelines import embed, predict
from preprocess.beam.image_source import ImageSource
from preprocess.beam.transforms import EngineLoader
from preprocess.storage.retry import RetryPolicy
from tests.support.answer_models import NETWORK
from tests.support.stand_ins import StandInEngine


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
    if "TRY_AGAIN_SEC" in os.environ:
        make_loader, policy = ImageSource.make_loader, RetryPolicy(limit_sec=float(os.environ["TRY_AGAIN_SEC"]))
        ImageSource.make_loader = lambda images, *args, **how: make_loader(
            dataclasses.replace(images, try_again=policy), *args, **how
        )
    if sys.argv[2] == "predict_all":
        engine.identity = NETWORK
        return predict.main(sys.argv[3:])
    return embed.main(sys.argv[2:])


if __name__ == "__main__":
    run_program(main)
