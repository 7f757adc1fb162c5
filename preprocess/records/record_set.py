"""A set of records on disk: the names of its shards, its sidecar folder, and the manifest that completes it.

A prefix such as `out/preproc/train` names a set. Its shards are `train-00000-of-00004.tfrecord[.gz]`. All other files
lie in the sidecar folder `out/preproc/_train/`, which a glob `train*` does not match. The manifest is written last, so
a set without a manifest is not finished.
"""

from __future__ import annotations

import collections
import dataclasses
import glob
import json
import posixpath
import re
from typing import Any

from configs.choices import Compression
from configs.counts import counted
from configs.errors import InputError
from preprocess.records.backbone_identity import BackboneIdentity
from preprocess.records.views import Views

MANIFEST_FORMAT = 1
REPORT_FORMAT = 2
MANIFEST_NAME = "manifest.json"
REPORT_NAME = "report.json"
FAILED_NAME = "failed.jsonl"
SKIPPED_NAME = "skipped.jsonl"
# The definition of an unfinished job, in its folder of parts in the sidecar folder.
DEFINITION_NAME = "job.json"
PARTS_PREFIX = "parts-"

_SUFFIXES: dict[str, str] = {"none": ".tfrecord", "gzip": ".tfrecord.gz"}
_SHARD_NAME = re.compile(r"^(?P<prefix>.+)-\d{5,}-of-\d{5,}\.tfrecord(\.gz)?\Z", re.DOTALL)


def shard_name(prefix_name: str, index: int, count: int, compression: Compression) -> str:
    """File name of shard `index` of `count`, for example `train-00000-of-00004.tfrecord.gz`."""
    return f"{prefix_name}-{index:05d}-of-{count:05d}{_SUFFIXES[compression]}"


def set_of_shard(path: str) -> str | None:
    """The prefix of the set to which the shard at `path` belongs; None if the name is not that of a shard."""
    directory, name = posixpath.split(path)
    match = _SHARD_NAME.match(name)
    return posixpath.join(directory, match["prefix"]) if match else None


def sidecar_dir(prefix: str) -> str:
    """The sidecar folder of a set: `out/preproc/train` gives `out/preproc/_train`."""
    directory, name = posixpath.split(prefix)
    return posixpath.join(directory, f"_{name}")


def sidecar_path(prefix: str, name: str) -> str:
    """The path of one sidecar file of a set."""
    return posixpath.join(sidecar_dir(prefix), name)


def definitions_glob(prefix: str) -> str:
    """The glob of the definitions of all unfinished jobs of a set."""
    return f"{glob.escape(sidecar_dir(prefix))}/{PARTS_PREFIX}*/{DEFINITION_NAME}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """One finished shard: file name within the set's folder, number of records, bytes, SHA-256 in hex."""

    name: str
    records: int
    num_bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of a finished set. The set is complete if its manifest exists.

    Attributes:
      backbone: the network that made the embeddings.
      labels: the dictionary, in order: the position of a name is the id in the records.
      compression: of the shards.
      records: records in all shards together.
      shards: the shards in the order of their names.
      views: the views of each image; None for one, which is the image as it is.
    """

    backbone: BackboneIdentity
    labels: tuple[str, ...]
    compression: Compression
    records: int
    shards: tuple[Shard, ...]
    views: Views | None = None

    def to_bytes(self) -> bytes:
        """The manifest as UTF-8 JSON."""
        data = {
            "format": MANIFEST_FORMAT,
            "backbone": self.backbone.to_json(),
            "labels": list(self.labels),
            "compression": self.compression,
            "records": self.records,
            "views": None if self.views is None else self.views.to_json(),
            "shards": [dataclasses.asdict(shard) for shard in self.shards],
        }
        return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()

    def _require_sound(self) -> None:
        """Raises TypeError or ValueError for a field of the wrong type or value, which is still valid JSON."""
        if self.compression not in _SUFFIXES:
            raise ValueError(f"compression {self.compression!r} is none of {', '.join(_SUFFIXES)}")
        if type(self.records) is not int:
            raise TypeError(f"a count is wanted, not {self.records!r}")
        for shard in self.shards:
            for text in (shard.name, shard.sha256):
                if not isinstance(text, str):
                    raise TypeError(f"a text is wanted, not {text!r}")
            if not shard.name or "/" in shard.name or "\0" in shard.name or shard.name in (".", ".."):
                raise ValueError(f"the name of a file beside the manifest's folder is wanted, not {shard.name!r}")
            for count in (shard.records, shard.num_bytes):
                if type(count) is not int:
                    raise TypeError(f"a count is wanted, not {count!r}")
                if count < 0:
                    raise ValueError(f"a count is not negative, as {count} is")
        repeated = [name for name, times in collections.Counter(s.name for s in self.shards).items() if times > 1]
        if repeated:
            raise ValueError(f"the shard {repeated[0]} is listed more than once")
        self.to_bytes()  # Raises ValueError for half a surrogate pair, which JSON allows and UTF-8 does not.

    @classmethod
    def from_bytes(cls, raw: bytes, *, where: str) -> Manifest:
        """Reads what `to_bytes` wrote.

        Raises:
          InputError: it is not such a manifest, or its numbers disagree; `where` names the file in the message.
        """
        try:
            data: Any = json.loads(raw)
            version = data["format"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"{where}: not the manifest of a record set ({error}). Run the pipeline that wrote it again."
            ) from error
        if version != MANIFEST_FORMAT:
            raise InputError(
                f"{where}: manifest format {version!r}, but this version reads {MANIFEST_FORMAT}. "
                "Run the pipeline again with this version."
            )
        backbone = BackboneIdentity.from_json(data.get("backbone"), where=where)
        try:
            manifest = cls(
                backbone=backbone,
                labels=tuple(str(label) for label in data["labels"]),
                compression=data["compression"],
                records=data["records"],
                shards=tuple(Shard(**shard) for shard in data["shards"]),
                views=Views.from_json(data.get("views")),
            )
            manifest._require_sound()
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{where}: a field of the manifest is missing or wrong ({error!r}).") from error
        total = sum(shard.records for shard in manifest.shards)
        if total != manifest.records:
            raise InputError(
                f"{where}: the shards add up to {counted(total, 'record')}, the manifest says {manifest.records}."
            )
        return manifest
