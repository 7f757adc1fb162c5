"""Imports TensorFlow without its start-up messages, which do not help users and hide our own messages."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from types import ModuleType
from typing import Any, cast

from configs.activity import doing
from configs.console import write_standard_error
from configs.large_imports import without_garbage_collection
from preprocess.machine.cores import cores_of_quota

# The messages that TensorFlow 2.21 prints regardless of TF_CPP_MIN_LOG_LEVEL: notes (I, W), that there is no GPU, and
# that Eigen transposes bytes.
_NOISE = re.compile(
    rb"[IW]\d{4} |INFO: Created TensorFlow Lite|WARNING: All log messages before absl"
    rb"|To enable the following instructions|E\d{4} .*(cuInit|oneDNN supports DT_UINT8)"
)


@contextlib.contextmanager
def without_tensorflow_noise() -> Iterator[None]:
    """Within this context, holds back standard error. At its end, prints the lines that are not TensorFlow's noise.

    It does nothing if TF_CPP_MIN_LOG_LEVEL is 0, because then the user wants to see the messages. (JAX sets it to 1.)
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
        yield
        return
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            held.seek(0)
            for line in held:
                if not _NOISE.match(line):
                    write_standard_error(line)


# What TensorFlow and Keras import wherever it is installed, and nothing here uses: converters of JAX's functions (a
# second), and Keras' models for scikit-learn, which bring SciPy (a fifth of the processor time of the import).
_NOT_NEEDED = ("jax", "sklearn")


@contextlib.contextmanager
def _without_what_is_not_needed() -> Iterator[None]:
    """Within this context, the packages of `_NOT_NEEDED` cannot be imported, except those that are imported already."""
    hidden = [name for name in _NOT_NEEDED if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = cast(ModuleType, None)
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def obey_quota(tf: Any) -> None:
    """Gives TensorFlow, which has not started yet, no more threads than the control groups of this process allow."""
    cores = cores_of_quota()
    if cores is not None:
        tf.config.threading.set_intra_op_parallelism_threads(cores)
        tf.config.threading.set_inter_op_parallelism_threads(cores)


def import_tensorflow(*, start: bool = True) -> ModuleType:
    """Imports and starts TensorFlow without its notes. If TF_CPP_MIN_LOG_LEVEL is 0, all notes are printed.

    The first call takes seconds, so programs call it only after they have checked their arguments. In a container that
    may use fewer cores than the machine has, TensorFlow gets as many threads as these cores.

    Args:
      start: whether to start TensorFlow. False if the caller must set something up before the start.
    """
    if "tensorflow" in sys.modules:
        import tensorflow as tf

        return tf
    with doing("loading TensorFlow"), without_tensorflow_noise():
        with _without_what_is_not_needed(), without_garbage_collection():
            import tensorflow as tf

        obey_quota(tf)
        if start:
            # Looks for devices now, because that prints messages too.
            tf.config.list_logical_devices()
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    return tf
