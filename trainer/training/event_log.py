"""What TensorBoard shows, written without the TensorBoard package."""

from __future__ import annotations

import glob
import posixpath
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from configs.errors import InputError
from trainer.evaluation.ranking import ThresholdCounts
from trainer.storage.files import cause_of, storage
from trainer.storage.working_folder import working_folder


def _metadata(plugin: str, data_class: int, content: bytes = b"") -> tf.compat.v1.SummaryMetadata:
    return tf.compat.v1.SummaryMetadata(
        plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name=plugin, content=content), data_class=data_class
    )


def _varint(value: int) -> bytes:
    octets = bytearray()
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*octets, value])


# tf.summary's own functions only exist where TensorBoard is installed; the file format is TensorFlow's own. These are
# what they would write: https://github.com/tensorflow/tensorboard/blob/2.20.0/tensorboard/plugins
_CLASS_SCALAR, _CLASS_TENSOR, _CLASS_BLOB_SEQUENCE = 1, 2, 3
_SCALAR = _metadata("scalars", _CLASS_SCALAR)
_IMAGE = _metadata("images", _CLASS_BLOB_SEQUENCE)
_PR_NUM_THRESHOLDS_TAG = b"\x10"  # Field 2 of PrCurvePluginData, a varint.


class EventLog:
    """One run (a line in TensorBoard's charts): a folder with an event file.

    Event files of an earlier run are deleted: TensorBoard would draw both as one zigzag line. Into a bucket, the file
    is sent now and then, and when it is closed.
    """

    def __init__(self, log_dir: str):
        try:
            for path in storage().match(posixpath.join(glob.escape(log_dir), "events.out.tfevents.*")):
                storage().delete_file(path)
        except OSError as error:
            raise InputError(f"--log_dir: cannot write to {log_dir}: {cause_of(error)}") from error
        self._folder = working_folder(log_dir, flag="log_dir")
        with self._folder.writing():
            self._writer = tf.summary.create_file_writer(self._folder.local)

    def write(self, step: int, **scalars: float) -> None:
        """Writes some named scalars of one step."""
        with self._folder.writing(), self._writer.as_default():
            for tag, value in scalars.items():
                tf.summary.write(tag, tf.constant(value, tf.float32), step=step, metadata=_SCALAR)
            self._writer.flush()
        self._folder.send_now_and_then()

    def write_image(self, step: int, tag: str, png: bytes, *, width: int, height: int) -> None:
        """Writes a picture: an encoded PNG of that many pixels."""
        tensor = tf.constant([str(width).encode(), str(height).encode(), png], tf.string)
        with self._folder.writing(), self._writer.as_default():
            tf.summary.write(tag, tensor, step=step, metadata=_IMAGE)

    def write_pr_curves(self, step: int, tags: Sequence[str], counts: ThresholdCounts) -> None:
        """Writes a precision-recall curve for each class.

        Args:
          step: of the optimizer.
          tags: of the curves, in the order of classes; there may be fewer.
          counts: of the answers at each threshold.
        """
        rows = (counts.true_positives, counts.false_positives, counts.true_negatives, counts.false_negatives)
        metadata = _metadata("pr_curves", _CLASS_TENSOR, _PR_NUM_THRESHOLDS_TAG + _varint(rows[0].shape[1]))
        with self._folder.writing(), self._writer.as_default():
            for index, tag in enumerate(tags):
                tp, fp, tn, fn = (row[index].astype(np.float64) for row in rows)
                precision = tp / np.maximum(tp + fp, 1)
                recall = tp / np.maximum(tp + fn, 1)
                tensor = tf.constant(np.stack([tp, fp, tn, fn, precision, recall]), tf.float32)
                tf.summary.write(tag, tensor, step=step, metadata=metadata)

    def close(self) -> None:
        """Closes the event file."""
        with self._folder.writing():
            self._writer.close()
        self._folder.send()
