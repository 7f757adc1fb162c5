"""Finds the bottlenecks of a folder and reads each once: for its split, its digest and the size of its embedding."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import os
from collections.abc import Sequence

import numpy as np

from configs.errors import InputError, did_you_mean
from pipelines.bottlenecks.options import ImportOptions
from pipelines.splits.assign import name_share, split_of
from preprocess.backbones.architectures import ARCHITECTURES
from preprocess.images.read import read_image_bytes
from preprocess.lists.bottlenecks import (
    MAX_BOTTLENECK_BYTES,
    SKIP_OTHER_ARCHITECTURE,
    BottleneckFile,
    find_bottlenecks,
    parse_bottleneck,
    retrain_split,
)
from preprocess.lists.labels import parse_label_dict
from preprocess.lists.outcomes import RowFailure, RowSkip
from preprocess.machine.machine_faults import MachineFault
from preprocess.storage.router import UriStorage

_MAX_SHOWN = 3


@dataclasses.dataclass(frozen=True, slots=True)
class BottleneckItem:
    """A file with what the first reading found: its split, its row, and the digest of its content if it was read."""

    file: BottleneckFile
    order: float
    split: str
    sha256: bytes
    outcome: RowFailure | RowSkip | None
    size: int = 0


def find_files(folder: str) -> list[BottleneckFile]:
    """All files of a folder of bottlenecks.

    Raises:
      InputError: there is no such folder, it cannot be listed, or no file in it is a bottleneck by its name.
    """
    if not os.path.isdir(folder):
        raise InputError(
            f"--bottleneck_dir: there is no folder {folder!r}. Give the --bottleneck_dir of retrain.py, which holds a "
            "folder for each label."
        )
    try:
        files = list(find_bottlenecks(folder))
    except OSError as error:
        raise InputError(f"--bottleneck_dir: {folder!r} cannot be listed ({error}).") from error
    if all(file.skip is not None for file in files):
        first = f", for example {files[0].path!r}" if files else ""
        raise InputError(
            f"--bottleneck_dir: {folder!r} holds no file LABEL/IMAGE_ARCHITECTURE.txt, only {len(files)} others{first}."
        )
    return files


def choose_architecture(files: Sequence[BottleneckFile], options: ImportOptions) -> str:
    """The network whose bottlenecks are imported.

    Raises:
      InputError: there are none of the network that the user names, or there are several networks.
    """
    counts = collections.Counter(file.architecture for file in files if file.skip is None)
    listed = ", ".join(f"{name} ({count})" for name, count in counts.most_common(_MAX_SHOWN))
    if options.architecture is not None:
        if options.architecture not in counts:
            raise InputError(
                f"--architecture: there are no bottlenecks of {options.architecture!r} in {options.bottleneck_dir!r}."
                f"{did_you_mean(options.architecture, counts)} There are {listed}."
            )
        return options.architecture
    if len(counts) > 1:
        raise InputError(
            f"--architecture: {options.bottleneck_dir!r} has bottlenecks of {len(counts)} networks, and a set has one: "
            f"{listed}. Name the one to import."
        )
    return next(iter(counts))


def find_labels(files: Sequence[BottleneckFile], architecture: str, folder: str) -> tuple[str, ...]:
    """The labels of a network's bottlenecks, which are the names of their folders, in the order of a dictionary.

    Raises:
      InputError: the name of a folder cannot be a label.
    """
    names = sorted({file.label for file in files if file.skip is None and file.architecture == architecture})
    for name in names:
        try:
            fits = len(name.encode().splitlines()) == 1 and name == name.strip()
        except UnicodeEncodeError:
            fits = False
        if not fits:
            raise InputError(
                "--bottleneck_dir: a label is one line of UTF-8 without blanks at its ends. Rename the folder "
                f"{name!r}."
            )
    return parse_label_dict("\n".join(names).encode(), where=folder).names


def first_reading(file: BottleneckFile, architecture: str, options: ImportOptions) -> BottleneckItem:
    """Reads a file once: for its digest, which says which job it is, and for the number of its values."""
    skip = file.skip
    if skip is None and file.architecture != architecture:
        skip = RowSkip(SKIP_OTHER_ARCHITECTURE, f"{file.path}: is of {file.architecture}, not of {architecture}")
    if skip is not None:
        return BottleneckItem(file, 0.0, "train", b"", skip)
    order = name_share(os.fsencode(file.image).decode("utf-8", "backslashreplace"))
    percents = {"eval_percent": options.eval_percent, "test_percent": options.test_percent}
    if options.split_as_retrain is None:
        split = split_of(order, **percents)
    else:
        split = retrain_split(os.path.join(options.split_as_retrain, file.label, file.image), **percents)
    try:
        data, embedding = read_bottleneck(file, options)
    except RowFailure as failure:
        return BottleneckItem(file, order, split, b"", failure)
    return BottleneckItem(file, order, split, hashlib.sha256(data).digest(), None, len(embedding))


def read_bottleneck(file: BottleneckFile, options: ImportOptions) -> tuple[bytes, np.ndarray]:
    """The content of a file and its embedding. Raises RowFailure, or InputError for a fault of the machine."""
    data = read_bytes(os.path.join(options.bottleneck_dir, file.path), MAX_BOTTLENECK_BYTES)
    return data, parse_bottleneck(data, where=file.path)


def read_bytes(path: str, max_bytes: int) -> bytes:
    """The content of a file. Raises RowFailure, or InputError for a fault of the machine."""
    try:
        return read_image_bytes(path, read_remote=UriStorage().read, max_bytes=max_bytes)
    except MachineFault as fault:
        raise InputError(f"{path} cannot be read ({fault}). Give the same command again.") from fault


def embedding_size(items: Sequence[BottleneckItem], architecture: str) -> int:
    """The size of an embedding: that of the network if it is known, else the most frequent one."""
    sizes = collections.Counter(item.size for item in items if item.outcome is None)
    if not sizes:
        failure = next(item.outcome for item in items if isinstance(item.outcome, RowFailure))
        raise InputError(f"--bottleneck_dir: no bottleneck of {architecture} can be read: {failure.message}.")
    most = max(sizes, key=lambda size: (sizes[size], size))
    known = ARCHITECTURES.get(architecture)
    return known.embedding_size if known is not None and known.embedding_size in sizes else most
