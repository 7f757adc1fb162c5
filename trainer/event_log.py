"""Scalars for TensorBoard, written without the TensorBoard package."""

from __future__ import annotations

import posixpath

import tensorflow as tf

# tf.summary.scalar only exists where TensorBoard is installed; the file format is TensorFlow's own. This is
# what it would write: https://github.com/tensorflow/tensorboard/blob/2.20.0/tensorboard/plugins/scalar
_SCALAR = tf.compat.v1.SummaryMetadata(
    plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"),
    data_class=1,  # DATA_CLASS_SCALAR
)


class EventLog:
    """One run (a line in TensorBoard's charts): a folder with an event file.

    Event files of an earlier run are deleted: TensorBoard would draw both as one zigzag line.
    """

    def __init__(self, log_dir: str):
        for path in tf.io.gfile.glob(posixpath.join(log_dir, "events.out.tfevents.*")):
            tf.io.gfile.remove(path)
        self._writer = tf.summary.create_file_writer(log_dir)

    def write(self, step: int, **scalars: float) -> None:
        """Writes some named scalars of one step."""
        with self._writer.as_default():
            for tag, value in scalars.items():
                tf.summary.write(tag, tf.constant(value, tf.float32), step=step, metadata=_SCALAR)
        self._writer.flush()

    def close(self) -> None:
        """Closes the event file."""
        self._writer.close()
