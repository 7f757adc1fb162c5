"""Reads the bytes of an image file, or gives the reason why they cannot be read.

A reason is a fault of the file: it does not exist, this user may not read it, or it is no regular file. A fault of the
machine or its storage is a `MachineFault`, not a reason.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Protocol

from configs.counts import counted
from configs.errors import InputError
from preprocess.lists.outcomes import RowFailure
from preprocess.lists.tar_members import TarMember, parse_member
from preprocess.machine.machine_faults import MachineFault, in_one_line, is_machine_fault
from preprocess.storage.base import LocalStorage, TooLarge
from preprocess.storage.uris import has_scheme, shown

# Twice the largest photograph that cameras write today.
DEFAULT_MAX_IMAGE_BYTES = 256 * 1024 * 1024

_REASONS_BY_ERRNO = {
    errno.ENOENT: "not_found",
    errno.ENOTDIR: "not_found",
    errno.EISDIR: "is_a_directory",
    errno.EACCES: "no_permission",
    errno.EPERM: "no_permission",
    errno.EINVAL: "bad_uri",
    errno.ENAMETOOLONG: "bad_uri",
    errno.ELOOP: "bad_uri",
    errno.EILSEQ: "bad_uri",
    errno.ENXIO: "not_a_regular_file",  # a socket
    errno.EOPNOTSUPP: "not_a_regular_file",
    errno.EFBIG: "too_large",
    errno.EOVERFLOW: "too_large",
}
# How often a file is read that another process writes to at the same time.
_MAX_READS = 3


class ReadPart(Protocol):
    """Reads a range of the file at a URI with a scheme; it may end before its end. Raises OSError."""

    def __call__(self, location: str, /, *, offset: int, num_bytes: int) -> bytes:
        """The bytes of the range that the file has."""
        ...


class ReadRemote(Protocol):
    """Reads the file at a URI with a scheme. Raises OSError; TooLarge if it has more than `max_bytes` bytes."""

    def __call__(self, location: str, /, *, max_bytes: int | None = None) -> bytes:
        """The content."""
        ...


def _failure(reason: str, message: str) -> RowFailure:
    # A name may contain bytes that are not UTF-8, as lone surrogates. The message must be UTF-8.
    return RowFailure("read", reason, message.encode("utf-8", "backslashreplace").decode())


def _failure_of(error: OSError | MemoryError, location: str) -> RowFailure | MachineFault:
    if isinstance(error, MemoryError) or is_machine_fault(error):
        message = in_one_line(error)
        return MachineFault(message if message.startswith(location) else f"{location}: {message}")
    if isinstance(error, FileNotFoundError):
        hint = " (a path of Windows? Here folders are separated by /)" if "\\" in location else ""
        return _failure("not_found", f"No such file: {location}{hint}")
    if isinstance(error, PermissionError):
        return _failure("no_permission", f"No permission to read {location}: {error}")
    reason = _REASONS_BY_ERRNO.get(error.errno or 0, "read_error")
    return _failure(reason, f"{location}: {error.strerror or error}")


def _read_local(path: str, max_bytes: int) -> bytes:
    for _ in range(_MAX_READS):
        data, expected_bytes = _read_once(path, max_bytes)
        if len(data) == expected_bytes:
            return data
        # Another process writes to the file. The next read may find it complete.
    if len(data) > expected_bytes:
        return data
    raise _failure("read_error", f"{path} ended after {len(data)} of its {counted(expected_bytes, 'byte')}.")


def _read_once(path: str, max_bytes: int) -> tuple[bytes, int]:
    """The content of a file, and its size when it was opened."""
    # Not blocking, because opening a FIFO without a writer would block the thread forever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0))
    with open(descriptor, "rb", buffering=0) as stream:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise _failure("is_a_directory", f"{path} is a directory, not an image.")
        if not stat.S_ISREG(status.st_mode):
            raise _failure("not_a_regular_file", f"{path} is a pipe or a device, not a file.")
        if status.st_size > max_bytes:
            raise _too_large(path, max_bytes)
        try:
            data = stream.readall()
        except OSError as error:
            if status.st_size:
                raise
            # The file has size 0, so it is not on a disk: it is a file of the kernel, such as /proc/self/mem.
            raise _failure("not_a_regular_file", f"{path} is no file on a disk: {in_one_line(error)}") from error
    # Another process may have written to the file meanwhile.
    if len(data) > max_bytes:
        raise _too_large(path, max_bytes)
    return data, status.st_size


def _too_large(location: str, max_bytes: int) -> RowFailure:
    return _failure("too_large", f"{location} has more than {max_bytes} bytes (max_image_bytes).")


def _read_member(location: str, member: TarMember, read_part: ReadPart | None, max_bytes: int) -> bytes:
    if member.num_bytes > max_bytes:
        raise _too_large(location, max_bytes)
    read = read_part if has_scheme(member.archive) else LocalStorage().read_part
    if read is None:
        raise _failure("bad_uri", f"{location}: parts of files cannot be read here.")
    data = read(member.archive, offset=member.offset, num_bytes=member.num_bytes)
    if len(data) < member.num_bytes:
        raise _failure("read_error", f"{location}: the archive ends before the end of this member.")
    return data


def read_image_bytes(
    location: str,
    *,
    read_remote: ReadRemote,
    read_part: ReadPart | None = None,
    max_bytes: int = DEFAULT_MAX_IMAGE_BYTES,
) -> bytes:
    """Reads one image file, or an image that is a member of a tar archive (see `preprocess.lists.tar_members`).

    Args:
      location: a local path, or a URI with a scheme.
      read_remote: reads URIs with a scheme.
      read_part: reads ranges of them; None if there is no need to.
      max_bytes: files with more bytes fail, so that they do not fill the memory.

    Raises:
      RowFailure: in stage "read", with reason not_found, is_a_directory, not_a_regular_file, no_permission,
        too_large, bad_uri or read_error; for web addresses also those of `WebImages.read`.
      MachineFault: this machine, a disk or a service failed; that says nothing about the image.
      InputError: URIs of this scheme cannot be opened here.
    """
    try:
        if (member := parse_member(location)) is not None and (has_scheme(location) or not os.path.lexists(location)):
            return _read_member(location, member, read_part, max_bytes)
        if not has_scheme(location):
            return _read_local(location, max_bytes)
        return read_remote(location, max_bytes=max_bytes)
    except TooLarge as error:
        raise _too_large(shown(location), max_bytes) from error
    except (OSError, MemoryError) as error:
        raise _failure_of(error, shown(location)) from error
    except InputError:
        raise
    except ValueError as error:  # The path contains a NUL byte, or no filesystem has this scheme.
        raise _failure("bad_uri", f"{location!r}: {error}") from error
