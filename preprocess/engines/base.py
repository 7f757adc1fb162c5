"""The interface `Engine` between the pipeline and the library that runs the network: TensorFlow, OpenVINO or JAX."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from typing import Any, Protocol

import numpy as np

from preprocess.records.backbone_identity import BackboneIdentity


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """The description of an engine, for the report and for people.

    Attributes:
      engine: "tensorflow", "openvino" or "jax".
      precision: "float32", "bfloat16", "float16" (GPUs only) or "int8".
      device: "cpu" or "gpu".
      fidelity: smallest cosine to float32 embeddings, measured on this machine after subtracting their mean, on probe
        images, or for int8 on calibration images; None if nothing was compared, as for float32 itself.
      why: one line about why this engine and precision were chosen.
      calibration: for int8, the digest of the calibration images; otherwise None.
      libraries: the names and versions of the libraries that decide the numbers, as in `engines.libraries`; empty in
        files of earlier versions.
    """

    engine: str
    precision: str
    device: str
    fidelity: float | None
    why: str
    calibration: str | None = None
    libraries: tuple[str, ...] = ()

    @property
    def arithmetic(self) -> str:
        """The arithmetic of the engine, for example "openvino/bfloat16": it decides the numbers of a given network."""
        return "/".join(filter(None, (self.engine, self.precision, self.calibration)))

    def same_numbers_as(self, other: EngineInfo) -> bool:
        """True if both engines give the same embeddings for the same network on one machine."""
        return (self.arithmetic, self.libraries) == (other.arithmetic, other.libraries)

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON."""
        return {**dataclasses.asdict(self), "libraries": list(self.libraries)}

    @classmethod
    def from_json(cls, data: Any) -> EngineInfo:
        """Reads what `to_json` wrote. Raises TypeError if it is something else."""
        info = cls(**{**data, "libraries": tuple(data.get("libraries", ())) if isinstance(data, dict) else ()})
        if not all(isinstance(text, str) for text in (info.engine, info.precision, *info.libraries)):
            raise TypeError(f"engine, precision and libraries must be text. Received: {data!r}")
        return info


class EmbeddingSource(Protocol):
    """What made embeddings, as a record set tells it: a network, and the engine that ran it."""

    @property
    def identity(self) -> BackboneIdentity:
        """The network."""

    @property
    def info(self) -> EngineInfo:
        """The description of the engine."""


class Engine(Protocol):
    """Runs a network on batches; several batches may run at once.

    Attributes:
      identity: the network.
      info: the description of the engine.
      batch_size: the best number of images in a batch.
      max_pending: the best number of batches that run at once.
    """

    identity: BackboneIdentity
    info: EngineInfo
    batch_size: int
    max_pending: int

    def start(self, pixels: np.ndarray, brightness: np.ndarray | None = None) -> concurrent.futures.Future[np.ndarray]:
        """Starts to embed a batch. It may block while `max_pending` batches run.

        With a brightness, another program runs than without, so that nothing changes for batches without one. It is
        made when it is first used.

        Args:
          pixels: uint8 [n, size, size, 3], as `decode_image` makes them; 1 <= n <= batch_size. The caller must
            not change them until the future is done.
          brightness: float32 [n], a factor on the pixels of each image, before the network's scaling. What it gives is
            neither rounded nor clipped. None to leave them as they are.

        Returns:
          A future of the embeddings, float32 [n, embedding_size].
        """
        ...
