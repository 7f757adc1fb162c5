"""What answers: a model that the trainer exported, or the class layer of a network itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from configs.counts import counted
from configs.errors import InputError
from pipelines.answers.flags import AnswerOptions
from preprocess.answers.head import Head
from preprocess.records.backbone_identity import BackboneIdentity, difference_of
from trainer.data.record_sets import RecordSet
from trainer.export.model_info import ModelInfo

_TOP_K = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answerer:
    """A head with the network whose embeddings it takes.

    Attributes:
      head: embeddings to scores.
      names: of the classes.
      several_labels: whether an image may have several labels.
      backbone: the flags of `pipelines.embed` that name the network, by the names of their options; None if it is
        not known and photos cannot be embedded.
      identity: the network that the head was trained on; None for the class layer of a network that was not loaded.
      verified: False if nothing shows that this network made the records of the training.
      described: what answers, for people.
      warning: about the model; None if there is none.
      about: the same for `answers.json`.
    """

    head: Head
    names: tuple[str, ...]
    several_labels: bool
    backbone: dict[str, Any] | None
    identity: BackboneIdentity
    verified: bool
    described: str
    warning: str | None
    about: dict[str, Any]

    def require_fitting(self, sets: Sequence[RecordSet]) -> None:
        """Refuses records of another network.

        Raises:
          InputError: a set was made by another network than the head was trained on.
        """
        for record_set in sets:
            theirs = record_set.manifest.backbone
            if theirs.embedding_size != self.identity.embedding_size:
                raise InputError(
                    f"data_paths: {record_set.prefix} has embeddings of {theirs.embedding_size} numbers, and "
                    f"{self.described} takes {self.identity.embedding_size}. Embed the photos with its network."
                )
            # If one of the two is unverified, nothing else can be checked.
            if self.verified and record_set.verified and not self.identity.agrees_with(theirs):
                raise InputError(
                    f"data_paths: {record_set.prefix} was made by another network than {self.described} was trained "
                    f"on: {difference_of(self.identity, theirs)}. Embed the photos with its network."
                )

    def top_k(self, asked: int | None) -> int:
        """How many of the best classes are written. Raises InputError if there are not so many."""
        if asked is not None and asked > len(self.names):
            raise InputError(
                f"top_k: {self.described} has {counted(len(self.names), 'class', 'classes')}. Received: {asked}."
            )
        return min(_TOP_K, len(self.names)) if asked is None else asked


def answerer_of(options: AnswerOptions) -> Answerer:
    """Loads what answers.

    Raises:
      InputError: there is no such model or network, or it cannot be used for this.
    """
    return _of_model(options, options.model_dir) if options.model_dir is not None else _of_network(options)


def _of_model(options: AnswerOptions, model_dir: str) -> Answerer:
    from trainer.export.classifier import read_model_info
    from trainer.export.head_arrays import read_head

    info = read_model_info(model_dir)
    if options.input_path and not info.takes_images:
        raise InputError(
            f"model_dir: the model in {model_dir} takes embeddings and no photos, because its records do not say which "
            "network made them. Pass --data_paths in place of --input_path."
        )
    return Answerer(
        head=read_head(model_dir, info),
        names=info.labels,
        several_labels=info.label_mode == "multi",
        backbone=_flags_of(info, options.weights) if options.input_path else None,
        identity=info.backbone,
        verified=info.backbone_verified,
        described=f"the model {model_dir}",
        warning=info.warning,
        about={"model_dir": model_dir, "head_digest": info.head_digest, "threshold": info.threshold},
    )


def _flags_of(info: ModelInfo, weights: str | None) -> dict[str, Any]:
    """The options of `pipelines.embed` that name the network of a model. Raises InputError if it is unknown here."""
    from preprocess.backbones.backbone import BackboneSpec

    spec = BackboneSpec.of_identity(info.backbone, weights=weights)
    if not spec.is_file:
        return {"backbone": spec.architecture, "weights": spec.weights, "seed": spec.seed}
    return {
        "backbone": spec.weights,
        "input_tensor": spec.input_tensor,
        "output_tensor": spec.output_tensor,
        "image_size": spec.image_size,
        "scaling": spec.scaling,
    }


def _of_network(options: AnswerOptions) -> Answerer:
    from preprocess.backbones.backbone import BACKBONE_OPTIONS, BackboneSpec
    from preprocess.backbones.class_layer import class_head
    from preprocess.backbones.class_names import class_names, read_label_file

    given = {name: value for name in BACKBONE_OPTIONS if (value := getattr(options, name)) is not None}
    label_files = [(path, read_label_file(path)) for path in options.labels]
    found = class_head(BackboneSpec.asked_for(**given))
    spec = found.spec
    return Answerer(
        head=found.head,
        names=tuple(class_names(found.num_classes, label_files)),
        several_labels=False,
        backbone={**given, "output_tensor": spec.output_tensor} if spec.is_file else given,
        identity=found.identity,
        verified=True,
        described=f"the classes of {spec.name}",
        warning=None,
        about={"classes_of": spec.name},
    )
