"""Reads a PyTorch file of weights (a state dict) without PyTorch, and without running code from the file.

Such a file holds pickles, and a pickle may call any function of any module. The unpickler here knows four names
(`_ALLOWED`), all of which stand for plain data, and refuses a file that names anything else.

There are two formats. The old one (until PyTorch 1.5) is a sequence of pickles (magic number, version, a note about the
machine, the dict, the keys of the storages), and then the numbers of each storage after their count. The new one is a
ZIP archive with the dict in `NAME/data.pkl` and the numbers of each storage in `NAME/data/KEY`.
https://github.com/pytorch/pytorch/blob/v2.9.0/torch/serialization.py
"""

from __future__ import annotations

import collections
import math
import pickle
import struct
import zipfile
from typing import IO, Any

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001


class UnsafePickleError(ValueError):
    """The file names a function or a class that is no plain data."""


class _Tensor:
    """A tensor whose numbers have not been read yet: where they lie in a storage."""

    def __init__(
        self, storage: tuple[str, np.dtype[Any]], offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
    ):
        self.key, self.dtype = storage
        self.offset, self.shape, self.strides = offset, shape, strides

    def read(self, storages: dict[str, bytes]) -> np.ndarray:
        """The numbers as an array of its own; raises ValueError if they would lie outside of the storage."""
        data = np.frombuffer(storages[self.key], self.dtype)
        sizes = (*self.shape, *self.strides, self.offset)
        if len(self.shape) != len(self.strides) or not all(isinstance(size, int) and size >= 0 for size in sizes):
            raise ValueError(f"a tensor of shape {self.shape} with strides {self.strides}")
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        if math.prod(self.shape) > 0 and last >= len(data):
            raise ValueError(f"a tensor of shape {self.shape} is larger than its storage of {len(data)} numbers")
        steps = [stride * data.itemsize for stride in self.strides]
        return np.ascontiguousarray(np.lib.stride_tricks.as_strided(data[self.offset :], self.shape, steps))


def _rebuild_tensor(
    storage: Any, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *gradient_and_hooks: Any
) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


# What a file may name, and what stands for it here. A storage is the type of its numbers.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch", "FloatStorage"): np.dtype("<f4"),
    ("torch", "LongStorage"): np.dtype("<i8"),
}


class _Unpickler(pickle.Unpickler):
    """Reads plain data and tensors; everything else raises UnsafePickleError."""

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name of the file."""
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise UnsafePickleError(f"it names {module}.{name}, which is no plain data and could run code") from None

    def persistent_load(self, pid: Any) -> tuple[str, np.dtype[Any]]:
        """A storage: its key and the type of its numbers."""
        kind, dtype, key, *_ = pid
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise ValueError(f"an unknown reference {kind!r}")
        return str(key), dtype


def is_torch_file(path: str) -> bool:
    """Whether a file looks like one that PyTorch wrote, by its content."""
    with open(path, "rb") as stream:
        head = stream.read(64)
    if head.startswith(b"PK") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    return head.startswith(b"\x80") and b"." in head


def read_state_dict(path: str) -> dict[str, np.ndarray]:
    """Reads the arrays of a state dict.

    Args:
      path: a file that `torch.save` wrote of a state dict with float32 and int64 tensors.

    Returns:
      The arrays by their names, float32 or int64, in the shapes and the order of axes that PyTorch uses.

    Raises:
      UnsafePickleError: the file could run code; nothing of it was run.
      ValueError, OSError, EOFError, pickle.UnpicklingError and others: it is damaged, or no such file.
    """
    if zipfile.is_zipfile(path):
        content, storages = _read_archive(path)
    else:
        with open(path, "rb") as stream:
            content, storages = _read_sequence(stream)
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}, not a state dict")
    return {str(name): tensor.read(storages) for name, tensor in content.items() if isinstance(tensor, _Tensor)}


def _read_sequence(stream: IO[bytes]) -> tuple[Any, dict[str, bytes]]:
    if _Unpickler(stream).load() != _MAGIC or _Unpickler(stream).load() != _VERSION:
        raise ValueError("it does not begin as PyTorch's files do")
    machine = _Unpickler(stream).load()
    if not (isinstance(machine, dict) and machine.get("little_endian")):
        raise ValueError("its numbers are not little-endian")
    unpickler = _Unpickler(stream)
    content = unpickler.load()
    itemsizes = {tensor.key: tensor.dtype.itemsize for tensor in _tensors_of(content)}
    storages = {}
    for key in _Unpickler(stream).load():
        (count,) = struct.unpack("<q", stream.read(8))
        # A storage that no tensor uses would have a length in bytes that nothing tells.
        num_bytes = count * itemsizes[str(key)]
        data = stream.read(num_bytes) if count >= 0 else b""
        if len(data) != num_bytes:
            raise EOFError("it ends too early")
        storages[str(key)] = data
    return content, storages


def _read_archive(path: str) -> tuple[Any, dict[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        folder = name.removesuffix("data.pkl")
        with archive.open(name) as stream:
            content = _Unpickler(stream).load()
        keys = {tensor.key for tensor in _tensors_of(content)}
        return content, {key: archive.read(f"{folder}data/{key}") for key in sorted(keys)}


def _tensors_of(content: Any) -> list[_Tensor]:
    return [value for value in content.values() if isinstance(value, _Tensor)] if isinstance(content, dict) else []
