"""A decode worker whose "images" say what befalls the process that decodes them."""

import ctypes
import os
import signal
import socket
import threading
import time

import numpy as np

from preprocess.images.decode import ImageError
from preprocess.images.decode_worker import serve

# The pipe of the replies: the first descriptor after the standard streams.
_REPLIES = 3
_LIBC = ctypes.CDLL(None, use_errno=True)


def _call(function, *arguments):
    """A function of the C library that the interpreter does not offer."""
    if function(*arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _fork():
    if not os.fork():
        os._exit(0)


def _read_memory(pid):
    place = ctypes.create_string_buffer(8)
    vector = (ctypes.c_void_p * 2)(ctypes.addressof(place), 8)
    _call(_LIBC.process_vm_readv, pid, vector, ctypes.c_ulong(1), vector, ctypes.c_ulong(1), ctypes.c_ulong(0))


def _open_a_file_in_a_thread():
    faults = []

    def attempt():
        try:
            open("/etc/hostname").close()
        except OSError as error:
            faults.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    if faults:
        raise faults[0]


# What a decoder that an image has taken over might try; with the process id of the parent.
ATTEMPTS = {
    "open a file": lambda parent: open("/etc/hostname").close(),
    "look at a file": lambda parent: os.stat("/etc/hostname"),
    "list a folder": lambda parent: os.listdir("/"),
    "write a file": lambda parent: open("/tmp/taken_over", "w").close(),
    "delete a file": lambda parent: os.unlink("/tmp/there_is_none_of_this_name"),
    "open the parent's memory": lambda parent: open(f"/proc/{parent}/mem", "rb").close(),
    "read the parent's memory": _read_memory,
    "trace the parent": lambda parent: _call(_LIBC.ptrace, 16, parent, None, None),
    "signal the parent": lambda parent: os.kill(parent, 0),
    "limit the parent": lambda parent: _call(_LIBC.prlimit, parent, 7, None, None),
    "open a socket": lambda parent: socket.socket().close(),
    "open a pipe": lambda parent: os.pipe(),
    "fork": lambda parent: _fork(),
    "open a file in a thread": lambda parent: _open_a_file_in_a_thread(),
    "start a thread": lambda parent: threading.Thread(target=int).start(),
    "execute": lambda parent: os.execv("/bin/true", ["true"]),
}


def decode(data, squares, *, max_pixels):
    (square,) = squares
    size = square.size
    pixels = np.full((size, size, 3), len(data) % 251, np.uint8)
    word = data[:20]
    if word == b"crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if word == b"exit":
        os._exit(3)
    if word == b"hang":
        ctypes.PyDLL(None).sleep(1000)  # in C, holding the GIL
    if word == b"stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if word == b"killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == b"slow":
        time.sleep(0.4)
    if word == b"import":
        raise ImageError("corrupt", "no module") from ModuleNotFoundError("no module")
    if word.startswith(b"attempt"):
        _, name, parent = data.decode().split(":")
        try:
            ATTEMPTS[name](int(parent))
        except (OSError, RuntimeError) as error:
            raise ImageError("corrupt", f"refused: {error}") from None
    if word == b"hog":
        np.ones(1 << 40, np.uint8)
    if word == b"bug":
        raise ZeroDivisionError("a bug")
    if word == b"no threads":
        raise RuntimeError("can't start new thread")
    if word == b"long":
        raise ImageError("corrupt", "é" * (1 << 20))
    if word == b"surrogate":
        raise ImageError("corrupt", "\udcff")
    if word == b"noise":
        os.write(1, b"printed by a C library")
    if data.startswith(b"forge:"):
        _, after, reply = data.split(b":", 2)
        os.write(_REPLIES, reply)
        if after == b"hang":
            time.sleep(1000)
    if word == b"pid":
        pixels[0, 0] = 0
        pixels[0, :4, 0] = np.frombuffer(os.getpid().to_bytes(4, "little"), np.uint8)
    if word == b"max_pixels":
        pixels[0, 0, 0] = max_pixels
    return [pixels] * (1 + len(square.distortions))


if __name__ == "__main__":
    serve(decode)
