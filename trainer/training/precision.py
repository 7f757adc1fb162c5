"""The precision of the matrix products of a training: those of its ReLU layer, which take most of the time of a step.

In bfloat16 the factors are rounded to 8 bits, and so are the products. Sums within a product are float32, and so are
the weights, their updates and all else. Where the processor has bfloat16, a step takes about a fifth less, and heads
are as accurate. `benchmarks.training` and `benchmarks.training_profile` measure both.
"""

from __future__ import annotations

from typing import Literal

from preprocess.machine.processor import processor_has_bfloat16
from trainer.options import TrainingOptions


def training_precision(options: TrainingOptions) -> Literal["float32", "bfloat16"]:
    """The precision of a training on this machine; a head without a ReLU layer has nothing in bfloat16.

    "auto" is float32 if the embeddings are not standardized: with a large common mean, the 8 bits of bfloat16 would say
    little of how they differ.
    """
    if not options.hidden_units:
        return "float32"
    if options.training_precision != "auto":
        return options.training_precision
    return "bfloat16" if options.standardize and processor_has_bfloat16() else "float32"
