"""What lies beside an exported model's graph: its labels and the network in it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from configs.errors import InputError
from preprocess.backbone_identity import BackboneIdentity

MODEL_INFO_FORMAT = 1
MODEL_INFO_PATH = "assets.extra/model.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What a person or program should know about a model before using it.

    Attributes:
      labels: the dictionary: the position of a name is the id that the model predicts.
      backbone: the network in the model; it holds the version of the image definition too.
      head_digest: "sha256:" and the hex digest of the head: what `metrics.json` calls the same model.
    """

    labels: tuple[str, ...]
    backbone: BackboneIdentity
    head_digest: str

    @property
    def warning(self) -> str | None:
        """A sentence for whoever uses the model, or None if there is nothing to warn of."""
        if self.backbone.is_random:
            return "this model's backbone has RANDOM weights: its answers only show that everything is connected"
        return None

    def to_json(self) -> dict[str, Any]:
        """The information as JSON."""
        return {
            "format": MODEL_INFO_FORMAT,
            **({"warning": self.warning} if self.warning else {}),
            "labels": list(self.labels),
            "backbone": self.backbone.to_json(),
            "image_definition": self.backbone.image_definition,
            "head_digest": self.head_digest,
        }

    @classmethod
    def from_bytes(cls, raw: bytes, *, where: str) -> ModelInfo:
        """Reads `to_json`, encoded.

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
            )
        except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise InputError(f"{where}: not the description of a model that trainer.task exported.") from error
