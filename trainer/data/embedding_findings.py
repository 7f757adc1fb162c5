"""What embedding found out about the images of record sets: duplicates, and images that another set has too."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from configs.counts import counted
from trainer.data.record_sets import RecordSet
from trainer.storage.files import is_in_bucket


def _findings(record_set: RecordSet) -> dict[str, Any] | None:
    """The findings in the report of a set; None if the set has no report, or one of an earlier version."""
    try:
        report = record_set.report
        duplicates = report["duplicates"]
        return {
            "prefix": record_set.prefix,
            "images_with_different_labels": int(duplicates["images_with_different_labels"]),
            "repeated_records": int(duplicates["extra_records"]),
            "duplicates_file": _text(duplicates["file"]),
            "shared_with": [
                {"prefix": str(entry["prefix"]), "records": int(entry["records"]), "file": _text(entry["file"])}
                for entry in report.get("shared_with") or []
            ],
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def embedding_findings(sets: Mapping[str, Iterable[RecordSet]]) -> dict[str, list[dict[str, Any]]]:
    """The findings about the sets of each part ("train", "eval", "test"), for metrics.json.

    Returns:
      For each set with a report: `prefix`; `images_with_different_labels`: images that are in the set more than once
      under different labels; `repeated_records`: records after the first of each image; `duplicates_file`: the file
      with their URIs, or None; `shared_with`: what `--against` found: `prefix` of the other set, the number of
      `records` whose image it has too, and the `file` with their URIs, or None.
    """
    found = {
        name: [findings for record_set in part if (findings := _findings(record_set))] for name, part in sets.items()
    }
    return {name: part for name, part in found.items() if part}


def _place(prefix: str) -> str:
    return prefix if is_in_bucket(prefix) else os.path.realpath(prefix)


def finding_warnings(findings: Mapping[str, Sequence[Mapping[str, Any]]], sets: Iterable[RecordSet]) -> list[str]:
    """Warnings about the findings; sentences.

    Args:
      findings: as `embedding_findings` gives them.
      sets: all sets of the run. What they share is left out here: the trainer compares them itself.
    """
    compared = {_place(record_set.prefix) for record_set in sets}
    warnings = []
    for part in findings.values():
        for found in part:
            prefix, count = found["prefix"], found["images_with_different_labels"]
            if count:
                words = "1 image of {} is" if count == 1 else f"{count} images of {{}} are"
                warnings.append(
                    f"{words.format(prefix)} there more than once, under different labels: check the labels in "
                    f"{found['duplicates_file']}"
                )
            warnings += [
                f"embedding found {counted(entry['records'], 'image')} of {prefix} in {entry['prefix']} too: if that "
                f"is the training set, the accuracy is not that of new images. {entry['file']} names them"
                for entry in found["shared_with"]
                if entry["records"] and _place(entry["prefix"]) not in compared
            ]
    return warnings
