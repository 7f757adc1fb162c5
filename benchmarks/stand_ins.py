"""Fast stand-ins for the slow parts. They have their own module, so that Beam pickles them by name."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import time

import numpy as np

from preprocess.engines.base import EngineInfo
from preprocess.records.backbone_identity import BackboneIdentity

EMBEDDING_SIZE = 16

_PIXELS = np.ones((1, 1, 3), np.uint8)


def read_nothing(location: str) -> bytes:
    """Bytes in place of an image: different bytes for each location."""
    return location.encode()


def decode_nothing(data: bytes) -> np.ndarray:
    """One pixel, the same for all images."""
    return _PIXELS


class StandInEngine:
    """Embeds any image at once. Every embedding is sixteen ones."""

    def __init__(self, batch_size: int = 32) -> None:
        self.identity = BackboneIdentity(
            architecture="stand_in",
            weights="random",
            seed=0,
            weights_digest="sha256:0",
            embedding_size=EMBEDDING_SIZE,
            image_definition="stand-in/1",
        )
        self.info = EngineInfo(engine="stand_in", precision="float32", device="cpu", fidelity=None, why="measuring")
        self.batch_size = batch_size
        self.max_pending = 2

    def start(self, pixels: np.ndarray, brightness: np.ndarray | None = None) -> concurrent.futures.Future[np.ndarray]:
        """A future that is done."""
        future: concurrent.futures.Future[np.ndarray] = concurrent.futures.Future()
        future.set_result(np.ones((len(pixels), EMBEDDING_SIZE), np.float32))
        return future


def load_stand_in() -> StandInEngine:
    """A stand-in engine, for the field `load_engine` of EmbedOptions."""
    return StandInEngine()


class WaitingEngine(StandInEngine):
    """Waits a while for each image, as if another device worked."""

    def __init__(self, image_sec: float) -> None:
        super().__init__()
        self._image_sec = image_sec
        self._thread = concurrent.futures.ThreadPoolExecutor(1)

    def start(self, pixels: np.ndarray, brightness: np.ndarray | None = None) -> concurrent.futures.Future[np.ndarray]:
        """The embeddings after the wait; one batch at a time."""
        return self._thread.submit(self._wait, len(pixels))

    def _wait(self, images: int) -> np.ndarray:
        time.sleep(self._image_sec * images)
        return np.ones((images, EMBEDDING_SIZE), np.float32)


@functools.cache
def _waiting_engine(image_sec: float) -> WaitingEngine:
    return WaitingEngine(image_sec)


@dataclasses.dataclass(frozen=True)
class LoadWaiting:
    """Loads the one waiting engine of a process, for the field `load_engine` of EmbedOptions."""

    image_sec: float

    def __call__(self) -> WaitingEngine:
        """The engine."""
        return _waiting_engine(self.image_sec)
