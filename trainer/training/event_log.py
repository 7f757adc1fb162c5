"""The event files that TensorBoard shows: scalars, pictures and precision-recall curves of one run."""

from __future__ import annotations

import glob
import posixpath
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorboard.plugins.histogram import metadata as histogram_metadata
from tensorboard.plugins.pr_curve import metadata as pr_curve_metadata

from configs.errors import InputError
from trainer.evaluation.ranking import ThresholdCounts
from trainer.storage.files import cause_of, storage
from trainer.storage.working_folder import working_folder

_BUCKETS = 30


class EventLog:
    """One run (a line in TensorBoard's charts): a folder with an event file.

    Event files of an earlier run are deleted, because TensorBoard would draw both runs as one zigzag line. If the
    folder is in a bucket, the file is sent from time to time, and when it is closed.
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
                tf.summary.scalar(tag, value, step=step)
            self._writer.flush()
        self._folder.send_now_and_then()

    def write_image(self, step: int, tag: str, pixels: np.ndarray) -> None:
        """Writes a picture: uint8, shape [height, width, 3]."""
        with self._folder.writing(), self._writer.as_default():
            tf.summary.image(tag, pixels[np.newaxis], step=step)

    def write_graph(self, graph: Any) -> None:
        """Writes the graph of a network, a `tf.GraphDef`."""
        with self._folder.writing(), self._writer.as_default():
            tf.summary.graph(graph)
            self._writer.flush()

    def write_histograms(self, step: int, **arrays: np.ndarray) -> None:
        """Writes the distribution of some arrays of floats of one step, by their tags."""
        with self._folder.writing(), self._writer.as_default():
            for tag, array in arrays.items():
                counts, edges = np.histogram(array, bins=_BUCKETS)
                # `tf.summary.histogram` makes 30 numbers of each number first. This is the tensor that it writes.
                tensor = tf.constant(np.stack([edges[:-1], edges[1:], counts], axis=1), tf.float64)
                metadata = histogram_metadata.create_summary_metadata(display_name=None, description=None)
                tf.summary.write(tag, tensor, step=step, metadata=metadata)

    def write_pr_curves(self, step: int, tags: Sequence[str], counts: ThresholdCounts) -> None:
        """Writes a precision-recall curve for each class.

        Args:
          step: the step of the optimizer.
          tags: the names of the curves, in the order of classes. There may be fewer names than classes.
          counts: the counts of the predictions at each threshold.
        """
        rows = (counts.true_positives, counts.false_positives, counts.true_negatives, counts.false_negatives)
        # The plugin has no function for TensorFlow 2 that takes counts, so this writes the tensors that it describes.
        metadata = pr_curve_metadata.create_summary_metadata(
            display_name=None, description=None, num_thresholds=rows[0].shape[1]
        )
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
