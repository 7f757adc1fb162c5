"""The checks of a job's input before the job starts."""

from __future__ import annotations

import dataclasses
import os
import socket
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO

from configs.activity import doing
from configs.arguments import require_utf8
from configs.choices import UnknownLabels
from configs.counts import counted
from configs.errors import InputError
from configs.network_faults import NO_NETWORK
from configs.printed_commands import program_command
from preprocess.images.hash_sample import HashSample
from preprocess.jobs.set_files import read_block_results
from preprocess.lists.detect import notes
from preprocess.lists.labels import MAX_LABEL_DICT_BYTES, LabelDict, parse_label_dict
from preprocess.lists.list_format import ListFormat
from preprocess.lists.opened_list import open_list
from preprocess.lists.rows import parse_rows
from preprocess.records.record_set import MANIFEST_NAME, sidecar_path
from preprocess.storage.base import Storage, TooLarge, has_file
from preprocess.storage.globs import has_wildcard
from preprocess.storage.in_order import map_in_order
from preprocess.storage.router import require_client
from preprocess.storage.s3_objects import client_of_process
from preprocess.storage.uris import has_scheme, host_of, is_in_bucket, is_web, resolve_uri

_CONNECT_TIMEOUT_SEC = 10
# How many of a list's first images are looked at to recognize paths of Windows.
_LOOKED_AT = 20
# Lists in a bucket are downloaded ahead, twice as many as this at most.
_LISTS_AT_ONCE = 8
_SHORT_LIST_BYTES = 16 * 1024 * 1024
# A list may name a million hosts; so many are counted.
MAX_WEB_HOSTS = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScannedLists:
    """The results of scanning the lists.

    Attributes:
      paths: the lists, in order.
      sha256: the digest of each list.
      formats: how each list is read.
      rows: the rows of all lists together.
      images: rows that name an image to embed; the others are blank lines, headers, or rows that an option skips.
      sample: locations of images, drawn by the hash of their URIs, so the same list always gives the same sample. An
        image that the lists name several times is in it once.
      sample_times: how often the lists name each image of the sample.
      web_images: how many images lie at web addresses.
      web_hosts: an address at each of their hosts, in the order of the lists; of the first MAX_WEB_HOSTS hosts.
      bucket_images: among the first images of each list, one in `gs://` and one in `s3://`, if there are any.
    """

    paths: tuple[str, ...]
    sha256: tuple[str, ...]
    rows: int
    images: int
    sample: tuple[str, ...]
    sample_times: tuple[int, ...] = ()
    formats: tuple[ListFormat, ...] = ()
    web_images: int = 0
    web_hosts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    bucket_images: tuple[str, ...] = ()


def _cannot_read(flag: str, path: str, error: OSError) -> InputError:
    cause = error.strerror or str(error)
    hint = " Check that the bucket exists and that your credentials may read it." if has_scheme(path) else ""
    return InputError(f"{flag}: cannot read {path!r} ({cause}).{hint}")


def check_reachable(paths: Iterable[str]) -> None:
    """Checks quickly that the storage of `gs://` and `s3://` paths can be reached. Our storage would try for minutes.

    Raises:
      InputError: no connection to the storage service can be made.
    """
    if urllib.request.getproxies():
        return
    # One path of each service.
    for path in {path.partition("://")[0]: path for path in paths if is_in_bucket(path)}.values():
        _check_reachable(path)


def _check_reachable(path: str) -> None:
    if path.startswith("s3://"):
        require_client("s3")
        endpoint = client_of_process().meta.endpoint_url
    else:
        endpoint = os.environ.get("STORAGE_EMULATOR_HOST") or "https://storage.googleapis.com"
    url = urllib.parse.urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        socket.create_connection((url.hostname or "", port), timeout=_CONNECT_TIMEOUT_SEC).close()
    except OSError as error:
        raise InputError(
            f"{path}: cannot reach {endpoint} ({error.strerror or error}). {_advice(error)}, or use local files."
        ) from error


def _advice(error: OSError) -> str:
    # A machine that refuses was found, so there is a network.
    if isinstance(error, ConnectionRefusedError):
        return "Check this address and the network"
    return f"{NO_NETWORK}, set https_proxy if there is a proxy"


def check_remote(paths: Mapping[str, Iterable[str]]) -> None:
    """Makes sure that workers on other machines can open the files that a job reads.

    Args:
      paths: the paths by flag.

    Raises:
      InputError: one of them is on this machine.
    """
    for flag, of_flag in paths.items():
        for path in of_flag:
            if not has_scheme(path):
                raise InputError(
                    f"{flag}: {path!r} is on this machine, where Dataflow's workers cannot read it. Copy it to a "
                    "bucket and pass gs://BUCKET/..., or --runner DirectRunner to run here."
                )


def read_label_dict(path: str, storage: Storage) -> LabelDict:
    """Reads dict.txt.

    Raises:
      InputError: it cannot be read, is empty, or names a label twice.
    """
    try:
        return parse_label_dict(storage.read(path, max_bytes=MAX_LABEL_DICT_BYTES), where=path)
    except TooLarge as error:
        raise InputError(
            f"input_dict: {path} has more than {MAX_LABEL_DICT_BYTES} bytes. Is this the file of labels, one a line?"
        ) from error
    except FileNotFoundError as error:
        raise InputError(
            f"input_dict: no such file: {path!r}. It holds the labels, one a line; "
            f"`{program_command('ingest')}` makes it from a folder of photos."
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
    remote_images_only: bool = False,
    unsaid: Sequence[str] = (),
) -> ScannedLists:
    """Reads every list once: finds bad rows before hours are spent, and counts the rows for the row accounting.

    It decides how each list is read, and prints that for lists of another format than `image_uri,label[,label...]`,
    but not for those of `unsaid`, which no person wrote.

    Raises:
      InputError: a pattern matches no file, a list cannot be read or is not a list, a label is unknown and
        `unknown_labels` is "fail", an image is on this machine with `remote_images_only`, or there is no row.
    """
    with doing("looking for the lists"):
        lists = _lists_of(patterns, storage)
    paths = list(lists)
    rows = images = web_images = 0
    web_hosts: dict[str, str] = {}
    bucket_images: dict[str, str] = {}
    digests, formats = [], []
    sample = HashSample(sample_size)
    # One activity for all lists: thousands of short ones would never be shown.
    what = paths[0] if len(paths) == 1 else counted(len(paths), "list")
    with doing(f"checking {what}", unit="row") as checking:
        for path, opened in zip(paths, _opened(lists, storage), strict=True):
            if isinstance(opened, OSError):
                raise _cannot_read("input_path", path, opened) from opened
            try:
                with opened as stream:
                    content, found, hashing = open_list(stream, list_path=path, labels=labels)
                    for line in () if path in unsaid else notes(found):
                        print(f"note: {path}: {line}", file=sys.stderr)
                    formats.append(found)
                    first_images: list[tuple[str, str]] = []
                    for row in parse_rows(
                        content, list_path=path, labels=labels, unknown_labels=unknown_labels, list_format=found
                    ):
                        rows += 1
                        checking.done += 1
                        if row.outcome is None:
                            images += 1
                            location = resolve_uri(row.uri, path)
                            if len(first_images) < _LOOKED_AT:
                                first_images.append((row.uri, location))
                            if remote_images_only and not has_scheme(location):
                                raise InputError(
                                    f"{path}:{row.line}: {row.uri!r} is on this machine, where Dataflow's workers "
                                    "cannot read it. Images must be gs://BUCKET/..., https://..., or relative to the "
                                    "list."
                                )
                            if is_web(location):
                                web_images += 1
                                if len(web_hosts) < MAX_WEB_HOSTS:
                                    web_hosts.setdefault(host_of(location) or "", location)
                            if sample_size:
                                sample.offer(location, row.uri)
                    digests.append(hashing.sha256)
                    _refuse_windows_paths(first_images, path)
                    for _, location in first_images:
                        if is_in_bucket(location):
                            bucket_images.setdefault(location.partition("://")[0], location)
            except OSError as error:
                raise _cannot_read("input_path", path, error) from error
    if not images:
        raise InputError(
            f"input_path: {', '.join(paths)}: {counted(rows, 'row')}, none of them with an image to embed. "
            "Each row is image_uri,label[,label...]."
        )
    drawn = sample.locations()
    return ScannedLists(
        paths=tuple(paths),
        sha256=tuple(digests),
        rows=rows,
        images=images,
        sample=tuple(drawn),
        sample_times=tuple(drawn.values()),
        formats=tuple(formats),
        web_images=web_images,
        web_hosts=web_hosts,
        bucket_images=tuple(bucket_images.values()),
    )


def _opened(lists: Mapping[str, int | None], storage: Storage) -> Iterator[BinaryIO | OSError]:
    """Opens lists in their order; the fault of a list that cannot be opened.

    Opening an object downloads it, which takes 100 ms or more. So many short lists in a bucket are opened ahead.

    Args:
      lists: the lists with their sizes in bytes, where these are known.
      storage: opens them.
    """

    def opened(path: str) -> BinaryIO | OSError:
        try:
            return storage.open(path)
        except OSError as error:
            return error

    ahead = all(is_in_bucket(path) and size is not None and size <= _SHORT_LIST_BYTES for path, size in lists.items())
    return map_in_order(opened, lists, at_once=_LISTS_AT_ONCE) if ahead else map(opened, lists)


def _refuse_windows_paths(images: Sequence[tuple[str, str]], list_path: str) -> None:
    """Refuses a list whose images (URI, location) are all named with backslashes and are not there.

    Raises:
      InputError: it is such a list.
    """
    if not images or any("\\" not in uri or has_scheme(uri) or os.path.lexists(location) for uri, location in images):
        return
    uri = images[0][0]
    what = "is a path of Windows, with backslashes. Here folders are separated by slashes, and there is no such file"
    if uri[1:2] == ":":
        what = "is a path on a drive of Windows, which is not there on this machine. Copy the photos here"
    raise InputError(f"{list_path}: {uri} {what}. Write for example {_with_slashes(uri)} in the list.")


def _with_slashes(uri: str) -> str:
    return (uri[2:].lstrip("\\") if uri[1:2] == ":" else uri).replace("\\", "/")


def _lists_of(patterns: Sequence[str], storage: Storage) -> dict[str, int | None]:
    """The files that match the globs, each once, with its size in bytes where the listing of a bucket says it."""
    paths: dict[str, int | None] = {}
    for pattern in patterns:
        try:
            matches: dict[str, int | None] = {}
            if is_in_bucket(pattern) and has_wildcard(pattern):
                matches.update(storage.sizes(pattern))
            else:
                matches.update(dict.fromkeys(storage.match(pattern)))
        except OSError as error:
            raise _cannot_read("input_path", pattern, error) from error
        if not matches:
            what = "it is a directory" if os.path.isdir(pattern) else "no such file"
            raise InputError(
                f"input_path: {what}: {pattern!r}. Pass a CSV list of rows image_uri,label, or a glob of such lists; "
                f"`{program_command('ingest')}` makes lists from a folder of photos."
            )
        for path in matches:
            # The current folder is part of an absolute path, and so of the definition of the job.
            require_utf8(path if has_scheme(path) else os.path.abspath(path), "input_path")
        paths.update(matches)
    return paths


def check_against(prefixes: Iterable[str], *, storage: Storage) -> None:
    """Makes sure that the sets to compare with are finished, and that the digests of their records can be read.

    Raises:
      InputError: a set is not finished, or its digests cannot be read.
    """
    for prefix in prefixes:
        try:
            if not has_file(storage, sidecar_path(prefix, MANIFEST_NAME)):
                raise InputError(
                    f"against: there is no finished set of records at {prefix!r}. Give the prefix that was the "
                    "output_path of a finished job, for example out/preproc/train, or of each of several backbones, "
                    "out/preproc/{backbone}/train."
                )
            for _ in read_block_results(prefix, storage):
                pass
        except OSError as error:
            raise _cannot_read("against", prefix, error) from error
