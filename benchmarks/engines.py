"""Loads engines as the pipeline does, and measures their speed when nothing else runs on the machine."""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.report import say
from configs.errors import InputError
from preprocess.backbones.backbone import BackboneSpec
from preprocess.beam.image_source import ImageReader, ImageSource
from preprocess.beam.transforms import EngineLoader
from preprocess.engines.base import Engine
from preprocess.engines.int8 import CALIBRATION_IMAGES
from preprocess.engines.select import EngineSpec
from preprocess.images.decode import IMAGE_SIZE, decode_image

# The network that programs run here if they do not name another, also the peers. No speed depends on the weights.
BACKBONE = BackboneSpec(weights="random", seed=0)
CHOICES = ("tensorflow/float32", "openvino/float32", "openvino/bfloat16", "openvino/int8")

_kept: dict[str, Engine] = {}


@dataclasses.dataclass(frozen=True)
class KeptEngine:
    """Gives the pipeline an engine that this process has already. Picklable, as `EmbedOptions.load_engine` must be."""

    name: str  # from `kept_name`

    def __call__(self) -> Engine:
        """The engine."""
        return _kept[self.name]


def kept_name(choice: str, backbone: BackboneSpec = BACKBONE) -> str:
    """The name of an engine in this process: the choice, after the network if that is another than `BACKBONE`."""
    return choice if backbone == BACKBONE else f"{backbone.architecture}, {choice}"


def load(choice: str, photos: Sequence[str], backbone: BackboneSpec = BACKBONE) -> Engine | None:
    """Loads an engine. If it is not available here, prints why and returns None.

    Args:
      choice: the engine and its precision, for example "openvino/bfloat16".
      photos: the images to calibrate int8 with.
      backbone: the network that it runs.
    """
    name = kept_name(choice, backbone)
    if name not in _kept:
        engine, precision = choice.split("/")
        named: dict[str, Any] = {"engine": engine, "precision": precision}
        calibration = tuple(photos[:CALIBRATION_IMAGES]) if precision == "int8" else ()
        started = time.perf_counter()
        try:
            _kept[name] = EngineLoader(
                backbone=backbone,
                engine=EngineSpec(**named),
                calibration=calibration,
                images=ImageSource(size=backbone.image.size),
            )()
        except (InputError, ImportError) as error:
            say(f"{name}: left out ({error})")
            return None
        say(f"{name}: loaded in {time.perf_counter() - started:.1f} s ({_kept[name].info.why})")
    return _kept[name]


def read_pixels(paths: Sequence[str], size: int = IMAGE_SIZE) -> np.ndarray:
    """Photos as the pipeline decodes them, uint8 [n, size, size, 3]."""
    read = ImageReader()
    return np.stack([decode_image(read(path), size=size) for path in paths])


def saturated_rate(engine: Engine, pixels: np.ndarray, seconds: float) -> float:
    """Images per second of an engine that always has `max_pending` full batches in progress.

    The time is counted from one finished batch to another, after the first `max_pending` batches are finished.
    """
    batch = np.ascontiguousarray(np.resize(pixels, (engine.batch_size, *pixels.shape[1:])))
    pending = collections.deque(engine.start(batch) for _ in range(engine.max_pending))
    for _ in range(engine.max_pending):
        pending.popleft().result()
        pending.append(engine.start(batch))
    started = now = time.perf_counter()
    images = 0
    while now - started < seconds or not images:
        pending.popleft().result()
        pending.append(engine.start(batch))
        images += len(batch)
        now = time.perf_counter()
    for future in pending:
        future.result()
    return images / (now - started)
