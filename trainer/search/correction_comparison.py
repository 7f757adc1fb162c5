"""What corrections brought: the same training with the labels before and after, seed by seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from trainer.data.dataset import EmbeddingDataset
from trainer.options import TrainingOptions
from trainer.search.cross_validation import sample_in_memory
from trainer.search.paired_comparison import compare_trainings


def compare_corrections(
    before: Mapping[str, EmbeddingDataset],
    after: Mapping[str, EmbeddingDataset],
    options: TrainingOptions,
    *,
    left_out: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Trains pairs of heads with the same seed and options, and measures both on the corrected held-out sets.

    The first head of a pair is what a user gets with the corrections, the second what they would get without: that one
    is trained on the labels as they were, and its checkpoint is chosen by them. Both are measured on the same examples,
    with the labels that are right now. If the held-out sets were corrected too, the accuracy of the second head on
    their old labels is another number, which says nothing of the corrections.

    Args:
      before: the sets "train" and "eval" as the records have them.
      after: the corrected "train" and "eval", and "test" if there is one.
      options: of the run. There are as many pairs as `options.seeds`, and at least three.
      left_out: as in `compare_trainings`.

    Returns:
      JSON: `seeds`; `left_out`; for "eval" and "test" the mean accuracies in [0, 1] `after` and `before`, `gain`: their
      difference, its `interval` and what the corrections `brought`, as in `compare_views`; and `train_examples`.

    Raises:
      InputError: training diverged.
    """
    trains = [
        dataset if dataset.embeddings.in_memory else sample_in_memory(dataset, options)
        for dataset in (after["train"], before["train"])
    ]
    compared = compare_trainings(
        ((trains[0], after["eval"]), (trains[1], before["eval"])),
        {name: after[name] for name in ("eval", "test") if name in after},
        options,
        left_out=left_out,
        what="measuring what the corrections brought",
    )
    return {**compared.to_json("after", "before"), "train_examples": len(trains[0])}
