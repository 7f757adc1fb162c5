"""`pipelines.embed` with a stand-in for the network, for workers that cannot import the tests.

python -m tests.support.portable_job BATCH_SEC EMBED_FLAGS...

What is defined here, in the main module, Beam sends to the workers by value; all else they have themselves.
Each process that embeds makes a file named by its process id in the folder EMBEDDERS, if the variable is set, and waits
there until MEET processes embed. The three sums are there TIMES times, for records that are large.
"""

import concurrent.futures
import dataclasses
import os
import sys
import time

import numpy as np

from configs.program import run_program
from pipelines import embed
from pipelines.embedding import preparation
from pipelines.runners.dead_workers import WatchedConnection
from preprocess.engines.base import EngineInfo
from preprocess.records.backbone_identity import BackboneIdentity


class SumsEngine:
    """Embeds an image as a few sums over its pixels, and takes its time."""

    def __init__(self, batch_sec, embedders, meet, times):
        self.identity = BackboneIdentity(
            architecture="sums",
            weights="random",
            seed=0,
            weights_digest="sha256:0",
            embedding_size=3 * times,
            image_definition="sums/1",
        )
        self.info = EngineInfo(engine="sums", precision="float32", device="cpu", fidelity=None, why="for tests")
        self.batch_size = 4
        self.max_pending = 2
        self.batch_sec = batch_sec
        self.embedders = embedders
        self.meet = meet
        self.times = times
        self.thread = concurrent.futures.ThreadPoolExecutor(1)

    def start(self, pixels):
        return self.thread.submit(self.embed, pixels)

    def embed(self, pixels):
        if self.embedders:
            with open(os.path.join(self.embedders, str(os.getpid())), "ab") as note:
                note.write(b"." * len(pixels))
            deadline = time.monotonic() + 60
            while len(os.listdir(self.embedders)) < self.meet and time.monotonic() < deadline:
                time.sleep(0.02)
        time.sleep(self.batch_sec)
        values = pixels.astype(np.float32)
        sums = [values.mean(axis=(1, 2, 3)) + 1, values[:, 0].sum(axis=(1, 2)), values[:, :, 0, 0].sum(1)]
        return np.tile(np.stack(sums, 1), self.times)


@dataclasses.dataclass(frozen=True)
class LoadSums:
    batch_sec: float
    embedders: str | None
    meet: int
    times: int

    def __call__(self):
        return SumsEngine(self.batch_sec, self.embedders, self.meet, self.times)


def main(argv=None):
    WatchedConnection.start_limit_sec = float(os.environ.get("START_LIMIT_SEC", WatchedConnection.start_limit_sec))
    meet, times = int(os.environ.get("MEET", "0")), int(os.environ.get("TIMES", "1"))
    load = LoadSums(float(sys.argv[1]), os.environ.get("EMBEDDERS"), meet, times)
    preparation.EngineLoader = lambda **_: load
    return embed.main(sys.argv[2:])


if __name__ == "__main__":
    run_program(main)
