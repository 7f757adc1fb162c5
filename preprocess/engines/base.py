"""The seam between the pipeline and whatever runs the network: TensorFlow, OpenVINO, or a stand-in."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from typing import Any, Protocol

import numpy as np

from preprocess.records.backbone_identity import BackboneIdentity


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """What runs a network, for the report and for people.

    Attributes:
      engine: "tensorflow" or "openvino".
      precision: "float32", "bfloat16", "float16" (GPUs only) or "int8".
      device: "cpu" or "gpu".
      fidelity: smallest cosine to float32 embeddings, measured on this machine after subtracting their mean: of probe
        images, or for int8 of images that it was calibrated on; None where nothing was compared (float32 itself).
      why: one line on how the engine and the precision came to be chosen.
      calibration: for int8, the digest of the images that it was calibrated on; else None.
      libraries: that decide the numbers, by name and version, as `engines.libraries` gives them; empty in what
        earlier versions wrote.
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
        """What tells an engine's numbers from another's for the same network, for example "openvino/bfloat16"."""
        return "/".join(filter(None, (self.engine, self.precision, self.calibration)))

    def same_numbers_as(self, other: EngineInfo) -> bool:
        """True if both give the same embeddings of the same network, on one machine."""
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


class Engine(Protocol):
    """Runs a network on batches, several of which may be under way at once.

    Attributes:
      identity: the network.
      info: what runs it.
      batch_size: images a batch that suit it best.
      max_pending: batches worth having under way at once.
    """

    identity: BackboneIdentity
    info: EngineInfo
    batch_size: int
    max_pending: int

    def start(self, pixels: np.ndarray) -> concurrent.futures.Future[np.ndarray]:
        """Starts on a batch; may block while as many as `max_pending` are under way.

        Args:
          pixels: uint8 [n, 299, 299, 3], as `decode_image` makes them; 1 <= n <= batch_size. Not changed until the
            future is done.

        Returns:
          A future of the embeddings, float32 [n, embedding_size].
        """
        ...
