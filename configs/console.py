"""Standard output and standard error of our programs. Faults of printing change neither the work nor the exit code.

Examples are a reader that has ended (`| head -1`), a closed stream (`>&-`), a full disk, and an encoding that lacks a
letter. None of these may stop a job, and none may turn a failure into success. If the output of a program is its
product, the program calls `require_printed` at its end.

What is printed may come from file names, labels and lists of others. Control characters in it, which could rewrite the
lines above or set the title of a terminal, are printed as `\\u001b`; so are letters that the stream's encoding lacks.
JSON reads that as the same characters.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from configs.errors import InputError

# The error handler for `str.encode`: it writes `\\uXXXX` for characters that an encoding lacks. JSON reads it as them.
ESCAPES = "hugs-escapes"


def _escape(text: str) -> str:
    """Replaces each UTF-16 unit by `\\uXXXX`, as JSON does."""
    units = text.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _escape_unencodable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return _escape(error.object[error.start : error.end]), error.end


codecs.register_error(ESCAPES, _escape_unencodable)

# C0 and C1 without tab and line feed, delete, and characters that change the direction of text, which disguise names.
_CONTROLS = [*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0), 0x061C, 0x200E, 0x200F]
_CONTROLS += [*range(0x2028, 0x202F), *range(0x2066, 0x206A)]
_TABLE = {code: _escape(chr(code)) for code in _CONTROLS}


def printable(text: str) -> str:
    """The text with escaped control characters. Tabs and line feeds stay."""
    return text if text.isascii() and text.isprintable() else text.translate(_TABLE)


_before_printing: list[Callable[[int], None]] = []


@contextlib.contextmanager
def on_printing(prepare: Callable[[int], None]) -> Iterator[None]:
    """Within this context, `prepare` is called before a settled stream is written to, with the stream's descriptor."""
    _before_printing.append(prepare)
    try:
        yield
    finally:
        _before_printing.remove(prepare)


class _Descriptor(io.RawIOBase):
    """Writes bytes to a file descriptor. If that fails, it remembers the fault and raises no exception.

    Attributes:
      fault: the first fault of writing; None if there was none.
    """

    def __init__(self, descriptor: int, fault: OSError | None):
        self._descriptor = descriptor
        self.fault = fault

    @property
    def name(self) -> int:
        """The number of the descriptor, as for files that are opened by number."""
        return self._descriptor

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return self.fault is None and os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        size = rest.nbytes
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # Another program on the same terminal has made it non-blocking.
                select.select([], [self._descriptor], [])
            except OSError as error:
                self._give_up(error)
                break
        return size

    def _give_up(self, error: OSError) -> None:
        self.fault = self.fault or error
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            # The reader will not come back. With the null device, child processes and libraries see no fault either.
            _open_null(self._descriptor)


class _Stream(io.TextIOWrapper):
    """Text on a descriptor, with control characters escaped.

    Attributes:
      unescaped: the same stream without escaping, for example for a progress bar.
    """

    def __init__(self, raw: _Descriptor, *, encoding: str, line_buffering: bool):
        # The raw stream writes everything at once. A buffer is not allowed: a signal handler may write at any time.
        options: dict[str, Any] = {"encoding": encoding, "errors": ESCAPES, "newline": "\n"}
        super().__init__(raw, line_buffering=line_buffering, **options)
        self.raw = raw
        self.unescaped = io.TextIOWrapper(raw, write_through=True, **options)

    def write(self, text: str) -> int:
        for prepare in _before_printing:
            prepare(self.raw.name)
        super().write(printable(text))
        return len(text)


def _open_null(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)


def _settle(stream: TextIO | None, descriptor: int, fault: OSError | None, *, by_line: bool) -> TextIO:
    if isinstance(stream, _Stream):
        return stream
    if stream is not None:
        try:
            if stream.fileno() != descriptor:
                return stream  # Other code has replaced the stream.
        except (OSError, ValueError, AttributeError):
            return stream
        with contextlib.suppress(OSError):
            stream.flush()
    encoding = getattr(stream, "encoding", None) or "utf-8"
    line_buffering = by_line or bool(getattr(stream, "line_buffering", False))
    return _Stream(_Descriptor(descriptor, fault), encoding=encoding, line_buffering=line_buffering)


def require_utf8_names() -> None:
    """Restarts this program in UTF-8 mode if Python would not read file names as UTF-8.

    The names in lists are UTF-8. With settings such as `PYTHONUTF8=0 LC_ALL=C`, Python could not open an image with an
    accent in its name. The streams keep their encoding. The function returns if no restart is needed, or if a restart
    does not help.
    """
    command = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
    if sys.getfilesystemencoding() == "utf-8" or "utf8" in sys._xoptions or not sys.executable:
        return
    encoding = getattr(sys.stdout or sys.stderr, "encoding", None)
    if encoding and "PYTHONIOENCODING" not in os.environ:
        os.environ["PYTHONIOENCODING"] = encoding
    os.environ["PYTHONUTF8"] = "1"  # For the programs that this one starts.
    os.execv(sys.executable, command)


def settle_streams() -> None:
    """Makes standard output and standard error never raise. It is called once, before any file is opened.

    If descriptor 0, 1 or 2 is closed, it is opened on the null device. Otherwise the next opened file would get its
    number, and printed text would be written into that file.
    """
    faults: dict[int, OSError | None] = {}
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
            faults[descriptor] = None
        except OSError as error:
            faults[descriptor] = error
            _open_null(descriptor)
    sys.stdout = _settle(sys.stdout, 1, faults[1], by_line=False)
    sys.stderr = _settle(sys.stderr, 2, faults[2], by_line=True)


def bar_stream() -> TextIO:
    """Standard error for a progress bar, which needs control characters."""
    return sys.stderr.unescaped if isinstance(sys.stderr, _Stream) else sys.stderr


@contextlib.contextmanager
def second_standard_error() -> Iterator[TextIO]:
    """A stream on the present standard error, which stays there if other code redirects descriptor 2. It never raises.

    If there is no standard error, the stream goes nowhere.
    """
    try:
        descriptor = os.dup(2)
    except OSError:
        descriptor = os.open(os.devnull, os.O_WRONLY)
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    try:
        yield io.TextIOWrapper(
            _Descriptor(descriptor, None), encoding=encoding, errors=ESCAPES, newline="\n", write_through=True
        )
    finally:
        os.close(descriptor)


def write_standard_error(data: bytes) -> None:
    """Writes bytes to standard error without Python's streams. It raises nothing, even if it cannot write them."""
    try:
        while data:
            data = data[os.write(2, data) :]
    except OSError:
        return


def require_printed() -> None:
    """Makes sure that everything was printed, for a program whose output is its product.

    If the reader has ended early (`| head`), this is no fault: it got what it wanted.

    Raises:
      InputError: standard output is closed, or its disk is full.
    """
    sys.stdout.flush()
    fault = sys.stdout.raw.fault if isinstance(sys.stdout, _Stream) else None
    if fault is not None and not isinstance(fault, BrokenPipeError):
        raise InputError(f"standard output: what was to be printed could not be written ({fault.strerror}).")
