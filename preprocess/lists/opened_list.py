"""Opens lists: decides the format of a list, or opens one whose format was decided, with the digest of what is read."""

from __future__ import annotations

from typing import BinaryIO, NamedTuple

from preprocess.lists.detect import detect_format, ready
from preprocess.lists.hashing_reader import HashingReader
from preprocess.lists.labels import LabelDict
from preprocess.lists.list_format import ListFormat
from preprocess.lists.tar_index import TAR_HEAD_BYTES, is_tar, label_source, write_index


class OpenedList(NamedTuple):
    """A list that is open for reading.

    Attributes:
      content: what `preprocess.lists.rows.parse_rows` reads.
      list_format: how.
      hashing: computes the digest of the list, or of the index of a tar archive. It is complete when the rows are read.
    """

    content: BinaryIO
    list_format: ListFormat
    hashing: HashingReader


def open_list(stream: BinaryIO, *, list_path: str, labels: LabelDict) -> OpenedList:
    """Decides the format of a list, and opens it.

    Args:
      stream: its bytes, from the start.
      list_path: its path, for messages.
      labels: the dictionary.

    Raises:
      InputError: the file is no list, or its format is not certain.
    """
    if stream.seekable():
        head = stream.read(TAR_HEAD_BYTES)
        stream.seek(0)
        if is_tar(head):
            source = label_source(stream, labels, list_path=list_path)
            found = ListFormat(kind="tar", labels=(source,) if source else ())
            return reopen_list(stream, found, list_path=list_path)
    hashing = HashingReader(stream)
    content = ready(hashing.buffered())
    return OpenedList(content, detect_format(content, list_path=list_path, labels=labels), hashing)


def reopen_list(stream: BinaryIO, list_format: ListFormat, *, list_path: str) -> OpenedList:
    """Opens a list whose format is known.

    Args:
      stream: its bytes, from the start.
      list_format: of `open_list`.
      list_path: its path.
    """
    if list_format.kind == "tar":
        source = str(list_format.labels[0]) if list_format.labels else None
        stream = write_index(stream, source, list_path=list_path)
    hashing = HashingReader(stream)
    return OpenedList(hashing.buffered(), list_format, hashing)
