"""What training minimizes: cross-entropy, with class weights, label smoothing and a penalty on big weights if asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from trainer.data.dataset import EmbeddingDataset
from trainer.data.label_mode import LabelMode
from trainer.options import TrainingOptions

# float32 logits [n, num_classes] and targets of the same shape to the loss of each of n examples.
ExampleLosses = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def balanced_weights(support: np.ndarray, num_examples: int, label_mode: LabelMode) -> np.ndarray:
    """How much a class weighs so that all weigh the same, however many examples they have (as in scikit-learn).

    Args:
      support: int64, shape [num_classes]: training examples of each class.
      num_examples: in the training set.
      label_mode: of the training set.

    Returns:
      float32, shape [2, num_classes]: the weight where the class is not the example's, and where it is. For
      "single" both are the same, n / (classes with examples x support): the examples of all classes weigh 1 on
      average. For "multi" each class is a question of its own, n / (2 x negatives) and n / (2 x positives). A class
      of which all or no examples are has nothing to balance and weighs 1.
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

    For "single", the cross-entropy of a softmax; the weight of an example is the mean of those of its labels, and
    smoothing s makes targets t into t (1 - s) + s / classes. For "multi", the mean over classes of the cross-entropies
    of sigmoids, each with its own weight, and t (1 - s) + s / 2. Smoothing comes after weighting.
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
    """`l2` times the sum of the squared weights, as `keras.regularizers.L2` has it."""
    return l2 * tf.add_n([2 * tf.nn.l2_loss(kernel) for kernel in kernels])
