"""Into how many streams OpenVINO divides the cores: its own choice, or what is measured to be faster on this machine.

OpenVINO's hint for throughput gives a stream several cores. On machines with many cores a stream for each core was up
to a quarter faster. Which is faster depends on the processor and on the network, so the first long job on a machine
measures it, and the cache of networks keeps the result. Other jobs use it, and measure nothing.

Streams decide no number: a setting whose embeddings of the probe images differ in a single bit from those of OpenVINO's
own choice is not taken.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from configs.activity import doing
from configs.counts import counted
from preprocess.engines.base import Engine
from preprocess.engines.model_cache import ModelCache
from preprocess.engines.openvino_engine import OpenVinoEngine
from preprocess.images.probe_images import probe_images
from preprocess.machine.cores import available_cores

FEWEST_IMAGES_A_CORE = 1000
"""Measuring takes about 2 s. With fewer images for each core, a job takes less than half a minute."""

# A setting that is hardly faster may only be a disturbed measurement.
_WORTHWHILE_SPEEDUP = 1.03
_TURNS = 2
_WAVES = 1
_MEASURED = "streams.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasuredStreams:
    """What was measured.

    Attributes:
      hint: the streams that OpenVINO chooses.
      images_per_sec: of each number of streams whose embeddings have the bytes of those with the hint.
      differ: the numbers of streams that give other bytes.
    """

    hint: int
    images_per_sec: Mapping[int, float]
    differ: Sequence[int] = ()

    @property
    def best(self) -> int:
        """The streams to use: the hint, unless others are clearly faster."""
        fastest = max(self.images_per_sec, key=lambda streams: self.images_per_sec[streams])
        is_faster = self.images_per_sec[fastest] >= _WORTHWHILE_SPEEDUP * self.images_per_sec[self.hint]
        return fastest if is_faster else self.hint

    def describe(self, cores: int) -> str:
        """What was chosen for so many cores, and why: words for people."""
        best = self.best
        words = [f"{counted(best, 'stream')} for {counted(cores, 'core')}"]
        for streams, rate in sorted(self.images_per_sec.items()):
            if streams != best:
                whose = ", which OpenVINO chooses" if streams == self.hint else ""
                words.append(f"{self.images_per_sec[best] / rate:.2f} times as fast as {streams}{whose}")
        if self.differ:
            words.append(f"other bytes with {' or '.join(map(str, self.differ))}")
        return "; ".join(words)


def candidates(hint: int, cores: int) -> tuple[int, ...]:
    """The numbers of streams to measure: OpenVINO's hint, a stream for each core, and one between them."""
    hint = min(hint, cores)
    return tuple(sorted({hint, round(math.sqrt(hint * cores)), cores}))


def with_fastest_streams(
    engine: OpenVinoEngine,
    key: Mapping[str, Any],
    cache: ModelCache,
    *,
    image_size: int,
    expected_images: int | None,
) -> OpenVinoEngine:
    """The engine with the fastest number of streams that is known for this machine, which long jobs measure.

    Args:
      engine: with OpenVINO's own choice.
      key: identifies the network, its precision, the processor, the cores and OpenVINO's version.
      cache: keeps what is measured.
      image_size: of the network.
      expected_images: how many images are to be embedded; None if that is not known, then nothing is measured.
    """
    cores = available_cores()
    numbers = candidates(engine.streams, cores)
    if len(numbers) == 1:
        return engine
    key = {**key, "kind": "streams", "hint": engine.streams}
    folder = cache.find(key)
    if folder is None:
        if expected_images is None or expected_images < FEWEST_IMAGES_A_CORE * cores:
            return engine

        def write(folder: str) -> None:
            pixels = probe_images(engine.batch_size, size=image_size)
            with doing("measuring how many streams are fastest; the next run will know the result"):
                found = measure(engine, numbers, pixels)
            with open(os.path.join(folder, _MEASURED), "w", encoding="utf-8") as stream:
                json.dump(dataclasses.asdict(found), stream)

        folder = cache.find_or_make(key, write)
    measured = _read(folder)
    fastest = engine if measured.best == engine.streams else engine.with_streams(measured.best)
    fastest.info = dataclasses.replace(engine.info, why=f"{engine.info.why}; {measured.describe(cores)}")
    return fastest


def _read(folder: str) -> MeasuredStreams:
    with open(os.path.join(folder, _MEASURED), encoding="utf-8") as stream:
        data = json.load(stream)
    rates = {int(streams): float(rate) for streams, rate in data["images_per_sec"].items()}
    return MeasuredStreams(hint=int(data["hint"]), images_per_sec=rates, differ=tuple(data["differ"]))


def measure(engine: OpenVinoEngine, numbers: Sequence[int], pixels: np.ndarray) -> MeasuredStreams:
    """Measures numbers of streams in turns, so that other programs disturb all of them.

    Args:
      engine: with OpenVINO's own choice.
      numbers: of streams, and among them those of the engine.
      pixels: a batch, uint8 [n, size, size, 3].
    """
    settings = {streams: engine if streams == engine.streams else engine.with_streams(streams) for streams in numbers}
    # The first batch also warms a setting up.
    found = {streams: setting.start(pixels).result().tobytes() for streams, setting in settings.items()}
    same = [streams for streams in numbers if found[streams] == found[engine.streams]]
    rates = dict.fromkeys(same, 0.0)
    for turn in range(_TURNS):
        for streams in same if turn % 2 == 0 else reversed(same):
            rates[streams] = max(rates[streams], images_per_sec(settings[streams], pixels, waves=_WAVES))
    differ = tuple(streams for streams in numbers if streams not in same)
    return MeasuredStreams(hint=engine.streams, images_per_sec=rates, differ=differ)


def images_per_sec(engine: Engine, pixels: np.ndarray, *, waves: int) -> float:
    """The rate of an engine that always has as many batches as it takes.

    Args:
      engine: of a CPU.
      pixels: a batch, uint8 [n, size, size, 3].
      waves: as many batches as are in the engine at once are finished so many times, after the first.
    """
    pending = collections.deque(engine.start(pixels) for _ in range(engine.max_pending))
    started = 0.0
    for number in range((waves + 1) * engine.max_pending):
        if number == engine.max_pending:
            started = time.perf_counter()
        pending.popleft().result()
        pending.append(engine.start(pixels))
    took_sec = time.perf_counter() - started
    for future in pending:
        future.result()
    return waves * engine.max_pending * len(pixels) / took_sec
