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

from configs.activity import doing
from configs.console import write_standard_error

# The messages that TensorFlow 2.21 prints regardless of TF_CPP_MIN_LOG_LEVEL: notes (I, W), that there is no GPU, and
# that Eigen transposes bytes.
_NOISE = re.compile(
    rb"[IW]\d{4} |INFO: Created TensorFlow Lite|WARNING: All log messages before absl"
    rb"|To enable the following instructions|E\d{4} .*(cuInit|oneDNN supports DT_UINT8)"
)


@contextlib.contextmanager
def without_tensorflow_noise() -> Iterator[None]:
    """Within this context, holds back standard error. At its end, prints the lines that are not TensorFlow's noise.

    It does nothing if TF_CPP_MIN_LOG_LEVEL is set, because then the user wants to see the messages.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
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


def import_tensorflow(*, start: bool = True) -> ModuleType:
    """Imports and starts TensorFlow without its notes. If TF_CPP_MIN_LOG_LEVEL is set, all notes are printed.

    The first call takes seconds, so programs call it only after they have checked their arguments.

    Args:
      start: whether to start TensorFlow. False if the caller must set something up before the start.
    """
    if "tensorflow" in sys.modules:
        import tensorflow as tf

        return tf
    with doing("loading TensorFlow"), without_tensorflow_noise():
        import tensorflow as tf

        if start:
            # Looks for devices now, because that prints messages too.
            tf.config.list_logical_devices()
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    return tf
