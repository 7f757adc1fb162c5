"""The Beam transforms that connect the steps of a job. The logic of the steps is in other modules."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from preprocess.images.loader import FoundEmbedding, LoadedImage
from preprocess.jobs import faults, progress
from preprocess.jobs.block_embedder import BlockEmbedder, Loader
from preprocess.jobs.block_results import BlockResult, StoredResult, stored_name
from preprocess.jobs.block_writer import BlockWriter
from preprocess.jobs.commit import JobFailed, finish_record_set
from preprocess.jobs.embedding_cache import RETRY_SEC, EmbeddingCache
from preprocess.jobs.job import Job
from preprocess.jobs.joint_embedder import JointEmbedder
from preprocess.jobs.made_with import load_for_worker
from preprocess.jobs.recent_embeddings import RecentEmbeddings, recent_embeddings_of
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneSet:
    """A set of records to make: what one backbone makes of the images.

    Attributes:
      job: the job.
      load_engine: as in `EmbedOptions`.
      size: the side of the square that the backbone takes.
    """

    job: Job
    load_engine: Callable[[], Engine]
    size: int


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
    """Embeds blocks: from a few blocks to the names of their results, one for each set. Records are written here.

    All results come from `process`, because not every runner takes what `finish_bundle` gives: Beam's DaskRunner drops
    it. So the images of the next block are read while a block is completed only within one element.
    """

    def __init__(self, sets: Sequence[BackboneSet], options: EmbedOptions, *, image: str | None):
        super().__init__(image)
        self._sets = tuple(sets)
        self._options = options

    def setup(self) -> None:
        retry = self._options.images.retry
        self._storage = BeamStorage(retry)
        self._members = []
        for made in self._sets:
            with faults.noted():
                engine = load_for_worker(made.load_engine, made.job, self._storage)
                earlier = ResumeIndex(self._storage, made.job, engine)
            cache = None
            if made.job.embedding_cache:
                cache = EmbeddingCache(
                    made.job.embedding_cache,
                    storage=BeamStorage(dataclasses.replace(retry, limit_sec=min(retry.limit_sec, RETRY_SEC))),
                    identity=engine.identity,
                    engine=engine.info,
                    views=self._options.images.views,
                )
            recent = recent_embeddings_of(made.job.run_id, engine)
            self._members.append(_Member(made, engine, earlier, cache, recent))
        self._cache_fault_said = False

    def start_bundle(self) -> None:
        sizes = [made.size for made in self._sets]
        first, *others = dict.fromkeys(sizes)
        images = dataclasses.replace(self._options.images, size=first, further_sizes=tuple(others))
        self._embedder = JointEmbedder(
            loader=images.make_loader(
                self._find_embeddings if any(member.cache for member in self._members) else None,
                recall=self._recall,
                engines=[member.engine for member in self._members],
                wants_hashes=any(member.made.job.image_hashes for member in self._members),
            ),
            layout=images.layout,
            sizes=sizes,
            make_embedder=self._make_embedder,
        )

    def _find_embeddings(self, digest: bytes) -> tuple[FoundEmbedding | None, ...]:
        return tuple(member.cache.find(digest) if member.cache else None for member in self._members)

    def _recall(self, digest: bytes) -> tuple[FoundEmbedding, ...] | None:
        found = []
        for member in self._members:
            one = member.recent.find(digest)
            if one is None or (member.made.job.image_hashes and not one.image_hash):
                return None
            found.append(one)
        return tuple(found)

    def _make_embedder(self, number: int, loader: Loader) -> BlockEmbedder:
        member = self._members[number]

        def open_writer(block: RowBlock) -> BlockWriter:
            check_held()
            return BlockWriter(
                block,
                storage=self._storage,
                parts_dir=member.made.job.parts_dir,
                compression=member.made.job.compression,
                engine=member.engine,
            )

        return BlockEmbedder(
            loader=loader,
            engine=member.engine,
            open_writer=open_writer,
            batch_size=self._options.batch_size or member.engine.batch_size,
            on_rows_done=progress.notify,
            views=self._options.images.views,
            recent=member.recent,
            image_hashes=member.made.job.image_hashes,
            **({"keep_embedding": member.cache.keep} if member.cache else {}),
        )

    def process(self, blocks: tuple[RowBlock, ...]) -> Iterator[tuple[StoredResult, ...]]:
        for block in blocks:
            with faults.noted():
                earlier = [member.earlier.find(block) for member in self._members]
                known = [left.result for left in earlier if left.result is not None]
                if len(known) < len(earlier):
                    self._embedder.submit(block, earlier)
            progress.notify(sum(result.rows for result in known))
            if len(known) == len(earlier):
                yield self._counted(known)
            while self._embedder.submitted > 1:
                yield self._complete_next()
        while self._embedder.submitted:
            yield self._complete_next()

    def finish_bundle(self) -> None:
        for cache in [member.cache for member in self._members if member.cache]:
            cache.flush()
            fault = cache.counts().first_fault
            if fault and not self._cache_fault_said:
                self._cache_fault_said = True
                _LOGGER.warning("embedding_cache: %s (embedded anew; only time is lost)", fault)

    def _complete_next(self) -> tuple[StoredResult, ...]:
        with faults.noted():
            results = self._embedder.complete_next()
        return self._counted(results)

    def _counted(self, results: Sequence[BlockResult]) -> tuple[StoredResult, ...]:
        for made, result in zip(self._sets, results, strict=True):
            count_block(result, made.job.backbone_name)
        return tuple(map(stored_name, results))


@dataclasses.dataclass(frozen=True, eq=False)
class _Member:
    """What a worker has for one of the sets: its engine, what earlier runs left, and its part of the cache."""

    made: BackboneSet
    engine: Engine
    earlier: ResumeIndex
    cache: EmbeddingCache | None
    recent: RecentEmbeddings


class _FinishRecordSets(DoFnOfThisCode):
    """Commits the sets: from the names of the results of all blocks to the reports, which are its only output."""

    def __init__(self, jobs: Sequence[Job], retry: RetryPolicy, *, image: str | None):
        super().__init__(image)
        self._jobs = tuple(jobs)
        self._retry = retry

    def process(self, _: None, results: Iterable[tuple[StoredResult, ...]]) -> Iterator[dict[str, Any]]:
        failed = None
        with faults.noted():
            for number, job in enumerate(self._jobs):
                try:
                    yield self._finish(job, (of_sets[number] for of_sets in results))
                except JobFailed as error:
                    failed = failed or error  # The other sets are committed.
            if failed is not None:
                raise failed

    def _finish(self, job: Job, results: Iterable[StoredResult]) -> dict[str, Any]:
        storage = BeamStorage(self._retry)
        fence = fence_of(sidecar_dir(job.output_prefix), run_id=job.run_id, output=job.output_prefix, storage=storage)
        try:
            report = finish_record_set(read_stored(results, job, storage), job=job, storage=fenced(storage, fence))
        except FileNotFoundError:
            fence.confirm()  # If another run has taken the output over, that is why a file is gone.
            raise
        if report["status"] != COMPLETE:
            raise JobFailed(report["error"])
        if isinstance(fence, Witness):
            fence.release()
        return report


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

    Args:
      job: the job of the set.
      labels: the dictionary.
      options: how rows become records.
      further: sets that other backbones make of the same images, each of which is read and decoded once. Their jobs are
        of the same lists, and have the same options but for the backbone and the output.
    """

    def __init__(self, *, job: Job, labels: LabelDict, options: EmbedOptions, further: Sequence[BackboneSet] = ()):
        super().__init__()
        self._job = job
        self._labels = labels
        self._options = options
        first = BackboneSet(job=job, load_engine=options.load_engine, size=options.images.size)
        self._sets = (first, *further)

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
            | "EmbedImages"
            >> beam.ParDo(_EmbedRowBlocks(self._sets, self._options, image=image))  # (StoredResult, ...)
        )
        return (
            pipeline
            | "Once" >> beam.Create([None])
            | "FinishRecordSet"
            >> beam.ParDo(
                _FinishRecordSets([made.job for made in self._sets], retry, image=image), beam.pvalue.AsList(results)
            )  # a report of each set
        )
