"""The peers, which do the same work: Keras alone, and stock Apache Beam, each used as its documentation shows.

Both run the same network as ours in float32 with the same random weights: Inception v3 with global average pooling, and
Keras alone also others.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.ml.inference.base import ModelHandler, PredictionResult, RunInference
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from PIL import Image

from benchmarks.engines import BACKBONE
from preprocess.backbones.backbone import BackboneSpec, load_keras_backbone
from preprocess.backbones.tensorflow_import import import_tensorflow
from preprocess.images.decode import IMAGE_SIZE

BATCH_SIZE = 32

_batch_ends: list[tuple[float, int]] = []


@functools.cache
def _model(backbone: BackboneSpec = BACKBONE) -> Any:
    return load_keras_backbone(backbone)[0]


def keras_predict_rate(folder: str, backbone: BackboneSpec = BACKBONE) -> float:
    """Images per second of `Model.predict` on `image_dataset_from_directory`, for all images of a folder.

    Batches have 32 images (Keras' default), pixels are scaled as by the `preprocess_input` of the network, and the data
    set reads ahead as it does by default. A first batch and the listing of the folder are not counted, so tracing is
    not.
    """
    import_tensorflow()
    import keras

    from preprocess.images.decode_graph import scale_pixels

    size = backbone.image.size
    images = keras.utils.image_dataset_from_directory(
        folder, labels=None, image_size=(size, size), batch_size=BATCH_SIZE, shuffle=False, verbose=False
    )
    batches = images.map(lambda pixels: scale_pixels(pixels, backbone.image.scaling))
    model = _model(backbone)
    model.predict(batches.take(1), verbose=0)
    started = time.perf_counter()
    embeddings = model.predict(batches, verbose=0)
    return len(embeddings) / (time.perf_counter() - started)


class KerasModelHandler(ModelHandler[np.ndarray, PredictionResult, Any]):
    """Does the same as Beam's `TFModelHandlerNumpy`: stacks the batch, calls the model, splits the result.

    Beam's own handler needs `tensorflow_hub` and a saved model. This one uses a model in this process.
    """

    def load_model(self) -> Any:
        """The Keras model."""
        return _model()

    def batch_elements_kwargs(self) -> dict[str, int]:
        """The size of batches: the same as that of the others."""
        return {"min_batch_size": BATCH_SIZE, "max_batch_size": BATCH_SIZE}

    def run_inference(
        self, batch: Sequence[np.ndarray], model: Any, inference_args: dict[str, Any] | None = None
    ) -> Iterable[PredictionResult]:
        """Embeddings of a batch."""
        predictions = model(np.stack(batch, axis=0), training=False).numpy()
        _batch_ends.append((time.perf_counter(), len(batch)))
        return [PredictionResult(example, inference) for example, inference in zip(batch, predictions, strict=True)]


def _read_and_decode(line: str) -> np.ndarray:
    path = line.split(",")[0]
    with beam.io.filesystems.FileSystems.open(path) as stream, Image.open(stream) as image:
        pixels = image.convert("RGB").resize((IMAGE_SIZE, IMAGE_SIZE))
    return np.asarray(pixels, np.float32) / 127.5 - 1.0


def _to_record(result: PredictionResult) -> bytes:
    import tensorflow as tf

    floats = tf.train.FloatList(value=result.inference)
    features = tf.train.Features(feature={"embedding": tf.train.Feature(float_list=floats)})
    return tf.train.Example(features=features).SerializeToString()


def run_inference_rate(list_path: str, output_prefix: str) -> float:
    """Images per second of stock Beam: ReadFromText, decode, RunInference, WriteToTFRecord, on the local runner.

    The time is counted from the end of the first batch to the end of the last. So loading, the first batch and the last
    writes are not counted, which is an advantage for this peer. Reading, decoding and inference are one fused stage and
    are all counted.
    """
    import_tensorflow()
    _batch_ends.clear()
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        _ = (
            pipeline
            | beam.io.ReadFromText(list_path)
            | beam.Map(_read_and_decode)
            | RunInference(KerasModelHandler())
            | beam.Map(_to_record)
            | beam.io.WriteToTFRecord(output_prefix, file_name_suffix=".tfrecord")
        )
    images = sum(size for _, size in _batch_ends[1:])
    return images / (_batch_ends[-1][0] - _batch_ends[0][0])
