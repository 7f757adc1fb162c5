"""Finds the whole record sets that the user's paths name, with their manifests, or refuses them in one clear line."""

from __future__ import annotations

import dataclasses
import functools
import glob
import json
import os
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from configs.counts import counted
from configs.errors import InputError
from configs.printed_commands import program_command
from preprocess.lists.labels import DICT_NAME
from preprocess.records import record_set
from preprocess.records.backbone_identity import difference_of
from preprocess.records.record_set import Manifest, Shard, set_of_shard, sidecar_dir, sidecar_path
from preprocess.storage.base import with_literal_folders
from trainer.data.unfinished_sets import finishing_command, is_unfinished
from trainer.storage.files import cause_of, has_glob, is_folder, is_in_bucket, storage

# The names of lists, which are embedded before anything can be learnt from them.
_LIST_ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordSet:
    """A finished set of records.

    Attributes:
      prefix: for example "out/preproc/train".
      manifest: what the set holds.
      stale_files: files that are named like shards of the set but are not in its manifest. They are left from an
        earlier run, and nothing reads them.
      verified: False if the set was made elsewhere. If it has no manifest, `manifest` was made from its files, and its
        backbone states only the size of the embeddings. A set of imported bottlenecks also states the architecture.
    """

    prefix: str
    manifest: Manifest
    stale_files: tuple[str, ...] = ()
    verified: bool = True

    @property
    def num_views(self) -> int:
        """How many embeddings each record has."""
        return 1 if self.manifest.views is None else self.manifest.views.count

    def shard_path(self, name: str) -> str:
        """The path of the shard with that file name."""
        return posixpath.join(posixpath.dirname(self.prefix), name)

    @functools.cached_property
    def report(self) -> Mapping[str, Any]:
        """The report of the job that wrote the set; empty if the set was made elsewhere or the report is unreadable."""
        try:
            report = json.loads(storage().read(sidecar_path(self.prefix, record_set.REPORT_NAME)))
        except (OSError, ValueError, RecursionError):
            return {}
        return report if isinstance(report, dict) else {}


def _is_sidecar(path: str) -> bool:
    """True for a sidecar folder and for everything in one; a broad glob matches both.

    The name of a set may begin with an underscore too. No sidecar folder has files that are named like shards.
    """
    if set_of_shard(path) is not None:
        return False
    parent, name = posixpath.split(path.rstrip("/"))
    return name.startswith("_") or posixpath.basename(parent).startswith("_")


def _files(path: str, flag: str) -> list[str]:
    """The shard files that one path, glob or set prefix names, sorted, without sidecars."""
    try:
        matched = storage().match(path)
        if matched == [path]:  # A plain name: the shell may have expanded the glob, and a name may hold a bracket.
            return matched
        if is_folder(path):
            inside = posixpath.join(path, "train")
            raise InputError(f"--{flag}: {path} is a folder. Name a set in it, for example '{inside}'.")
        has_sidecar = is_folder(sidecar_dir(path))  # A set may have a bracket in its name.
        if has_sidecar or not has_glob(path):
            # Of `train`, this matches the shards of a set `train-corrected` too.
            shards = [name for name in storage().match(f"{glob.escape(path)}-*") if set_of_shard(name) == path]
            if shards:
                return shards
            if not has_sidecar:
                raise InputError(
                    f"--{flag}: no such record set or file: {path}. Name a set such as 'out/preproc/train', or shards."
                )
            if is_unfinished(path):
                raise _unfinished(path, flag)
            raise InputError(
                f"--{flag}: the record set {path} has no shards: there is only {sidecar_dir(path)}, which holds no "
                "records. Did the pipeline run to its end, with this output path?"
            )
    except OSError as error:
        raise InputError(f"--{flag}: cannot look at {path}: {cause_of(error)}") from error
    if found := [name for name in matched if not _is_sidecar(name)]:
        return found
    if is_unfinished(prefix := path.rstrip("*").removesuffix("-")):
        raise _unfinished(prefix, flag)
    sidecars = sorted({name for name in (*matched, *glob.glob(with_literal_folders(path))) if _is_sidecar(name)})
    hint = f" (only {sidecars[0]}, which holds no records)" if sidecars else ""
    folder = posixpath.dirname(path) or "."
    if not is_in_bucket(path) and not has_glob(folder) and not os.path.isdir(folder):
        hint = f" (there is no folder {folder})"
    raise InputError(f"--{flag}: nothing matches {path!r}{hint}. Did the pipeline run, with this output path?")


def _unfinished(prefix: str, flag: str) -> InputError:
    command = finishing_command(prefix)
    how = f"this finishes it: {command}" if command else "the command that began it finishes it."
    return InputError(f"--{flag}: the record set {prefix} is not finished. If nothing is embedding it now, {how}")


def _has_sidecar(prefix: str, flag: str) -> bool:
    try:
        return is_folder(sidecar_dir(prefix))
    except OSError as error:
        raise InputError(f"--{flag}: cannot look at {sidecar_dir(prefix)}: {cause_of(error)}") from error


def _read_manifest(prefix: str, flag: str) -> Manifest:
    path = sidecar_path(prefix, record_set.MANIFEST_NAME)
    try:
        raw = storage().read(path)
    except FileNotFoundError as error:
        if is_unfinished(prefix):
            raise _unfinished(prefix, flag) from error
        raise InputError(
            f"--{flag}: the record set {prefix} is incomplete: it has shards but no {path}, which the "
            "pipeline writes last. Run the pipeline to its end. (Records made elsewhere need --input_dict dict.txt.)"
        ) from error
    except OSError as error:
        raise InputError(f"--{flag}: cannot read {path}: {cause_of(error)}") from error
    return Manifest.from_bytes(raw, where=path)


def _require_shard(path: str, shard: Shard, *, listed: bool) -> None:
    """Raises FileNotFoundError if there is no such shard, InputError if its size is not that of the manifest."""
    if is_in_bucket(path):
        # A bucket stores an object whole or not at all, and each size would cost a request. If an object was replaced,
        # its digest shows it before training.
        if not listed and not storage().match(path):
            raise FileNotFoundError(path)
        return
    num_bytes = os.path.getsize(path)
    if num_bytes != shard.num_bytes:
        raise InputError(
            f"{path} has {counted(num_bytes, 'byte')}, its set's manifest says {shard.num_bytes}: the file was cut "
            "short or replaced. Run the pipeline again."
        )


def _whole_set(prefix: str, selected: set[str], flag: str) -> RecordSet:
    manifest = _read_manifest(prefix, flag)
    if manifest.records == 0 or not manifest.shards:
        raise InputError(f"--{flag}: the record set {prefix} holds no records. See the report beside its manifest.")
    found = RecordSet(prefix=prefix, manifest=manifest, verified=manifest.backbone.is_known)
    for shard in manifest.shards:
        path = found.shard_path(shard.name)
        try:
            _require_shard(path, shard, listed=shard.name in selected)
        except FileNotFoundError as error:
            raise InputError(
                f"--{flag}: the record set {prefix} is incomplete: its manifest lists {shard.name}, and "
                "there is no such file. Run the pipeline again."
            ) from error
        except InputError as error:
            raise InputError(f"--{flag}: {error}") from error
        except OSError as error:
            raise InputError(f"--{flag}: cannot look at {path}: {cause_of(error)}") from error
        if shard.name not in selected:
            raise InputError(
                f"--{flag}: only part of the record set {prefix} is named: {shard.name} is missing. Name the "
                f"whole set: '{prefix}'."
            )
    stale = selected - {shard.name for shard in manifest.shards}
    return dataclasses.replace(found, stale_files=tuple(sorted(found.shard_path(name) for name in stale)))


def _foreign_set(prefix: str, selected: set[str], labels: tuple[str, ...], flag: str) -> RecordSet:
    from trainer.data.foreign_sets import make_manifest

    return RecordSet(prefix=prefix, manifest=make_manifest(prefix, selected, labels, flag=flag), verified=False)


def find_record_sets(paths: Sequence[str], *, flag: str, input_dict: str | None = None) -> tuple[RecordSet, ...]:
    """The whole record sets that the paths name, in the order of their prefixes.

    Args:
      paths: shard files, globs, or prefixes of sets; local or gs://. A prefix names exactly one set; a glob names all
        sets with a shard that it matches.
      flag: the option that named them, for the messages.
      input_dict: dict.txt. If it is given, files without a sidecar folder count as record sets made elsewhere; their
        names may be any. A file that is not named like a shard is then a set by itself.

    Raises:
      InputError: a path matches nothing or a file that is not a shard; a set has no manifest or no records; a shard is
        missing or has another size than the manifest says; only a part of a set is named; or the labels of a set are
        not those of `input_dict`.
    """
    labels = None
    if input_dict is not None:
        from trainer.data.foreign_sets import read_labels

        labels = read_labels(input_dict)
    selected: dict[str, set[str]] = {}
    for path in paths:
        for file in _files(path, flag):
            prefix = set_of_shard(file)
            if prefix is None and labels is not None:
                prefix = file
            if prefix is None:
                if file.endswith(_LIST_ENDINGS):
                    folder, name = posixpath.split(posixpath.splitext(file)[0])
                    command = program_command(
                        "embed",
                        "--input_path",
                        file,
                        "--input_dict",
                        posixpath.join(folder, DICT_NAME),
                        "--output_path",
                        posixpath.join(folder, "preproc", name),
                    )
                    raise InputError(
                        f"--{flag}: {file} is a list of photos, not a record set. Embed it first: {command}. Then name "
                        "the output path of that command here."
                    )
                raise InputError(
                    f"--{flag}: {file} is not named like a shard (train-00000-of-00004.tfrecord.gz). "
                    f"Narrow the path {path!r} so that it matches shards alone."
                )
            selected.setdefault(prefix, set()).add(posixpath.basename(file))
    found = []
    for prefix, names in sorted(selected.items()):
        # An unfinished set of ours already has the sidecar folder, so it does not count as made elsewhere.
        if labels is not None and not _has_sidecar(prefix, flag):
            found.append(_foreign_set(prefix, names, labels, flag))
            continue
        found.append(_whole_set(prefix, names, flag))
        if labels is not None and found[-1].manifest.labels != labels:
            difference = _label_difference(found[-1].manifest.labels, labels)
            raise InputError(
                f"--{flag}: the record set {prefix} was made with another dictionary than --input_dict {input_dict}: "
                f"{difference}. Leave --input_dict out, or give the one that it was made with."
            )
    return tuple(found)


def _label_difference(one: Sequence[str], other: Sequence[str]) -> str:
    for position, (first, second) in enumerate(zip(one, other, strict=False)):
        if first != second:
            return f"label {position} is {first!r} against {second!r}"
    return f"{counted(len(one), 'label')} against {len(other)}"


def require_agreement(sets: Sequence[RecordSet]) -> None:
    """Refuses sets that may not be used together.

    Raises:
      InputError: two sets come from different backbones, or their label dictionaries differ.
    """
    first = sets[0]
    for other in sets[1:]:
        if first.verified != other.verified:
            ours, theirs = (first, other) if first.verified else (other, first)
            raise InputError(
                f"The record set {theirs.prefix} was made elsewhere, and nothing shows that its backbone is that of "
                f"{ours.prefix}. Use sets of one kind."
            )
        if not first.manifest.backbone.agrees_with(other.manifest.backbone):
            difference = difference_of(first.manifest.backbone, other.manifest.backbone)
            raise InputError(
                f"The record sets {first.prefix} and {other.prefix} come from different backbones: "
                f"{difference}. Embed both with the same one."
            )
        if first.manifest.labels != other.manifest.labels:
            difference = _label_difference(first.manifest.labels, other.manifest.labels)
            raise InputError(
                f"The record sets {first.prefix} and {other.prefix} have different label dictionaries: "
                f"{difference}. Embed both with the same dict.txt."
            )


def require_disjoint(train: Sequence[RecordSet], held_out: Sequence[RecordSet], *, flag: str) -> None:
    """Refuses a set that is used both for training and for measuring.

    Raises:
      InputError: a set is in both lists.
    """
    shared = {record_set.prefix for record_set in train} & {record_set.prefix for record_set in held_out}
    if shared:
        raise InputError(
            f"The record set {min(shared)} is in --train_data_paths and in --{flag}: images that were "
            f"trained on say nothing about new images. Narrow the globs, or split with `{program_command('ingest')}`."
        )
