"""The description that is stored with an exported model: its labels, its label mode and threshold, its network."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, get_args

from configs.errors import InputError
from configs.page import PageOptions
from configs.section import FieldError
from preprocess.images.definition import ImageDefinition
from preprocess.records.backbone_identity import BackboneIdentity
from trainer.data.label_mode import LabelMode

MODEL_INFO_FORMAT = 1
MODEL_INFO_PATH = "assets.extra/model.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """The facts about a model that a person or a program needs before using it.

    Attributes:
      labels: the dictionary; the position of a name is the id that the model predicts.
      backbone: the network in the model, including the version of the image definition.
      head_digest: "sha256:" and the hex digest of the head. `metrics.json` names the same digest.
      label_mode: "single" if the scores of a photo add up to 1, "multi" if each label has its own score.
      temperature: the model divides its logits by it; positive.
      threshold: in [0, 1]. If the best score is below it, the model is not confident. With 0, it is always confident.
      backbone_verified: False if the records do not say which network made them, so that nothing shows whether it is
        the network in the model.
      takes_images: False if the model holds only the head and takes embeddings.
      page: how the web page of a server words and colours the answers.

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
    page: PageOptions = dataclasses.field(default_factory=PageOptions)

    def __post_init__(self) -> None:
        if self.label_mode not in get_args(LabelMode):
            raise ValueError(f"label_mode: {self.label_mode!r}")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"temperature: {self.temperature}")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold: {self.threshold}")

    @property
    def image(self) -> ImageDefinition:
        """How the model, and a client that sends it pixels, decode images. Raises InputError if it is unknown here."""
        return ImageDefinition.named(self.backbone.image_definition, where="the model's image_definition")

    @property
    def warning(self) -> str | None:
        """A warning for users of the model, as a sentence; None if there is none."""
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
            **({"page": page} if (page := self.page.to_json()) else {}),
        }

    @classmethod
    def from_bytes(cls, raw: bytes, *, where: str) -> ModelInfo:
        """Reads the encoded result of `to_json`. Fields that earlier versions did not write get their defaults.

        Raises:
          InputError: the bytes are not such a file; `where` names it in the message.
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
                page=PageOptions.from_json(data.get("page", {})),
            )
        except FieldError as error:
            raise InputError(f"{where}: {error}") from error
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise InputError(f"{where}: not the description of a model that `hugs train` wrote.") from error
