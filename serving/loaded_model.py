"""Loads one version of a model: its head, its engine, and a first run of the engine. TensorFlow is not needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from configs.errors import InputError
from preprocess.backbones.backbone import BackboneSpec, check_weights
from preprocess.engines.base import Engine
from preprocess.engines.select import EngineSpec, load_engine
from preprocess.images.probe_images import probe_images
from preprocess.records.backbone_identity import difference_of
from serving.calibration import calibration_pixels
from serving.options import ServeOptions
from trainer.export.classifier import read_model_info
from trainer.export.head_arrays import read_head
from trainer.export.model_info import ModelInfo


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedModel:
    """A version of a model that can answer.

    Attributes:
      info: its description.
      engine: runs its network.
      scores_of: its head, embeddings float32 [n, embedding_size] to scores float32 [n, num_labels]. Thread-safe.
    """

    info: ModelInfo
    engine: Engine
    scores_of: Callable[[np.ndarray], np.ndarray]


def load_model(model_dir: str, options: ServeOptions) -> LoadedModel:
    """Loads a model and runs it once, which takes seconds.

    Args:
      model_dir: the folder of the version, local or in a bucket.
      options: name the engine, its precision and the weights.

    Raises:
      InputError: the folder holds no complete model that takes images, or its network is not here.
    """
    info = read_model_info(model_dir)
    if not info.takes_images:
        raise InputError(
            f"model_dir: the model in {model_dir} takes embeddings and no photos, because its records do not say which "
            "network made them. If you know it, train with --weights FILE."
        )
    head = read_head(model_dir, info)  # It takes no time, and may be what is wrong.
    engine = _load_engine(info, model_dir, options)
    engine.start(probe_images(1, size=info.image.size)).result()
    return LoadedModel(info, engine, head)


def _load_engine(info: ModelInfo, model_dir: str, options: ServeOptions) -> Engine:
    spec = BackboneSpec.of_identity(info.backbone, weights=options.weights)
    try:
        check_weights(spec)
    except InputError as error:
        if options.weights is not None or spec.is_random:
            raise
        raise InputError(
            f"model_dir: the model in {model_dir} needs its network, {info.backbone.describe()}, and it cannot be "
            f"loaded here. {error} If the weights lie elsewhere, pass --weights FILE."
        ) from error
    engine = load_engine(
        spec,
        EngineSpec(engine=options.engine, precision=options.precision),
        lambda: calibration_pixels(options.calibrate_with, info),
    )
    if not engine.identity.agrees_with(info.backbone):
        raise InputError(
            f"--weights: the model in {model_dir} was made with another network than the one that is here: "
            f"{difference_of(info.backbone, engine.identity)}. Pass the weights file that made its records as "
            "--weights FILE."
        )
    return engine
