"""The training loss: cross-entropy; on request with class weights, label smoothing and a penalty on large weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from trainer.data.dataset import EmbeddingDataset
from trainer.data.label_mode import LabelMode
from trainer.options import TrainingOptions

# A function from float32 logits [n, num_classes] and targets of the same shape to the loss of each of n examples.
ExampleLosses = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def balanced_weights(support: np.ndarray, num_examples: int, label_mode: LabelMode) -> np.ndarray:
    """Class weights that give all classes the same total weight, as in scikit-learn.

    Args:
      support: int64, shape [num_classes]: training examples of each class.
      num_examples: the number of training examples.
      label_mode: the label mode of the training set.

    Returns:
      float32, shape [2, num_classes]: the weight of a class for examples without it, and for examples with it. For
      "single" both are n / (classes with examples x support), so the mean weight of all examples is 1. For "multi" each
      class is balanced separately: n / (2 x negatives) and n / (2 x positives). The weight is 1 if all examples or no
      examples have the class.
    """
    if label_mode == "multi":
        sides = np.stack([num_examples - support, support]).astype(np.float64)
        balanced = num_examples / (2 * np.maximum(sides, 1))
        return np.where((sides > 0).all(axis=0), balanced, 1.0).astype(np.float32)
    present = support > 0
    weights = np.where(present, support.sum() / (present.sum() * np.maximum(support, 1)), 1.0)
    return np.stack([weights, weights]).astype(np.float32)


def example_losses(train: EmbeddingDataset, options: TrainingOptions) -> ExampleLosses:
    """The loss of examples in training.

    For "single", it is the cross-entropy of a softmax. The weight of an example is the mean of the weights of its
    labels, and smoothing s turns targets t into t (1 - s) + s / classes. For "multi", it is the mean of the
    cross-entropies of all sigmoids, each with its own weight, and smoothing gives t (1 - s) + s / 2. Smoothing is
    applied after weighting.
    """
    smoothing = options.label_smoothing
    label_mode = train.label_mode
    weights = None
    if options.class_weights == "balanced":
        weights = tf.constant(balanced_weights(train.support(), len(train), label_mode))

    def losses(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        if label_mode == "multi":
            goals = targets * (1 - smoothing) + smoothing / 2 if smoothing else targets
            each = tf.nn.sigmoid_cross_entropy_with_logits(labels=goals, logits=logits)
            if weights is not None:
                each *= weights[0] + targets * (weights[1] - weights[0])
            return tf.reduce_mean(each, axis=1)
        goals = targets * (1 - smoothing) + smoothing / len(train.labels) if smoothing else targets
        of_examples = tf.nn.softmax_cross_entropy_with_logits(labels=goals, logits=logits)
        return of_examples if weights is None else of_examples * tf.linalg.matvec(targets, weights[1])

    return losses


def penalty(kernels: Sequence[tf.Variable], l2: float) -> tf.Tensor:
    """`l2` times the sum of the squared weights, as in `keras.regularizers.L2`."""
    return l2 * tf.add_n([2 * tf.nn.l2_loss(kernel) for kernel in kernels])
