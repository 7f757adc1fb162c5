"""Goes on with jobs that an earlier version of this program began or finished, as it began them.

A job is its definition, so what is new in a definition would make another job of the same command: its unfinished work
would be refused, and its finished set too. Records have perceptual hashes since version 0.3. A job that was begun
without them ends without them, and all records of a set are of one kind.
"""

from __future__ import annotations

import dataclasses
import json
import posixpath

from configs.errors import InputError
from preprocess.images.perceptual_hash import HASH_NAME
from preprocess.jobs.job import DEFINITION_NAME, Job, differences
from preprocess.records.record_set import REPORT_NAME, sidecar_path
from preprocess.storage.base import Storage, has_file, read_file

# The field of a definition that says which perceptual hashes the records have.
HASH_FIELD = "image_phash"


def with_hashes(job: Job) -> Job:
    """The job with perceptual hashes in its records."""
    return dataclasses.replace(job, definition={**job.definition, HASH_FIELD: HASH_NAME}, image_hashes=True)


def as_begun(job: Job, storage: Storage, *, overwrite: bool) -> Job:
    """The same job without hashes if an earlier version began it at this output, or finished it there.

    Args:
      job: the job with hashes.
      storage: where the output lies.
      overwrite: the finished set is replaced, so its kind of records does not matter.

    Raises:
      InputError: storage cannot be read.
    """
    definition = {name: value for name, value in job.definition.items() if name != HASH_FIELD}
    earlier = dataclasses.replace(job, definition=definition, image_hashes=False)
    try:
        if has_file(storage, posixpath.join(earlier.parts_dir, DEFINITION_NAME)):
            return earlier
        if not overwrite and _is_finished(earlier, storage):
            return earlier
    except OSError as error:
        raise InputError(f"output_path: cannot look at {job.output_prefix!r} ({error}).") from error
    return job


def _is_finished(job: Job, storage: Storage) -> bool:
    path = sidecar_path(job.output_prefix, REPORT_NAME)
    if not has_file(storage, path):
        return False
    try:
        report = json.loads(read_file(storage, path))
    except (FileNotFoundError, ValueError, RecursionError):
        return False
    made_with = report.get("definition") if isinstance(report, dict) else None
    return isinstance(made_with, dict) and not differences(job.definition, made_with)
