"""The identity of the network that made the embeddings. It is written beside every set of records.

Embeddings of different networks are not comparable. So two sets may be used together only if their identities agree,
and the exported model must contain the same network.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from configs.errors import InputError

UNVERIFIED = "unverified"
"""Stands for every fact about the network that records do not say or that nothing shows."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneIdentity:
    """The network that made a set of embeddings.

    Attributes:
      architecture: name of the network, for example "inception_v3".
      weights: the source of the weights: "imagenet", "random", or the path of a weights file as the user gave it.
      seed: the seed of random weights; None for all others.
      weights_digest: "sha256:" and the hex digest of the weight arrays (not of the file that held them).
      embedding_size: number of floats in one embedding.
      image_definition: name and version of the definition by which image bytes become pixels.
      input_tensor: of a network from a file: the tensor that takes the pixels; None for all others.
      output_tensor: likewise, the tensor that holds the embeddings.
    """

    architecture: str
    weights: str
    seed: int | None
    weights_digest: str
    embedding_size: int
    image_definition: str
    input_tensor: str | None = None
    output_tensor: str | None = None

    @property
    def is_random(self) -> bool:
        """True if the weights were never trained: they are good for trying the workflow, but not for accuracy."""
        return self.weights == "random"

    @property
    def is_known(self) -> bool:
        """False if nothing shows which weights made the embeddings: the records were made elsewhere."""
        return self.weights_digest != UNVERIFIED

    @property
    def network(self) -> dict[str, Any]:
        """The fields that decide the embeddings. The path of the weights file is not one of them."""
        return {
            "architecture": self.architecture,
            "weights_digest": self.weights_digest,
            "embedding_size": self.embedding_size,
            "image_definition": self.image_definition,
            **self._tensors,
        }

    @property
    def _tensors(self) -> dict[str, str]:
        """The tensors that are named. Without them, the JSON is as earlier versions wrote it."""
        tensors = {"input_tensor": self.input_tensor, "output_tensor": self.output_tensor}
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}

    def agrees_with(self, other: BackboneIdentity) -> bool:
        """True if embeddings of both networks may be mixed."""
        return self.network == other.network

    def describe(self) -> str:
        """One phrase for people, for example "inception_v3 with RANDOM weights (seed 0)"."""
        if self.is_random:
            return f"{self.architecture} with RANDOM weights (seed {self.seed})"
        return f"{self.architecture} with weights {self.weights}"

    def to_json(self) -> dict[str, Any]:
        """The identity as JSON, with the field `random_weights`, which readers understand at once."""
        fields = dataclasses.asdict(self)
        del fields["input_tensor"], fields["output_tensor"]
        return {**fields, "random_weights": self.is_random, **self._tensors}

    @classmethod
    def from_json(cls, data: Any, *, where: str) -> BackboneIdentity:
        """Reads what `to_json` wrote.

        Raises:
          InputError: a field is missing or has the wrong type; `where` names the file in the message.
        """
        try:
            seed = data["seed"]
            return cls(
                architecture=str(data["architecture"]),
                weights=str(data["weights"]),
                seed=None if seed is None else int(seed),
                weights_digest=str(data["weights_digest"]),
                embedding_size=int(data["embedding_size"]),
                image_definition=str(data["image_definition"]),
                **{name: str(data[name]) for name in ("input_tensor", "output_tensor") if name in data},
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{where}: no valid backbone identity in it ({error!r}).") from error


def difference_of(one: BackboneIdentity, other: BackboneIdentity) -> str:
    """Describes the first difference between two backbones; empty if they agree."""
    if one.architecture != other.architecture:
        return f"the network is {one.architecture} against {other.architecture}"
    if one.image_definition != other.image_definition:
        return f"the image definition is {one.image_definition} against {other.image_definition}"
    if one.embedding_size != other.embedding_size:
        return f"the embedding size is {one.embedding_size} against {other.embedding_size}"
    if one.weights_digest != other.weights_digest:
        first, second = one.describe(), other.describe()
        if first == second:  # The descriptions agree but the weights differ, as when a weights file was replaced.
            first = f"{first} ({one.weights_digest[:19]}…)"
            second = f"{second} ({other.weights_digest[:19]}…)"
        return f"{first} against {second}"
    return ""
