"""A decode worker whose "images" say what befalls the process that decodes them."""

import ctypes
import os
import signal

import numpy as np

from preprocess.decode_worker import serve
from preprocess.image import ImageError


def decode(data, *, max_pixels):
    pixels = np.full((299, 299, 3), len(data) % 251, np.uint8)
    word = data[:20]
    if word == b"crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if word == b"exit":
        os._exit(3)
    if word == b"hang":
        ctypes.PyDLL(None).pause()  # in C, holding the GIL
    if word == b"hog":
        np.ones(1 << 40, np.uint8)
    if word == b"bug":
        raise ZeroDivisionError("a bug")
    if word == b"surrogate":
        raise ImageError("corrupt", "\udcff")
    if word == b"noise":
        os.write(1, b"printed by a C library")
    if word == b"pid":
        pixels[0, 0] = 0
        pixels[0, :4, 0] = np.frombuffer(os.getpid().to_bytes(4, "little"), np.uint8)
    if word == b"max_pixels":
        pixels[0, 0, 0] = max_pixels
    return pixels


if __name__ == "__main__":
    serve(decode)
