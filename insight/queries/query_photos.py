"""Embeds the photos that somebody searches with, by the network that made the records of a set."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from configs.activity import doing
from configs.counts import counted
from configs.errors import InputError
from preprocess.backbones.backbone import BackboneSpec, check_weights
from preprocess.engines.base import Engine
from preprocess.engines.select import EngineSpec, load_engine
from preprocess.images.decode import ImageError
from preprocess.images.isolated_decoder import IsolatedDecoder
from preprocess.images.read import read_image_bytes
from preprocess.lists.outcomes import RowFailure
from preprocess.machine.machine_faults import MachineFault
from preprocess.records.backbone_identity import BackboneIdentity, difference_of
from trainer.storage.files import storage


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class QueryPhoto:
    """A photo to search with.

    Attributes:
      path: as the user gave it.
      pixels: uint8, shape [size, size, 3].
      digest: the first 16 bytes of the SHA-256 of its file, in hexadecimal.
    """

    path: str
    pixels: np.ndarray
    digest: str


def engine_of(identity: BackboneIdentity, *, weights: str | None, flag: str, whose: str, otherwise: str) -> Engine:
    """The engine of the network that made some records.

    Args:
      identity: of the network.
      weights: where its weights are; None for where the identity says.
      flag: the option that named the records, for the messages.
      whose: the records in words, for the messages.
      otherwise: a sentence that says what works without the network.

    Raises:
      InputError: the network is not known, its weights are not here, or they are others.
    """
    if not identity.is_known:
        raise InputError(
            f"--{flag}: nothing says which network made {whose}, so no photo can be compared with them. {otherwise}"
        )
    try:
        spec = BackboneSpec.of_identity(identity, weights=weights)
        check_weights(spec)
        engine = load_engine(spec, EngineSpec())
    except InputError as error:
        if weights is not None or identity.is_random:
            raise
        raise InputError(
            f"--{flag}: {whose} were made with {identity.describe()}, and this network cannot be loaded here. {error} "
            "If the weights lie elsewhere, pass --weights FILE."
        ) from error
    if not engine.identity.agrees_with(identity):
        raise InputError(
            f"--weights: {whose} were made with another network than the one that is here: "
            f"{difference_of(identity, engine.identity)}. Pass the weights file that made them as --weights FILE."
        )
    return engine


def read_photo(path: str, size: int) -> QueryPhoto:
    """Reads and decodes a photo as the pipeline does, in another process.

    Args:
      path: a local path or a URI.
      size: of the square that the network gets.

    Raises:
      InputError: it cannot be read.
    """
    try:
        data = read_image_bytes(path, read_remote=storage().read, read_part=storage().read_part)
        pixels = IsolatedDecoder(size=size)(data)
    except ImageError as error:
        raise InputError(f"{path}: {error.message.rstrip('.')} ({error.reason})") from error
    except RowFailure as failure:
        words = f"{failure.message.rstrip('.')} ({failure.reason})"
        raise InputError(words if path in words else f"{path}: {words}") from failure
    except MachineFault as fault:
        raise InputError(f"{path}: {fault}") from fault
    return QueryPhoto(path=path, pixels=pixels, digest=hashlib.sha256(data).hexdigest()[:32])


def embed(photos: Sequence[QueryPhoto], engine: Engine) -> np.ndarray:
    """The embeddings of some photos: float32, shape [n, embedding_size]."""
    found = []
    with doing(f"embedding {counted(len(photos), 'photo')}"):
        for start in range(0, len(photos), engine.batch_size):
            batch = np.stack([photo.pixels for photo in photos[start : start + engine.batch_size]])
            found.append(engine.start(batch).result())
    return np.concatenate(found)
