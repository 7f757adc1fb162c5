"""Small classifiers to export: the tiny network, and a head whose answers differ from image to image."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from preprocess.images.decode import IMAGE_DEFINITION
from preprocess.images.probe_images import probe_images
from preprocess.records.backbone_identity import BackboneIdentity
from tests.support import tiny_network
from trainer.training.head import build_head

LABELS = ("rose", "Gänseblümchen", "tulip")
EMBEDDING_SIZE = 24

IDENTITY = BackboneIdentity(
    architecture=tiny_network.NAME,
    weights="/weights/tiny.weights.h5",
    seed=None,
    weights_digest="sha256:" + "0" * 64,
    embedding_size=EMBEDDING_SIZE,
    image_definition=IMAGE_DEFINITION,
)


def jpeg(number: int, size: tuple[int, int] = (64, 80), **options) -> bytes:
    """A photo-like picture, drawn, of `size` (width, height)."""
    encoded = io.BytesIO()
    pixels = probe_images(number + 1, size=64)[number]
    Image.fromarray(pixels).resize(size).save(encoded, **{"format": "JPEG", "quality": 95, **options})
    return encoded.getvalue()


def build_classifier(seed: int = 0):
    """Backbone and head."""
    backbone = tiny_network.trained(tiny_network.build(), seed=1)
    embeddings = backbone(probe_images(8).astype(np.float32) / 127.5 - 1, training=False).numpy()
    head = build_head(
        embedding_size=EMBEDDING_SIZE,
        num_classes=len(LABELS),
        hidden_units=8,
        seed=seed,
        mean_and_variance=(embeddings.mean(0), embeddings.var(0) + 1e-6),
    )
    return backbone, head
