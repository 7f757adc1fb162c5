"""What a sample of a list's images costs to read and decode on this machine, and what its engine costs."""

from __future__ import annotations

import collections
import dataclasses
import io
import itertools
import statistics
import time
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from configs.errors import InputError
from pipelines.checks.preflight import ScannedLists
from preprocess.beam.image_source import ImageSource
from preprocess.engines.base import Engine
from preprocess.images.loader import LoadedImage
from preprocess.jobs.estimate import Estimate, mean_of, share_of
from preprocess.lists.outcomes import RowFailure
from preprocess.machine.cores import available_cores
from preprocess.records.example import encode_example
from preprocess.records.tfrecord import frame_record

# Decoded images that are kept for the engine, 0.27 MB each.
_MOST_PIXELS = 64
# Of the engine: each round is as many batches as it takes at once, twice.
_ROUNDS = 5
_ROUND_SEC = 0.6
_UNKNOWN_DIGEST = bytes(32)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SampledImages:
    """What reading and decoding the images of a sample took.

    Attributes:
      tried: images of the sample.
      failed: how many of them cannot be used, by reason.
      failed_share: of all images of the list.
      read_bytes: of an image file that can be decoded.
      read_sec: of reading one, while others are read.
      decode_sec: of decoding one, in a process of its own.
      handling_core_sec: core-seconds of this process an image: reading, hashing, handing on.
      record_uri_bytes: of the location of an image.
      pixels: of some of them, uint8 [n, 299, 299, 3].
    """

    tried: int
    failed: dict[str, int]
    failed_share: Estimate
    read_bytes: Estimate
    read_sec: Estimate
    decode_sec: Estimate
    handling_core_sec: float
    record_uri_bytes: float
    pixels: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineCost:
    """What an engine costs on this machine.

    Attributes:
      name: engine and precision, for people.
      precision: of its arithmetic.
      device: "cpu" or "gpu".
      occupied_sec: core-seconds an image: all cores of this machine times the time that an image takes, so what
        other programs take of them is in it. On a GPU, seconds.
      cpu_sec: core-seconds of this process an image, whatever other programs do; at most the expected `occupied_sec`.
      load_sec: until it could be used; the first time with new weights, which are prepared then, it takes longer.
      embedding_size: floats in one embedding.
    """

    name: str
    precision: str
    device: str
    occupied_sec: Estimate
    cpu_sec: float
    load_sec: float
    embedding_size: int

    @property
    def share_of_machine(self) -> float:
        """How much of this machine the engine got while it was measured: 1 if nobody else wanted any of it."""
        return self.cpu_sec / self.occupied_sec.expected


def sample_images(drawn: Sequence[str], *, number: int, lists: ScannedLists, images: ImageSource) -> SampledImages:
    """Reads and decodes images as the pipeline does.

    Args:
      drawn: locations of images, drawn by lot from the lists. One that a list names ten times is there ten times: it is
        tried once and counts as ten.
      number: different images to try, at least 1.
      lists: what they were drawn from.
      images: how they are read and decoded.

    Raises:
      InputError: not one of them can be used.
      OSError: storage does not answer.
    """
    times = dict(itertools.islice(collections.Counter(drawn).items(), number))
    is_all = sum(times.values()) >= lists.images
    _start_decoders(images)
    loader = images.make_loader()
    cpu_started = time.process_time()
    loader.add(times)
    failures: list[RowFailure] = []
    loaded: list[LoadedImage] = []
    weights: list[int] = []
    pixels: list[np.ndarray] = []
    usable: list[bool] = []
    for weight in times.values():
        image = loader.next()
        usable.append(isinstance(image, LoadedImage))
        if isinstance(image, RowFailure):
            failures.append(image)
        elif isinstance(image, LoadedImage):
            if len(pixels) < _MOST_PIXELS:
                pixels.append(image.pixels)
            loaded.append(dataclasses.replace(image, pixels=image.pixels[:0]))
            weights.append(weight)
    cpu_sec = time.process_time() - cpu_started
    failed = dict(collections.Counter(failure.reason for failure in failures).most_common())
    if not loaded:
        reasons = ", ".join(f"{reason} {count}" for reason, count in failed.items())
        raise InputError(
            f"{', '.join(lists.paths)}: none of the {len(times)} images of the sample can be used: {reasons}; "
            f"for example {failures[0].message.rstrip('.')}. Relative URIs are relative to the list that names them."
        )

    def mean(values: Iterable[float]) -> Estimate:
        return mean_of(list(values), weights=weights, is_all=is_all)

    return SampledImages(
        tried=len(times),
        failed=failed,
        failed_share=share_of([not one for one in usable], weights=list(times.values()), is_all=is_all),
        read_bytes=mean(image.num_bytes for image in loaded),
        read_sec=mean(image.read_sec for image in loaded),
        decode_sec=mean(image.decode_sec for image in loaded),
        handling_core_sec=cpu_sec / len(times),
        record_uri_bytes=sum(len(location.encode("utf-8", "replace")) for location in times) / len(times),
        pixels=np.stack(pixels),
    )


def _start_decoders(images: ImageSource) -> None:
    """Starts every decoder's process, which takes as long as many images."""
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "PNG")
    number = 4 * available_cores()
    loader = dataclasses.replace(images, read=lambda _: buffer.getvalue()).make_loader()
    loader.add(["one pixel"] * number)
    for _ in range(number):
        loader.next()


def time_engine(engine: Engine, pixels: np.ndarray, *, batch_size: int | None, load_sec: float) -> EngineCost:
    """Measures an engine that always has as many full batches under way as it takes, warm, on real images.

    Args:
      engine: which.
      pixels: images, uint8 [n, 299, 299, 3], n > 0; used again and again.
      batch_size: images a batch; None for what suits the engine.
      load_sec: what loading it took.
    """
    batch = np.ascontiguousarray(np.resize(pixels, (batch_size or engine.batch_size, *pixels.shape[1:])))
    pending = collections.deque(engine.start(batch) for _ in range(engine.max_pending))
    for _ in range(engine.max_pending):
        pending.popleft().result()
        pending.append(engine.start(batch))
    cores = available_cores() if engine.info.device == "cpu" else 1
    occupied = []
    images_done = 0
    cpu_started = time.process_time()
    for _ in range(_ROUNDS):
        started = now = time.perf_counter()
        done = 0
        while now - started < _ROUND_SEC or done < engine.max_pending:
            pending.popleft().result()
            pending.append(engine.start(batch))
            done += 1
            now = time.perf_counter()
        occupied.append(cores * (now - started) / (done * len(batch)))
        images_done += done * len(batch)
    cpu_sec = (time.process_time() - cpu_started) / images_done
    for future in pending:
        future.result()
    return EngineCost(
        name=f"{engine.info.engine} {engine.info.precision}",
        precision=engine.info.precision,
        device=engine.info.device,
        occupied_sec=Estimate(min(occupied), statistics.median(occupied), max(occupied)),
        cpu_sec=min(cpu_sec, statistics.median(occupied)),
        load_sec=load_sec,
        embedding_size=engine.identity.embedding_size,
    )


def record_bytes(sample: SampledImages, engine: EngineCost) -> int:
    """Bytes of a record in a shard without compression."""
    example = encode_example(
        image_uri="x" * round(sample.record_uri_bytes),
        embedding=np.zeros(engine.embedding_size, np.float32),
        label_ids=(0,),
        image_sha256=_UNKNOWN_DIGEST,
    )
    return len(frame_record(example))
