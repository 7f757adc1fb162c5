"""What the views of the training images brought: the same training with views and on view 0 alone, seed by seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from trainer.data.dataset import EmbeddingDataset
from trainer.options import TrainingOptions
from trainer.search.cross_validation import sample_in_memory
from trainer.search.paired_comparison import compare_trainings


def compare_views(
    train: EmbeddingDataset,
    evaluation: EmbeddingDataset,
    test: EmbeddingDataset | None,
    options: TrainingOptions,
    *,
    left_out: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Trains pairs of heads with the same seed and options: one draws views, the other gets view 0 alone.

    Both heads of a pair have the same initial weights, order of examples, dropout and standardization. If the options
    have no early stopping, both trainings end after 10 evaluations without a lower loss, as in a learning curve: six
    trainings then take about twice as long as one to the last step.

    Args:
      train: the training set, with several views. Of a streamed set, the sample that `sample_in_memory` takes is used.
      evaluation: chooses the checkpoint of each head, and is measured.
      test: only measured; None if there is none.
      options: the options of the run. There are as many pairs as `options.seeds`, and at least three.
      left_out: examples of "eval" and "test" that other sets have too: int64 [m]; they are not measured unless no other
        example is left.

    Returns:
      JSON. `seeds`; `train_examples`: how many were trained on; `left_out`: examples of each set that were not
      measured; `eval`, `test`: the mean accuracies in [0, 1] `with_views` and `with_view_0`, `gain`: their difference,
      `interval`: see `paired_interval`, and `brought`: "more", "less", or "nothing" if the interval contains zero.

    Raises:
      InputError: training diverged.
    """
    if not train.embeddings.in_memory:
        train = sample_in_memory(train, options)
    undistorted = dataclasses.replace(train, embeddings=train.embeddings.first_view())
    compared = compare_trainings(
        ((train, evaluation), (undistorted, evaluation)),
        {"eval": evaluation, **({"test": test} if test is not None else {})},
        options,
        left_out=left_out,
        what="measuring what the views brought",
    )
    return {**compared.to_json("with_views", "with_view_0"), "train_examples": len(train)}
