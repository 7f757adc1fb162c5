"""Measures on this machine the cost of reading and decoding a sample of a list's images, and of the engine."""

from __future__ import annotations

import collections
import dataclasses
import io
import itertools
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from PIL import Image

from configs.counts import counted
from configs.errors import InputError
from pipelines.checks.preflight import ScannedLists
from preprocess.beam.image_source import ImageSource
from preprocess.engines.base import Engine
from preprocess.images.loader import LoadedImage
from preprocess.jobs.estimate import Estimate, mean_of, share_of
from preprocess.lists.outcomes import RowFailure
from preprocess.machine.cores import available_cores
from preprocess.records.example import HASH_BYTES, encode_example
from preprocess.records.tfrecord import frame_record

# The number of decoded images that are kept for the engine, 0.27 MB each.
_MOST_PIXELS = 64
# The rounds of measuring the engine, and the shortest time of a round.
_ROUNDS = 5
_ROUND_SEC = 0.6
_UNKNOWN_DIGEST = bytes(32)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SampledImages:
    """The cost of reading and decoding the images of a sample.

    Attributes:
      tried: the number of images in the sample.
      failed: the number of images that cannot be used, by reason.
      failed_share: the estimated share of failures among all images of the list.
      read_bytes: the size of an image file that can be decoded.
      read_sec: seconds to read an image, while others are read.
      decode_sec: seconds to decode an image, in a decoder's process, to all of its views.
      handling_core_sec: core-seconds of this process for each image: reading, hashing, passing on.
      record_uri_bytes: the mean length of an image's location.
      pixels: some of the images by the size of their square, uint8 [n, size, size, 3].
    """

    tried: int
    failed: dict[str, int]
    failed_share: Estimate
    read_bytes: Estimate
    read_sec: Estimate
    decode_sec: Estimate
    handling_core_sec: float
    record_uri_bytes: float
    pixels: Mapping[int, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineCost:
    """The measured cost of an engine on this machine; or of those of several backbones, for each image together.

    Attributes:
      name: engine and precision, for people.
      precision: the precision of its arithmetic.
      device: "cpu" or "gpu".
      occupied_sec: core-seconds for each image: the number of cores times the time that an image takes, so it contains
        the time that other programs took. On a GPU, seconds.
      cpu_sec: core-seconds of this process for each image; at most the expected `occupied_sec`.
      load_sec: seconds to load it. The first time with new weights takes longer, because they are converted then.
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
        """The share of this machine that the engine got while it was measured: 1 if no other program ran."""
        return self.cpu_sec / self.occupied_sec.expected


def together(costs: Sequence[EngineCost]) -> EngineCost:
    """The cost of the engines of several backbones that embed the same images on the same cores."""
    first, *others = costs
    if not others:
        return first
    occupied_sec = first.occupied_sec
    for cost in others:
        occupied_sec = occupied_sec + cost.occupied_sec
    return EngineCost(
        name=f"{', '.join(dict.fromkeys(cost.name for cost in costs))} for {counted(len(costs), 'backbone')}",
        precision=next((cost.precision for cost in costs if cost.precision == "bfloat16"), first.precision),
        device=next((cost.device for cost in costs if cost.device != "cpu"), first.device),
        occupied_sec=occupied_sec,
        cpu_sec=sum(cost.cpu_sec for cost in costs),
        load_sec=sum(cost.load_sec for cost in costs),
        embedding_size=sum(cost.embedding_size for cost in costs),
    )


def sample_images(drawn: Mapping[str, int], *, number: int, lists: ScannedLists, images: ImageSource) -> SampledImages:
    """Reads and decodes images as the pipeline does.

    Args:
      drawn: locations of images, a random sample of the lists, and how often the lists name each. An image that they
        name ten times is tried once and counts as ten.
      number: the number of images to try, at least 1.
      lists: the lists from which they were drawn.
      images: how images are read and decoded.

    Raises:
      InputError: none of them can be used.
      OSError: storage does not answer.
    """
    times = dict(itertools.islice(drawn.items(), number))
    is_all = sum(times.values()) >= lists.images
    _start_decoders(images)
    loader = images.make_loader()
    cpu_started = time.process_time()
    loader.add(times)
    failures: list[RowFailure] = []
    loaded: list[LoadedImage] = []
    weights: list[int] = []
    layout = images.layout
    pixels: dict[int, list[np.ndarray]] = {size: [] for size in layout.sizes}
    usable: list[bool] = []
    for weight in times.values():
        image = loader.next()
        usable.append(isinstance(image, LoadedImage))
        if isinstance(image, RowFailure):
            failures.append(image)
        elif isinstance(image, LoadedImage):
            for size, of_size in pixels.items():
                if len(of_size) < _MOST_PIXELS:
                    square = layout.square(image.pixels, size)
                    of_size.append(square if images.views is None else square[0])
            loaded.append(dataclasses.replace(image, pixels=image.pixels[:0]))
            weights.append(weight)
    cpu_sec = time.process_time() - cpu_started
    failed = dict(collections.Counter(failure.reason for failure in failures).most_common())
    if not loaded:
        reasons = ", ".join(f"{reason} {count}" for reason, count in failed.items())
        raise InputError(
            f"{', '.join(lists.paths)}: none of the {counted(len(times), 'image')} of the sample can be used: "
            f"{reasons}; for example {failures[0].message.rstrip('.')}. Relative URIs are relative to the list that "
            "names them."
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
        pixels={size: np.stack(of_size) for size, of_size in pixels.items()},
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
    """Measures a warm engine on real images, with full batches and as many of them as it runs at once.

    Args:
      engine: the engine.
      pixels: images, uint8 [n, size, size, 3], n > 0; they are used repeatedly.
      batch_size: images in a batch; None for the engine's own choice.
      load_sec: the seconds that loading it took.
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


def record_bytes(sample: SampledImages, engine: EngineCost, *, views: int) -> int:
    """Bytes of a record of so many views in a shard without compression."""
    further_views = np.zeros((views - 1, engine.embedding_size), np.float32)
    example = encode_example(
        image_uri="x" * round(sample.record_uri_bytes),
        embedding=np.zeros(engine.embedding_size, np.float32),
        label_ids=(0,),
        image_sha256=_UNKNOWN_DIGEST,
        image_hash=bytes(HASH_BYTES),
        view_embeddings=further_views if views > 1 else None,
    )
    return len(frame_record(example))
