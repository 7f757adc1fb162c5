"""Embeddings of photographs by a network with real weights, in float32, for benchmarks of what is made of them."""

from __future__ import annotations

import numpy as np

from benchmarks.photos import ROOT, PhotoSet
from preprocess.backbones.backbone import BackboneSpec, complete_spec
from preprocess.beam.image_source import ImageReader
from preprocess.engines.base import Engine
from preprocess.engines.fidelity import embed_all
from preprocess.engines.select import EngineSpec, load_engine
from preprocess.images.decode import decode_image

BACKBONE = "efficientnet_lite0"
# Embeddings of Inception v3 of photos in eight classes that are hard to tell apart.
STYLES = ROOT.parent / "shared" / "data" / "inception_v3_bottlenecks" / "style.npz"


def pixels_and_engine(photo_set: PhotoSet, *, count: int | None = None) -> tuple[np.ndarray, Engine]:
    """The photographs as the network takes them, uint8 [n, side, side, 3], and what runs it; the first `count` only."""
    spec = complete_spec(BackboneSpec.asked_for(BACKBONE))
    read = ImageReader()
    pixels = [decode_image(read(path), size=spec.image.size) for path, _ in photo_set.photos[:count]]
    return np.stack(pixels), load_engine(spec, EngineSpec(engine="auto", precision="float32"))


def class_numbers(photo_set: PhotoSet, *, count: int | None = None) -> np.ndarray:
    """The numbers of the classes of the photographs, int64 [n]."""
    return np.array([photo_set.classes.index(label) for _, label in photo_set.photos[:count]])


def embedded(photo_set: PhotoSet, *, count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The embeddings of the photographs, float32 [n, 1280], and the numbers of their classes, int64 [n]."""
    pixels, engine = pixels_and_engine(photo_set, count=count)
    return embed_all(engine, pixels), class_numbers(photo_set, count=count)
