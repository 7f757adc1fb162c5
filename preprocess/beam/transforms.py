"""The Beam transforms that connect the steps of a job. The logic of the steps is in other modules."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.internal import pickler
from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions, WorkerOptions

from configs.activity import doing
from configs.choices import UnknownLabels
from configs.errors import InputError
from configs.recipe import PreprocessOptions
from preprocess.backbones.backbone import BackboneSpec
from preprocess.beam.beam_storage import BeamStorage
from preprocess.beam.counters import count_block
from preprocess.beam.image_source import ImageSource
from preprocess.beam.source_digest import check_same_code, source_digest
from preprocess.engines.base import Engine, EngineInfo
from preprocess.engines.select import EngineSpec, load_engine
from preprocess.images.loader import LoadedImage
from preprocess.jobs import faults, progress
from preprocess.jobs.block_embedder import BlockEmbedder
from preprocess.jobs.block_results import StoredResult, stored_name
from preprocess.jobs.block_writer import BlockWriter
from preprocess.jobs.commit import JobFailed, finish_record_set
from preprocess.jobs.embedding_cache import RETRY_SEC, EmbeddingCache
from preprocess.jobs.job import Job
from preprocess.jobs.made_with import load_for_worker
from preprocess.jobs.report import COMPLETE
from preprocess.jobs.resume import ResumeIndex
from preprocess.jobs.stored_results import read_stored
from preprocess.lists.blocks import RowBlock, Spread, into_blocks, joined_blocks
from preprocess.lists.labels import LabelDict
from preprocess.lists.list_format import PLAIN
from preprocess.lists.opened_list import reopen_list
from preprocess.lists.rows import check_unchanged, parse_rows
from preprocess.locks.output_lock import Witness, check_held, fence_of, fenced
from preprocess.machine.machine_faults import MachineFault
from preprocess.records.backbone_identity import BackboneIdentity, difference_of
from preprocess.records.record_set import sidecar_dir
from preprocess.storage.retry import RetryPolicy

_LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbedOptions:
    """How rows become records.

    Attributes:
      unknown_labels: what to do with rows whose labels are not in the dictionary.
      load_engine: loads the engine. Each thread of a worker calls it, and all threads of a process get the same engine.
        It must be picklable.
      images: how images are read and decoded, and which views of them are embedded.
      rows_per_shard: rows of a block, which is also the largest number of records in a shard.
      batch_size: images in a batch; None for the engine's own choice.
      spread: how the blocks are divided among elements, and so among workers. It decides no record.
    """

    unknown_labels: UnknownLabels
    load_engine: Callable[[], Engine]
    images: ImageSource = dataclasses.field(default_factory=ImageSource)
    rows_per_shard: int = PreprocessOptions.rows_per_shard
    batch_size: int | None = None
    spread: Spread = dataclasses.field(default_factory=Spread)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineLoader:
    """Loads an engine when it is called, on the worker that calls it. It is picklable, and the engine is not.

    Attributes:
      backbone: the network.
      engine: the engine and precision to use.
      calibration: locations of images for the calibration of int8.
      images: how images are read and decoded.
      expects: the only network that will do; None for the backbone, whatever its weights are.
    """

    backbone: BackboneSpec
    engine: EngineSpec
    calibration: tuple[str, ...] = ()
    images: ImageSource = dataclasses.field(default_factory=ImageSource)
    expects: BackboneIdentity | None = None

    def __call__(self) -> Engine:
        """Loads the engine. Raises InputError if it cannot be loaded, or runs another network than is expected."""
        engine = load_engine(self.backbone, self.engine, self._calibration_pixels, BeamStorage(self.images.retry))
        if self.expects is not None and not engine.identity.agrees_with(self.expects):
            raise InputError(
                f"weights: {engine.identity.describe()} is not the network that the model was trained on, "
                f"{self.expects.describe()}: {difference_of(self.expects, engine.identity)}. Pass the file that made "
                "its records as --weights FILE."
            )
        return engine

    def obeying(self, recorded: EngineInfo) -> EngineLoader:
        """A loader that uses the recorded engine and precision where the options say `auto`."""
        return dataclasses.replace(self, engine=dataclasses.replace(self.engine, begun_with=recorded))

    def _calibration_pixels(self) -> np.ndarray:
        """The calibration images that can be read: uint8 [n, size, size, 3]."""
        loader = self.images.without_views.make_loader()
        loader.add(self.calibration)
        pixels = []
        with doing("reading images to calibrate int8 with", total=len(self.calibration), unit="image") as reading:
            for _ in self.calibration:
                try:
                    image = loader.next()
                except MachineFault as fault:
                    raise InputError(f"calibration images: {fault}") from fault
                if isinstance(image, LoadedImage):
                    pixels.append(image.pixels)
                reading.advance()
        return np.stack(pixels) if pixels else np.empty((0, self.images.size, self.images.size, 3), np.uint8)


class DoFnOfThisCode(beam.DoFn):
    """A stage that a worker refuses in one line if its code differs from that of the launcher.

    The check cannot be in `setup`: unpickling with other code fails before `setup`, or gives a wrong object. So the
    digest of the code is pickled separately, and the rest is unpickled only after the digest was compared.

    Args:
      image: the container image of the workers; None if they use no image of ours.
    """

    def __init__(self, image: str | None):
        self._image = image

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle_if_same_code, (source_digest(), self._image, pickler.dumps((type(self), self.__dict__)))


def _unpickle_if_same_code(launcher: str, image: str | None, pickled: bytes) -> beam.DoFn:
    check_same_code(launcher, image)
    kind, fields = pickler.loads(pickled)
    stage = kind.__new__(kind)
    stage.__dict__.update(fields)
    return stage


class _ReadRowBlocks(DoFnOfThisCode):
    """Reads lists: from (position of the list, its path, reader) to the reader's blocks, a few in each element.

    A list that has changed since it was checked fails the job before any of its rows is embedded. The next stage gets
    the blocks of a list only after the list was read to its end without an exception.
    """

    def __init__(self, job: Job, labels: LabelDict, options: EmbedOptions, *, image: str | None):
        super().__init__(image)
        self._sha256 = job.input_sha256
        self._formats = job.input_formats or (PLAIN,) * len(job.input_paths)
        self._labels = labels
        self._options = options

    def process(self, element: tuple[int, str, int]) -> Iterator[tuple[RowBlock, ...]]:
        list_index, path, reader = element
        with faults.noted(), BeamStorage(self._options.images.retry).open(path) as stream:
            opened = reopen_list(stream, self._formats[list_index], list_path=path)
            rows = parse_rows(
                opened.content,
                list_path=path,
                labels=self._labels,
                unknown_labels=self._options.unknown_labels,
                list_format=opened.list_format,
            )
            blocks = into_blocks(
                rows, list_index=list_index, list_path=path, rows_per_block=self._options.rows_per_shard
            )
            yield from joined_blocks(blocks, reader=reader, spread=self._options.spread)
            check_unchanged(path, checked=self._sha256[list_index], read=opened.hashing.sha256)


class _EmbedRowBlocks(DoFnOfThisCode):
    """Embeds blocks: from a few blocks to the names of their results. Records are written here and pass no other stage.

    All results come from `process`, because not every runner takes what `finish_bundle` gives: Beam's DaskRunner drops
    it. So the images of the next block are read while a block is completed only within one element.
    """

    def __init__(self, job: Job, options: EmbedOptions, *, image: str | None):
        super().__init__(image)
        self._job = job
        self._options = options

    def setup(self) -> None:
        options = self._options
        self._storage = BeamStorage(options.images.retry)
        with faults.noted():
            self._engine = load_for_worker(options.load_engine, self._job, self._storage)
            self._earlier = ResumeIndex(self._storage, self._job, self._engine)
        self._cache = None
        self._cache_fault_said = False
        retry = options.images.retry
        if self._job.embedding_cache:
            self._cache = EmbeddingCache(
                self._job.embedding_cache,
                storage=BeamStorage(dataclasses.replace(retry, limit_sec=min(retry.limit_sec, RETRY_SEC))),
                identity=self._engine.identity,
                engine=self._engine.info,
                views=options.images.views,
            )

    def start_bundle(self) -> None:
        self._embedder = BlockEmbedder(
            loader=self._options.images.make_loader(
                self._cache.find if self._cache else None, engine=self._engine, wants_hashes=self._job.image_hashes
            ),
            engine=self._engine,
            open_writer=self._open_writer,
            batch_size=self._options.batch_size or self._engine.batch_size,
            on_rows_done=progress.notify,
            views=self._options.images.views,
            image_hashes=self._job.image_hashes,
            **({"keep_embedding": self._cache.keep} if self._cache else {}),
        )

    def _open_writer(self, block: RowBlock) -> BlockWriter:
        check_held()
        return BlockWriter(
            block,
            storage=self._storage,
            parts_dir=self._job.parts_dir,
            compression=self._job.compression,
            engine=self._engine,
        )

    def process(self, blocks: tuple[RowBlock, ...]) -> Iterator[StoredResult]:
        for block in blocks:
            with faults.noted():
                earlier = self._earlier.find(block)
                if earlier.result is None:
                    self._embedder.submit(block, earlier)
            if earlier.result is not None:
                count_block(earlier.result)
                progress.notify(earlier.result.rows)
                yield stored_name(earlier.result)
            while self._embedder.submitted > 1:
                yield self._complete_next()
        while self._embedder.submitted:
            yield self._complete_next()

    def finish_bundle(self) -> None:
        if self._cache:
            self._cache.flush()
            fault = self._cache.counts().first_fault
            if fault and not self._cache_fault_said:
                self._cache_fault_said = True
                _LOGGER.warning("embedding_cache: %s (embedded anew; only time is lost)", fault)

    def _complete_next(self) -> StoredResult:
        with faults.noted():
            result = self._embedder.complete_next()
        count_block(result)
        return stored_name(result)


class _FinishRecordSet(DoFnOfThisCode):
    """Commits the set: from the names of the results of all blocks to the report, which is its only output."""

    def __init__(self, job: Job, retry: RetryPolicy, *, image: str | None):
        super().__init__(image)
        self._job = job
        self._retry = retry

    def process(self, _: None, results: Iterable[StoredResult]) -> Iterator[dict[str, Any]]:
        job, storage = self._job, BeamStorage(self._retry)
        folder = sidecar_dir(job.output_prefix)
        with faults.noted():
            fence = fence_of(folder, run_id=job.run_id, output=job.output_prefix, storage=storage)
            blocks = read_stored(results, job, storage)
            try:
                report = finish_record_set(blocks, job=job, storage=fenced(storage, fence))
            except FileNotFoundError:
                fence.confirm()  # If another run has taken the output over, that is why a file is gone.
                raise
        if report["status"] != COMPLETE:
            raise JobFailed(report["error"])
        if isinstance(fence, Witness):
            fence.release()
        yield report


def worker_image(options: PipelineOptions) -> str | None:
    """The container image that the user named; None for Beam's own image and for workers without a container."""
    portable = options.view_as(PortableOptions)
    in_docker = None
    if portable.environment_type in (None, "DOCKER"):  # DOCKER is the default of runners that use containers.
        in_docker = portable.lookup_environment_option("docker_container_image") or portable.environment_config
    return options.view_as(WorkerOptions).sdk_container_image or in_docker


class EmbedLists(beam.PTransform):
    """Makes a finished set of records from lists of labelled image URIs. The output is the report.

    Only blocks of rows (URIs and labels) and the names of their results pass a shuffle. Images and embeddings never
    leave their worker, except that records are written to storage; so are results, with the digests of the records.
    """

    def __init__(self, *, job: Job, labels: LabelDict, options: EmbedOptions):
        super().__init__()
        self._job = job
        self._labels = labels
        self._options = options

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        retry = self._options.images.retry
        image = worker_image(pipeline.pipeline.options)
        lists = [
            (list_index, path, reader)
            for list_index, path in enumerate(self._job.input_paths)
            for reader in range(self._options.spread.readers)
        ]
        results = (
            pipeline
            | "Lists" >> beam.Create(lists)  # (int, path, int)
            | "ReadRows" >> beam.ParDo(_ReadRowBlocks(self._job, self._labels, self._options, image=image))
            # A list is one file. Without a reshuffle, one worker would get all its blocks in one bundle.
            | "Reshuffle" >> beam.Reshuffle()  # (RowBlock, ...)
            | "EmbedImages" >> beam.ParDo(_EmbedRowBlocks(self._job, self._options, image=image))  # StoredResult
        )
        return (
            pipeline
            | "Once" >> beam.Create([None])
            | "FinishRecordSet"
            >> beam.ParDo(_FinishRecordSet(self._job, retry, image=image), beam.pvalue.AsList(results))  # report
        )
