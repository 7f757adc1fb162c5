"""What lies beside an exported model's graph: its labels, how it answers, and the network in it."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, get_args

from configs.errors import InputError
from preprocess.records.backbone_identity import BackboneIdentity
from trainer.data.label_mode import LabelMode

MODEL_INFO_FORMAT = 1
MODEL_INFO_PATH = "assets.extra/model.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What a person or program should know about a model before using it.

    Attributes:
      labels: the dictionary: the position of a name is the id that the model predicts.
      backbone: the network in the model; it holds the version of the image definition too.
      head_digest: "sha256:" and the hex digest of the head: what `metrics.json` calls the same model.
      label_mode: "single" where the scores of a photo add up to 1, "multi" where each label has its own.
      temperature: by which the model divides its logits; positive.
      threshold: best score below which the model says that it does not know, in [0, 1]; 0 for never.
      backbone_verified: False where the records did not say which network made them, so that the one in the
        model was taken on trust.
      takes_images: False where the model holds the head alone and takes embeddings.

    Raises:
      ValueError: a value is outside its range.
    """

    labels: tuple[str, ...]
    backbone: BackboneIdentity
    head_digest: str
    label_mode: LabelMode = "single"
    temperature: float = 1.0
    threshold: float = 0.0
    backbone_verified: bool = True
    takes_images: bool = True

    def __post_init__(self) -> None:
        if self.label_mode not in get_args(LabelMode):
            raise ValueError(f"label_mode: {self.label_mode!r}")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"temperature: {self.temperature}")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold: {self.threshold}")

    @property
    def warning(self) -> str | None:
        """A sentence for whoever uses the model, or None if there is nothing to warn of."""
        warnings = []
        if self.backbone.is_random:
            warnings.append(
                "this model's backbone has RANDOM weights: its answers only show that everything is connected"
            )
        if not self.backbone_verified:
            consequence = (
                f"if it was not {self.backbone.describe()}, the answers are worthless"
                if self.takes_images
                else "the model takes embeddings of that network alone"
            )
            warnings.append(
                "this model's backbone is UNVERIFIED: its records do not say which network made them, and "
                f"{consequence}"
            )
        return "; ".join(warnings) or None

    def to_json(self) -> dict[str, Any]:
        """The information as JSON."""
        return {
            "format": MODEL_INFO_FORMAT,
            **({"warning": self.warning} if self.warning else {}),
            "labels": list(self.labels),
            "label_mode": self.label_mode,
            "temperature": self.temperature,
            "threshold": self.threshold,
            "takes_images": self.takes_images,
            "backbone": self.backbone.to_json(),
            "backbone_verified": self.backbone_verified,
            "image_definition": self.backbone.image_definition,
            "head_digest": self.head_digest,
        }

    @classmethod
    def from_bytes(cls, raw: bytes, *, where: str) -> ModelInfo:
        """Reads `to_json`, encoded. What models of earlier versions did not write takes its default.

        Raises:
          InputError: not such a file; `where` names it in the message.
        """
        try:
            data = json.loads(raw)
            if data["format"] != MODEL_INFO_FORMAT:
                raise InputError(
                    f"{where}: format {data['format']!r}, but this version reads {MODEL_INFO_FORMAT}. Train again."
                )
            return cls(
                labels=tuple(str(label) for label in data["labels"]),
                backbone=BackboneIdentity.from_json(data["backbone"], where=where),
                head_digest=str(data["head_digest"]),
                label_mode=data.get("label_mode", "single"),
                temperature=float(data.get("temperature", 1.0)),
                threshold=float(data.get("threshold", 0.0)),
                backbone_verified=bool(data.get("backbone_verified", True)),
                takes_images=bool(data.get("takes_images", True)),
            )
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise InputError(f"{where}: not the description of a model that trainer.task exported.") from error
