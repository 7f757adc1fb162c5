"""Corrections applied to records while they are read: other labels, and records that are left out."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from configs.counts import counted
from configs.errors import InputError
from preprocess.lists.corrections import Correction, Corrections, parse_corrections
from trainer.data.record_parser import Records
from trainer.storage.files import cause_of, storage

# The ledger in the output folder of a training: what was changed, one JSON object on each line.
LEDGER_NAME = "corrections.jsonl"
_SET_NAMES = {"train": "training set", "eval": "evaluation set", "test": "test set"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AppliedCorrection:
    """One record to which a correction applied.

    Attributes:
      data_set: "train", "eval" or "test".
      uri: of the record.
      digest: the beginning of the SHA-256 of the image file, in hexadecimal; empty if not known.
      was: the labels that the record has.
      correction: what was said of it.
    """

    data_set: str
    uri: str
    digest: str
    was: tuple[str, ...]
    correction: Correction

    @property
    def changes_nothing(self) -> bool:
        """Whether the record has the right labels already, as after its list was corrected and embedded anew."""
        return self.correction.action == "change" and set(self.was) == set(self.correction.labels)

    def to_json(self) -> dict[str, Any]:
        """A line of the ledger."""
        correction = self.correction
        return {
            "set": self.data_set,
            "image_uri": self.uri,
            "image_sha256": self.digest,
            "action": correction.action,
            "was": list(self.was),
            "is": list(correction.labels) if correction.action == "change" else None,
            "by": correction.by,
            "when": correction.when,
            "line": correction.line,
        }


def read_corrections(path: str, *, labels: Sequence[str], flag: str = "corrections", by: str = "") -> Corrections:
    """Reads a file of corrections, local or in a bucket.

    Args:
      path: of the file.
      labels: the dictionary of the records.
      flag: the option that named it, for the messages.
      by: who decided, for rows that do not say it.

    Raises:
      InputError: it cannot be read; see `parse_corrections`.
    """
    try:
        raw = storage().read(path)
    except OSError as error:
        raise InputError(f"--{flag}: cannot read {path}: {cause_of(error)}.") from error
    return parse_corrections(raw, path=path, labels=labels, by=by)


def corrected(
    records: Records, corrections: Corrections, labels: Sequence[str], *, data_set: str = ""
) -> tuple[Records, list[AppliedCorrection]]:
    """Records with the labels that corrections give them, without those that they remove.

    Args:
      records: as they were read.
      corrections: of any photos.
      labels: the dictionary.
      data_set: the name of the set, for the second result.

    Returns:
      The records, and to which of them corrections applied.
    """
    found: dict[int, Correction] = {}
    for row, (uri, digest) in enumerate(zip(records.uris, records.image_digests, strict=True)):
        entry = corrections.find(uri, digest.tobytes())
        if entry is not None:
            found[row] = entry
    if not found:
        return records, []
    splits = np.concatenate([[0], np.cumsum(records.label_counts)]).astype(np.int64)
    ids = [records.label_ids[start:stop] for start, stop in itertools.pairwise(splits.tolist())]
    applied = []
    kept = np.ones(len(records.uris), bool)
    for row, entry in found.items():
        digest = records.image_digests[row]
        applied.append(
            AppliedCorrection(
                data_set=data_set,
                uri=records.uris[row],
                digest=digest.tobytes().hex() if digest.any() else "",
                was=tuple(labels[label_id] for label_id in dict.fromkeys(ids[row].tolist())),
                correction=entry,
            )
        )
        if entry.action == "remove":
            kept[row] = False
        else:
            ids[row] = np.array(entry.label_ids, records.label_ids.dtype)
    changed = Records(
        uris=list(itertools.compress(records.uris, kept)),
        views=records.views if kept.all() else records.views[kept],
        label_ids=np.concatenate([np.empty(0, records.label_ids.dtype), *itertools.compress(ids, kept)]),
        label_counts=np.array([len(own) for own in itertools.compress(ids, kept)], records.label_counts.dtype),
        image_digests=records.image_digests[kept],
        image_hashes=records.image_hashes[kept],
    )
    return changed, applied


def correction_counts(applied: Iterable[AppliedCorrection]) -> dict[str, dict[str, int]]:
    """How many records of each set were `changed`, `removed`, or had the right labels `already`."""
    counts: dict[str, dict[str, int]] = {}
    for one in applied:
        of_set = counts.setdefault(one.data_set, {"changed": 0, "removed": 0, "already": 0})
        name = "already" if one.changes_nothing else "removed" if one.correction.action == "remove" else "changed"
        of_set[name] += 1
    return counts


def correction_warnings(
    corrections: Corrections, applied: Sequence[AppliedCorrection], *, num_unlabeled: int
) -> list[str]:
    """Warnings about corrections that a user should know of; sentences.

    Args:
      corrections: of the file.
      applied: to which records they applied.
      num_unlabeled: how many training records are left out because they have no label, also with the corrections.
    """
    matched = {id(one.correction) for one in applied}
    unmatched = [entry for entry in corrections if id(entry) not in matched]
    warnings = []
    if num_unlabeled and not any(one.data_set == "train" and not one.was for one in applied):
        # The page of `hugs next` saves the labels of such records; another file of corrections was given instead?
        records = "1 training record has" if num_unlabeled == 1 else f"{num_unlabeled:,} training records have"
        warnings.append(
            f"{records} no label, and {corrections.path} names none of them. If you gave labels on the page of `hugs "
            "next`, its file (labels.csv) belongs to --corrections"
        )
    if not unmatched:
        return warnings
    first = unmatched[0]
    verb = "matches" if len(unmatched) == 1 else "match"
    warnings.append(
        f"{counted(len(unmatched), 'correction')} of {corrections.path} {verb} no record of this run, such as line "
        f"{first.line} ({first.uri or first.digest.hex()})"
    )
    return warnings


def counts_in_words(counts: Mapping[str, Mapping[str, int]]) -> str:
    """How many records were corrected, such as "3 labels changed, 1 record removed in the training set"."""
    parts = []
    for data_set, found in counts.items():
        pieces = [
            f"{counted(found['changed'], 'label')} changed" if found["changed"] else "",
            f"{counted(found['removed'], 'record')} removed" if found["removed"] else "",
            f"{counted(found['already'], 'label')} right already" if found["already"] else "",
        ]
        parts.append(f"{', '.join(filter(None, pieces))} in the {_SET_NAMES.get(data_set, data_set)}")
    return "; ".join(parts) or "nothing changed"


def write_ledger(path: str, applied: Iterable[AppliedCorrection]) -> None:
    """Writes the ledger to a local file: one JSON object on each line, in the order of the records."""
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        for one in applied:
            stream.write(json.dumps(one.to_json(), ensure_ascii=False) + "\n")
