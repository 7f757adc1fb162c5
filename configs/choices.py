"""The values of options that have a fixed set of names. No other module spells them."""

from __future__ import annotations

from typing import Literal

EngineName = Literal["auto", "tensorflow", "openvino", "jax"]
PrecisionName = Literal["auto", "float32", "bfloat16", "int8"]
Compression = Literal["none", "gzip"]
UnknownLabels = Literal["fail", "skip", "unlabeled"]

TrainingPrecisionName = Literal["auto", "float32", "bfloat16"]
OptimizerName = Literal["adam", "adamw", "sgd", "rmsprop"]
ClassWeights = Literal["none", "balanced"]
RequestedLabelMode = Literal["auto", "single", "multi"]
Unlabeled = Literal["drop", "default_class"]
ExportFormat = Literal["savedmodel", "litert", "onnx"]
# Colours of the answers on the page of `hugs serve`, whose values are in serving/page/style.css.
PageColour = Literal["green", "red", "blue", "orange", "purple", "teal", "brown", "pink"]
# Those that say neither good nor bad, for labels whose colour nobody has named.
NEUTRAL_COLOURS: tuple[PageColour, ...] = ("blue", "purple", "teal", "brown", "pink")

AnswerFormat = Literal["csv", "jsonl", "parquet"]

# How `hugs map` places photos.
ReducerName = Literal["auto", "tsne", "pca"]
