"""The Beam transform that answers on workers: from the shards of finished record sets to files of answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam

from pipelines.answers.answer_job import AnswerFile, AnswerJob, ShardRange, sidecars
from pipelines.answers.shard_answers import ShardAnswerer, finish_answers
from preprocess.beam.beam_storage import BeamStorage
from preprocess.beam.transforms import DoFnOfThisCode, worker_image
from preprocess.locks.output_lock import Witness, fence_of, fenced
from preprocess.storage.retry import RetryPolicy


class _AnswerShards(DoFnOfThisCode):
    """Answers for the records of some shards: from what goes into a file to what was written."""

    def __init__(self, job: AnswerJob, retry: RetryPolicy, *, image: str | None):
        super().__init__(image)
        self._job = job
        self._retry = retry

    def setup(self) -> None:
        self._answerer = ShardAnswerer(self._job, BeamStorage(self._retry))

    def process(self, element: ShardRange) -> Iterator[AnswerFile]:
        yield self._answerer.answer(element)


class _FinishAnswers(DoFnOfThisCode):
    """Gives all files their final names, and writes `answers.json` last."""

    def __init__(self, job: AnswerJob, about: dict[str, Any], retry: RetryPolicy, *, image: str | None):
        super().__init__(image)
        self._job = job
        self._about = about
        self._retry = retry

    def process(self, _: None, results: Iterable[AnswerFile]) -> Iterator[dict[str, Any]]:
        job, storage = self._job, BeamStorage(self._retry)
        fence = fence_of(sidecars(job.output_prefix), run_id=job.run_id, output=job.output_prefix, storage=storage)
        done = finish_answers(results, job, self._about, fenced(storage, fence))
        if isinstance(fence, Witness):
            fence.release()
        yield done


class AnswerRecordSets(beam.PTransform):
    """Writes the answers for the records of finished sets. The output is what `answers.json` holds."""

    def __init__(self, job: AnswerJob, about: dict[str, Any], retry: RetryPolicy):
        super().__init__()
        self._job = job
        self._about = about
        self._retry = retry

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """See `apache_beam.PTransform`."""
        image = worker_image(pipeline.pipeline.options)
        results = (
            pipeline
            | "Files" >> beam.Create(list(self._job.files))  # ShardRange
            | "Reshuffle" >> beam.Reshuffle()  # ShardRange
            | "AnswerShards" >> beam.ParDo(_AnswerShards(self._job, self._retry, image=image))  # AnswerFile
        )
        finish = _FinishAnswers(self._job, self._about, self._retry, image=image)
        return (
            pipeline
            | "Once" >> beam.Create([None])
            | "FinishAnswers" >> beam.ParDo(finish, beam.pvalue.AsList(results))  # dict
        )
