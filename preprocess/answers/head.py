"""The head of a classifier as arrays: it turns embeddings into scores with NumPy alone, so workers need no TensorFlow.

A head is a chain of layers: a dense layer, a ReLU layer, another dense layer; then a softmax, or a sigmoid of each.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from typing import Any, Literal, get_args

import numpy as np

from configs.errors import InputError

Scores = Literal["softmax", "sigmoid", "none"]
"""How logits become scores; "none" if the embeddings are scores already."""

_FORMAT = 1
_ROWS_AT_A_TIME = 1024


@dataclasses.dataclass(frozen=True, eq=False)
class Dense:
    """A dense layer.

    Attributes:
      kernel: float32 [inputs, outputs].
      bias: float32 [outputs].
      relu: whether negative outputs become 0.
    """

    kernel: np.ndarray
    bias: np.ndarray
    relu: bool = False

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Float32 [n, inputs] to float32 [n, outputs]."""
        outputs = inputs @ self.kernel
        outputs += self.bias
        return np.maximum(outputs, 0, out=outputs) if self.relu else outputs


@dataclasses.dataclass(frozen=True, eq=False)
class Head:
    """Embeddings to scores.

    Attributes:
      layers: dense layers, one after the other; none if the embeddings are logits, or scores.
      scores: how the last layer's output becomes scores.
      temperature: the logits are divided by it; positive.
      threshold: an answer is confident if its best score is at least this.
      mean: float32 [embedding_size], subtracted from embeddings; None for nothing.
      deviation: float32 [embedding_size], by which the difference is then divided; None for nothing.
    """

    layers: tuple[Dense, ...]
    scores: Scores
    temperature: float = 1.0
    threshold: float = 0.0
    mean: np.ndarray | None = None
    deviation: np.ndarray | None = None

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        """Computes scores.

        Args:
          embeddings: float32 [n, embedding_size].

        Returns:
          float32 [n, num_classes]. The same embeddings in the same order give the same bits: how many rows a matrix
          product has may change its last bits, so it always gets the same pieces.
        """
        pieces = [
            self._scores(embeddings[start : start + _ROWS_AT_A_TIME])
            for start in range(0, len(embeddings), _ROWS_AT_A_TIME)
        ]
        return np.concatenate(pieces) if pieces else np.zeros((0, 0), np.float32)

    def _scores(self, values: np.ndarray) -> np.ndarray:
        if self.mean is not None:
            values = values - self.mean
        if self.deviation is not None:
            values = values / self.deviation
        for layer in self.layers:
            values = layer(values)
        if self.scores == "none":
            return values
        logits = values / np.float32(self.temperature)
        if self.scores == "sigmoid":
            # Of a positive and of a negative number without an overflow: exp of a number that is at most 0.
            small = np.exp(-np.abs(logits))
            return np.where(logits >= 0, 1 / (1 + small), small / (1 + small))
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def to_bytes(self) -> bytes:
        """The head as a file of NumPy's arrays (.npz). The same head gives the same bytes."""
        arrays: dict[str, np.ndarray] = {}
        for number, layer in enumerate(self.layers):
            arrays[f"kernel_{number}"], arrays[f"bias_{number}"] = layer.kernel, layer.bias
        for name in ("mean", "deviation"):
            if (array := getattr(self, name)) is not None:
                arrays[name] = array
        about = {
            "format": _FORMAT,
            "relu": [layer.relu for layer in self.layers],
            "scores": self.scores,
            "temperature": self.temperature,
            "threshold": self.threshold,
        }
        arrays["about"] = np.array(json.dumps(about, sort_keys=True))
        stream = io.BytesIO()
        save: Any = np.savez  # Its arrays are named by keywords, among others of its own.
        save(stream, **arrays)  # The files in the archive have a constant time.
        return stream.getvalue()

    @property
    def sha256(self) -> str:
        """The digest of everything that decides the answers: 64 hex digits."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str) -> Head:
        """Reads what `to_bytes` gave. No code of the file is run.

        Raises:
          InputError: the bytes are no such file; `where` names it.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                about = json.loads(str(arrays["about"]))
                if about["format"] != _FORMAT:
                    raise ValueError(f"format {about['format']!r}")
                if about["scores"] not in get_args(Scores):
                    raise ValueError(f"scores {about['scores']!r}")
                return cls(
                    layers=tuple(
                        Dense(arrays[f"kernel_{number}"], arrays[f"bias_{number}"], bool(relu))
                        for number, relu in enumerate(about["relu"])
                    ),
                    scores=about["scores"],
                    temperature=float(about["temperature"]),
                    threshold=float(about["threshold"]),
                    **{name: arrays[name] for name in ("mean", "deviation") if name in arrays.files},
                )
        except Exception as error:  # zipfile, NumPy and json each raise their own.
            raise InputError(f"{where}: not the head of a classifier ({error!r}). Train again.") from error
