"""Answers for the records of shards, and completes the answers. Nothing here uses Beam."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import posixpath
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, cast

import numpy as np

from configs.json_text import json_line
from pipelines.answers.answer_job import AnswerFile, AnswerJob, ShardRange, answer_files, answers_path, read_json
from preprocess.answers.answer_table import make_answers, open_writer
from preprocess.answers.head import Head
from preprocess.jobs import progress
from preprocess.jobs.block_writer import HashingStream
from preprocess.jobs.commit import JobFailed
from preprocess.locks.output_lock import check_held
from preprocess.records.record_set import MANIFEST_NAME, Manifest, sidecar_path
from preprocess.storage.base import Storage, read_file, write_file
from trainer.data.record_parser import Records
from trainer.data.record_sets import RecordSet
from trainer.data.shard_reader import read_shards

# Rows that pass the head together. How many they are may change the last bits of a matrix product, so the pieces of a
# shard do not depend on how it was read.
_ROWS = 1024
# What answers need of records.
_ARRAYS = ("views", "label_ids", "label_counts")


class ShardAnswerer:
    """Writes files of answers, with the head and the record sets of a job.

    Args:
      job: the job.
      storage: of the output and of the record sets.

    Raises:
      JobFailed: the head or a record set was replaced meanwhile.
      OSError: storage failed.
    """

    def __init__(self, job: AnswerJob, storage: Storage):
        self._job = job
        self._storage = storage
        data = read_file(storage, job.head_path)
        if hashlib.sha256(data).hexdigest() != job.head_sha256:
            raise JobFailed(f"{job.head_path} was replaced by another run")
        self._head = Head.from_bytes(data, where=job.head_path)
        self._sets = [
            _read_set(prefix, digest, storage) for prefix, digest in zip(job.sets, job.manifests, strict=True)
        ]

    def answer(self, element: ShardRange) -> AnswerFile:
        """Writes one file of answers, under its name in the folder of parts.

        Raises:
          InputError: a shard is not what its manifest says.
          OSError: storage failed.
        """
        job = self._job
        name = job.file_name(element.index)
        shards = [
            (self._sets[set_index], self._sets[set_index].manifest.shards[shard_index])
            for set_index, shard_index in element.shards
        ]
        counts: collections.Counter[str] = collections.Counter()
        by_label: collections.Counter[str] = collections.Counter()
        check_held()
        with self._storage.create(posixpath.join(job.parts_dir, name), durable=False) as raw:
            stream = HashingStream(raw)
            writer = open_writer(cast(BinaryIO, stream), job.kind, names=job.names, top_k=job.top_k)
            for (record_set, _), pieces in zip(shards, read_shards(shards), strict=True):
                labels = record_set.manifest.labels
                for records in _in_pieces(pieces):
                    answers = make_answers(
                        records.uris,
                        self._head(records.embeddings),
                        _given(records, labels),
                        names=job.names,
                        top_k=job.top_k,
                        threshold=job.threshold,
                        several_labels=job.several_labels,
                    )
                    writer.write(answers)
                    counts["rows"] += len(answers)
                    counts["confident"] += int(answers.confident.sum())
                    counts["labelled"] += sum(correct is not None for correct in answers.correct)
                    counts["correct"] += sum(bool(correct) for correct in answers.correct)
                    by_label.update(answers.labels)
                    progress.notify(len(answers))
            writer.close()
        return AnswerFile(
            name=name,
            rows=counts["rows"],
            confident=counts["confident"],
            labelled=counts["labelled"],
            correct=counts["correct"],
            by_label=dict(by_label),
            num_bytes=stream.num_bytes,
            sha256=stream.sha256,
        )


def _read_set(prefix: str, digest: str, storage: Storage) -> RecordSet:
    """The record set with this digest of its manifest. Raises JobFailed if it is another one by now."""
    path = sidecar_path(prefix, MANIFEST_NAME)
    data = read_file(storage, path)
    if hashlib.sha256(data).hexdigest() != digest:
        raise JobFailed(f"the record set {prefix} was replaced while its records were answered for")
    return RecordSet(prefix=prefix, manifest=Manifest.from_bytes(data, where=path))


def _in_pieces(pieces: Iterable[Records]) -> Iterator[Records]:
    """The records of a shard in pieces of `_ROWS`, and one of the rest."""
    waiting: list[Records] = []
    rows = 0
    for piece in pieces:
        waiting.append(piece)
        rows += len(piece)
        while rows >= _ROWS:
            joined = _join(waiting)
            waiting, rows = [], rows - _ROWS
            if rows:
                waiting = [_part(joined, _ROWS, _ROWS + rows)]
            yield _part(joined, 0, _ROWS) if rows else joined
    if rows:
        yield _join(waiting)


def _join(pieces: list[Records]) -> Records:
    if len(pieces) == 1:
        return pieces[0]
    return dataclasses.replace(
        pieces[0],
        uris=[uri for piece in pieces for uri in piece.uris],
        **{name: np.concatenate([getattr(piece, name) for piece in pieces]) for name in _ARRAYS},
    )


def _part(records: Records, start: int, end: int) -> Records:
    splits = np.concatenate([[0], np.cumsum(records.label_counts)])
    return dataclasses.replace(
        records,
        uris=records.uris[start:end],
        views=records.views[start:end],
        label_ids=records.label_ids[splits[start] : splits[end]],
        label_counts=records.label_counts[start:end],
    )


def _given(records: Records, labels: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The names of the labels of each record."""
    names = [labels[i] for i in records.label_ids.tolist()]
    ends = np.cumsum(records.label_counts).tolist()
    return [tuple(names[end - count : end]) for end, count in zip(ends, records.label_counts.tolist(), strict=True)]


def finish_answers(
    results: Iterable[AnswerFile], job: AnswerJob, about: dict[str, Any], storage: Storage
) -> dict[str, Any]:
    """Gives all files their final names, and writes `answers.json` last.

    Args:
      results: all files, in any order.
      job: that they are of.
      about: what `answers.json` says beside the answers themselves.
      storage: of the output, under the lock of the run.

    Returns:
      What `answers.json` holds.

    Raises:
      JobFailed: rows are missing.
    """
    files = sorted(results, key=lambda file: file.name)
    earlier = read_json(answers_path(job.output_prefix), storage)
    if earlier.get("run_id") == job.run_id:
        return earlier  # Runners may run this step twice.
    answered = sum(file.rows for file in files)
    if answered != about["records"] or len(files) != len(job.files):
        raise JobFailed(
            f"{answered} of {about['records']} records were answered. Give the same command again; if that does not "
            "help, please report it."
        )
    folder = posixpath.dirname(job.output_prefix)
    by_label: collections.Counter[str] = collections.Counter()
    for file in files:
        by_label.update(file.by_label)
    told = {
        **about,
        "answered": answered,
        **{name: sum(getattr(file, name) for file in files) for name in ("confident", "labelled", "correct")},
        "by_label": dict(sorted(by_label.items(), key=lambda entry: (-entry[1], entry[0]))),
        "files": [
            {"name": file.name, "rows": file.rows, "num_bytes": file.num_bytes, "sha256": file.sha256} for file in files
        ],
    }
    # Older answers stay whole until here.
    storage.delete_file(answers_path(job.output_prefix))
    for file in files:
        storage.move(posixpath.join(job.parts_dir, file.name), posixpath.join(folder, file.name))
    names = {file.name for file in files}
    for path in answer_files(job.output_prefix, storage):
        if posixpath.basename(path) not in names:
            storage.delete_file(path)
    write_file(storage, answers_path(job.output_prefix), json_line(told, indent=2))
    storage.delete_tree(job.parts_dir)
    return told
