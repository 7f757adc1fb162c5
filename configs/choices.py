"""The values of the options that take one of a few names: spelled here and nowhere else."""

from __future__ import annotations

from typing import Literal

EngineName = Literal["auto", "tensorflow", "openvino"]
PrecisionName = Literal["auto", "float32", "bfloat16", "int8"]
Compression = Literal["none", "gzip"]
UnknownLabels = Literal["fail", "skip", "unlabeled"]

OptimizerName = Literal["adam", "adamw", "sgd", "rmsprop"]
ClassWeights = Literal["none", "balanced"]
RequestedLabelMode = Literal["auto", "single", "multi"]
Unlabeled = Literal["drop", "default_class"]
ExportFormat = Literal["savedmodel", "litert", "onnx"]
