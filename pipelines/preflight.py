"""Everything that can be found wrong with a job before it starts, and without starting it."""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
import os
import posixpath
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterable, Sequence

from configs.errors import InputError
from preprocess.labels import LabelDict, parse_label_dict
from preprocess.record_set import MANIFEST_NAME, REPORT_NAME, set_of_shard, sidecar_dir
from preprocess.rows import UnknownLabels, has_scheme, parse_rows, resolve_uri
from preprocess.storage import Storage, read_file

_GLOB_CHARACTERS = "*?["
_CONNECT_TIMEOUT_SEC = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScannedLists:
    """What a look through the lists found.

    Attributes:
      paths: the lists, in order.
      rows: of all of them.
      sample: locations of images, drawn by the hash of their URIs: a list always gives the same.
    """

    paths: tuple[str, ...]
    rows: int
    sample: tuple[str, ...]


class _Sample:
    """The images whose URIs have the smallest hashes: as good as drawn by lot, and the same each time."""

    def __init__(self, size: int):
        self._size = size
        self._largest_first: list[tuple[int, str]] = []

    def offer(self, location: str, uri: str) -> None:
        rank = -int.from_bytes(hashlib.sha256(uri.encode()).digest()[:8], "big")
        if len(self._largest_first) < self._size:
            heapq.heappush(self._largest_first, (rank, location))
        else:
            heapq.heappushpop(self._largest_first, (rank, location))

    def locations(self) -> tuple[str, ...]:
        return tuple(location for _, location in sorted(self._largest_first, reverse=True))


def _cannot_read(flag: str, path: str, error: OSError) -> InputError:
    cause = error.strerror or str(error)
    hint = " Check that the bucket exists and that your credentials may read it." if has_scheme(path) else ""
    return InputError(f"{flag}: cannot read {path!r} ({cause}).{hint}")


def check_reachable(paths: Iterable[str]) -> None:
    """Finds out at once whether the storage of `gs://` paths is within reach; its client tries for minutes.

    Raises:
      InputError: no connection to the storage service can be made.
    """
    path = next((path for path in paths if path.startswith("gs://")), None)
    if path is None or urllib.request.getproxies():
        return
    endpoint = os.environ.get("STORAGE_EMULATOR_HOST") or "https://storage.googleapis.com"
    url = urllib.parse.urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        socket.create_connection((url.hostname or "", port), timeout=_CONNECT_TIMEOUT_SEC).close()
    except OSError as error:
        raise InputError(
            f"{path}: cannot reach {endpoint} ({error.strerror or error}). Check the network, or use local files."
        ) from error


def read_label_dict(path: str, storage: Storage) -> LabelDict:
    """Reads dict.txt.

    Raises:
      InputError: it cannot be read, is empty, or names a label twice.
    """
    try:
        return parse_label_dict(read_file(storage, path), where=path)
    except FileNotFoundError as error:
        raise InputError(
            f"input_dict: no such file: {path!r}. It holds the labels, one a line; "
            "python -m pipelines.ingest makes it from a folder of photos."
        ) from error
    except OSError as error:
        raise _cannot_read("input_dict", path, error) from error


def scan_lists(
    patterns: Sequence[str],
    *,
    labels: LabelDict,
    unknown_labels: UnknownLabels,
    storage: Storage,
    sample_size: int = 0,
) -> ScannedLists:
    """Reads every list once: finds bad rows before hours are spent, and counts the rows for the books.

    Raises:
      InputError: a pattern names no file, a list cannot be read or is not a list, a label is unknown while
        `unknown_labels` is "fail", or there is no row at all.
    """
    paths: dict[str, None] = {}
    for pattern in patterns:
        try:
            matches = storage.match(pattern)
        except OSError as error:
            raise _cannot_read("input_path", pattern, error) from error
        if not matches:
            what = "it is a directory" if os.path.isdir(pattern) else "no such file"
            raise InputError(
                f"input_path: {what}: {pattern!r}. Pass a CSV list of rows image_uri,label, or a glob of such lists; "
                "python -m pipelines.ingest makes lists from a folder of photos."
            )
        paths.update(dict.fromkeys(matches))
    rows = images = 0
    sample = _Sample(sample_size)
    for path in paths:
        try:
            with storage.open(path) as stream:
                for row in parse_rows(stream, list_path=path, labels=labels, unknown_labels=unknown_labels):
                    rows += 1
                    if row.outcome is None:
                        images += 1
                        if sample_size:
                            sample.offer(resolve_uri(row.uri, path), row.uri)
        except OSError as error:
            raise _cannot_read("input_path", path, error) from error
    if not images:
        raise InputError(
            f"input_path: {', '.join(paths)}: {rows} rows, none of them with an image to embed. "
            "Each row is image_uri,label[,label...]."
        )
    return ScannedLists(paths=tuple(paths), rows=rows, sample=sample.locations())


def check_output(prefix: str, *, overwrite: bool, storage: Storage) -> None:
    """Makes sure that a set can be written at `prefix` without touching anything that is not its own.

    What an unfinished earlier run left of its parts is removed.

    Raises:
      InputError: the prefix names no file, cannot be written to, or a set or foreign shards lie there.
    """
    directory, name = posixpath.split(prefix)
    if not name or name in (".", ".."):
        raise InputError(
            f"output_path: must end in the name of the set, for example out/preproc/train. Received: {prefix!r}"
        )
    if any(character in prefix for character in _GLOB_CHARACTERS):
        raise InputError(f"output_path: must not hold any of {_GLOB_CHARACTERS}. Received: {prefix!r}")
    sidecars = sidecar_dir(prefix)
    try:
        if not has_scheme(prefix):
            os.makedirs(sidecars, exist_ok=True)
            if not os.access(directory or ".", os.W_OK) or not os.access(sidecars, os.W_OK):
                raise PermissionError(f"no permission to write in {directory or '.'}")
        found = storage.match(f"{sidecars}/**") if has_scheme(prefix) else storage.match(f"{sidecars}/*")
        names = {posixpath.basename(path) for path in found}
        has_shards = any(set_of_shard(path) == prefix for path in storage.match(f"{prefix}-*"))
    except OSError as error:
        raise InputError(f"output_path: cannot write to {prefix!r} ({error}).") from error
    if overwrite:
        return
    if MANIFEST_NAME in names:
        raise InputError(
            f"output_path: a finished set of records lies at {prefix!r}. Pass --overwrite to replace it once the "
            "new one is ready, or choose another output_path."
        )
    if has_shards and REPORT_NAME not in names:
        raise InputError(
            f"output_path: shards that this pipeline did not finish lie at {prefix!r}. Pass --overwrite to replace "
            "them, or choose another output_path."
        )
