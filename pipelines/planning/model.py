"""Calculates the planned cost of a whole list from the measured cost of its sample.

The pipeline keeps the cores of a machine busy and waits for nothing else: `benchmarks.pipeline` measures at least 0.95
of that bound. So the time is images times core-seconds an image, divided by cores. The low ends of ranges are
multiplied with each other, and the high ends too. This gives a wider range than independent errors would have.
"""

from __future__ import annotations

import dataclasses

from configs.counts import counted
from pipelines.planning.sample import EngineCost, SampledImages
from preprocess.images.loader import READ_THREADS
from preprocess.jobs.estimate import Estimate, exactly
from preprocess.jobs.planned_cost import PlannedCost

# The speed of this machine during the job, compared with its speed during the measurement. The pipeline itself was
# measured at 0.95 to 1.03 of the bound.
HERE_SPEED = Estimate(0.8, 0.97, 1.05)
# Seconds for the start and the end of a run on this machine: Beam, decoders, the last files.
_HERE_OVERHEAD_SEC = Estimate(0.2, 0.7, 3.0)
# Seconds to load a network that was prepared before, as it is after the plan (`benchmarks.startup`).
_PREPARED_LOAD_SEC = 3.0

# The size of a shard with gzip, compared with one without.
_GZIP = Estimate(0.7, 0.75, 0.95)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListWork:
    """A list, and the cost of its images on this machine.

    Attributes:
      split: "train", "eval" or "test".
      rows: the rows of the list.
      images: rows that name an image to embed; the other rows cost nothing.
      blocks: the number of blocks; one worker embeds a block.
      rows_per_block: the rows of each block except the last.
      lists: the number of files of the list; one worker reads a file.
      sample: the measured cost of the sample.
      record_bytes: the size of an uncompressed record; of several backbones of all records of an image.
      gzipped: whether shards are compressed.
      views: the embeddings of each image.
      sets: the record sets that are made of the list, one for each backbone.
    """

    split: str
    rows: int
    images: int
    blocks: int
    rows_per_block: int
    sample: SampledImages
    record_bytes: int
    gzipped: bool
    lists: int = 1
    views: int = 1
    sets: int = 1

    @property
    def read_bytes(self) -> Estimate:
        """The bytes of all image files that can be decoded."""
        return self.sample.read_bytes * self._good_images

    @property
    def output_bytes(self) -> Estimate:
        """The bytes of all shards."""
        return self._good_images * self.record_bytes * (_GZIP if self.gzipped else 1.0)

    @property
    def failed_percent(self) -> Estimate:
        """The percentage of the images that fail."""
        return self.sample.failed_share * 100.0

    @property
    def _good_images(self) -> Estimate:
        return _without(self.sample.failed_share) * self.images

    def core_sec_per_image(self, engine: EngineCost) -> Estimate:
        """Core-seconds of this machine that the average image needs, without the time that other programs took."""
        # Decoders waited for a core too while the machine was busy. How long is known for the engine only.
        decode_sec = self.sample.decode_sec
        own = decode_sec * engine.share_of_machine if engine.device == "cpu" else decode_sec
        decode = Estimate(own.low, own.expected, decode_sec.high)
        return self._per_image(decode, engine, exactly(engine.cpu_sec))

    def occupied_sec_per_image(self, engine: EngineCost) -> Estimate:
        """Core-seconds that pass on this machine for the average image, with the time that other programs took.

        The low end is without the time of other programs.
        """
        busy = self._per_image(self.sample.decode_sec, engine, engine.occupied_sec)
        return Estimate(min(self.core_sec_per_image(engine).low, busy.low), busy.expected, busy.high)

    def _per_image(self, decode_sec: Estimate, engine: EngineCost, engine_sec: Estimate) -> Estimate:
        image = decode_sec + engine_sec * float(self.views) if engine.device == "cpu" else decode_sec
        return image * _without(self.sample.failed_share) + exactly(self.sample.handling_core_sec)


def _without(share: Estimate) -> Estimate:
    return Estimate(1 - share.high, 1 - share.expected, 1 - share.low)


def planned_cost_here(work: ListWork, engine: EngineCost, *, cores: int, is_first: bool) -> PlannedCost:
    """The planned cost of a list on this machine.

    Args:
      work: the list.
      engine: the engine that embeds.
      cores: the cores of this machine.
      is_first: whether it is the first list; the network is loaded for the first list only.
    """
    sec_per_image = work.occupied_sec_per_image(engine) * (1 / cores)
    # This work overlaps with that of the cores, and may take longer.
    others = [work.sample.read_sec * (1 / READ_THREADS)]
    if engine.device == "gpu":
        others.append(engine.occupied_sec * float(work.views))
    for other in others:
        sec_per_image = longer_of(sec_per_image, other)
    load_sec = Estimate(
        0, min(engine.load_sec, _PREPARED_LOAD_SEC) if is_first else 0, max(engine.load_sec, _PREPARED_LOAD_SEC)
    )
    wall_sec = at_speed(sec_per_image * work.images, HERE_SPEED) + load_sec + _HERE_OVERHEAD_SEC
    return planned_cost_of(work, wall_sec, where=f"this machine, {counted(cores, 'core')}, {engine.name}")


def longer_of(one: Estimate, other: Estimate) -> Estimate:
    """The time of two kinds of work that overlap: that of the longer one."""
    return Estimate(max(one.low, other.low), max(one.expected, other.expected), max(one.high, other.high))


def at_speed(seconds: Estimate, speed: Estimate) -> Estimate:
    """The time at another speed."""
    return seconds * (1.0 / speed)


def planned_cost_of(work: ListWork, wall_sec: Estimate | None, *, where: str) -> PlannedCost:
    """The planned cost of a list, with its time if that is known."""
    good_images = work.images * (1 - work.sample.failed_share.expected)
    return PlannedCost(
        where=where,
        wall_sec=wall_sec,
        images_per_sec=wall_sec and good_images / wall_sec,
        read_bytes=work.read_bytes,
        decode_sec_per_image=work.sample.decode_sec,
        failed_percent=work.failed_percent,
    )


def planned_cost_elsewhere(work: ListWork, *, where: str) -> PlannedCost:
    """The planned cost of a list on machines that are not known: without a time."""
    return planned_cost_of(work, None, where=where)
