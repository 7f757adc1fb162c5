"""A model in the layout that TensorFlow Serving needs, and the request for a prediction.

The newest of Vertex AI's own TensorFlow images has 2.15, which lacks an operation of our models (`DecodeWebP`: "Op type
not registered" at the first request). TensorFlow Serving has it since 2.20, and needs its models in numbered folders.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from cloud.images_to_json import instance_of
from cloud.job_storage import copy_files, faults_of, is_there, read_file
from configs.errors import InputError, cause_in_one_line
from preprocess.storage.base import Storage
from trainer.export.model_info import MODEL_INFO_PATH, ModelInfo

GRAPH_NAME = "saved_model.pb"
# The files that TensorFlow Serving reads, in the order of copying. The graph is last, since it makes a folder a model.
_FILES = ("variables/*", "assets/*", "assets.extra/*", "fingerprint.pb", GRAPH_NAME)
_DIGEST_LENGTH = 16
_PORT = 8501
_ROUTE = "/v1/models/model"


# The addresses of `hugs serve`, which is told where the model is by AIP_STORAGE_URI.
_OWN_PORT = 8080
_OWN_ROUTES = {"container_predict_route": "/predict", "container_health_route": "/readyz"}


def container_flags(image: str, *, is_own: bool) -> dict[str, object]:
    """Flags of `gcloud ai models upload` that start a server on the model.

    Args:
      image: the image of the server.
      is_own: whether it is the target `server` of the Dockerfile; otherwise it is TensorFlow Serving.
    """
    if is_own:
        return {"container_image_uri": image, "container_ports": _OWN_PORT, **_OWN_ROUTES}
    return {
        "container_image_uri": image,
        # The model's name is "model" by default. Vertex AI fills in the location of its copy of the artifact. It never
        # changes, so it is looked at once: by default TensorFlow Serving lists the bucket each second, all day ("If
        # set to zero poll will be exactly done once", tensorflow_serving/model_servers/main.cc).
        "container_args": "--model_base_path=$(AIP_STORAGE_URI),--file_system_poll_wait_seconds=0",
        "container_ports": _PORT,
        "container_predict_route": f"{_ROUTE}:predict",
        "container_health_route": _ROUTE,
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServingModel:
    """An exported model in a bucket.

    Attributes:
      model_dir: its folder.
      info: its description.
      digest: the hexadecimal digest of its graph, its description and the container that serves it.
    """

    model_dir: str
    info: ModelInfo
    digest: str

    @property
    def artifact_uri(self) -> str:
        """The folder for TensorFlow Serving, beside the model. It holds a folder named 1."""
        return f"{posixpath.dirname(self.model_dir)}/serving/{self.digest}"

    def stage(self, storage: Storage) -> None:
        """Copies the model to `artifact_uri`, unless it is already there.

        Raises:
          InputError: a file cannot be read or written.
        """
        target = f"{self.artifact_uri}/1"
        if is_there(f"{target}/{GRAPH_NAME}", storage):
            return
        with faults_of(self.model_dir):
            paths = [path for pattern in _FILES for path in storage.match(f"{self.model_dir}/{pattern}")]
        copy_files([path.removeprefix(f"{self.model_dir}/") for path in paths], self.model_dir, target, storage)


def find_model(folder: str, *, image: str, is_own: bool, storage: Storage) -> ServingModel:
    """Finds the model in a folder, or in its sub-folder `model`, where the trainer writes it.

    Raises:
      InputError: there is no model that takes photos.
    """
    for model_dir in (folder, f"{folder}/model"):
        info_path = f"{model_dir}/{MODEL_INFO_PATH}"
        raw = read_file(info_path, storage)
        graph = read_file(f"{model_dir}/{GRAPH_NAME}", storage) if raw is not None else None
        if raw is not None and graph is not None:
            break
    else:
        raise InputError(
            f"MODEL_DIR: {folder} holds no model that `hugs train` wrote (there is no {MODEL_INFO_PATH} with a "
            f"{GRAPH_NAME}). Give the folder that hugs_train.sh named, once the training has succeeded."
        )
    info = ModelInfo.from_bytes(raw, where=info_path)
    if not info.takes_images:
        raise InputError(
            f"MODEL_DIR: the model in {model_dir} takes embeddings and no photos. Train with --weights for one that "
            "can be asked about photos."
        )
    container = json.dumps(container_flags(image, is_own=is_own), sort_keys=True).encode()
    digest = hashlib.sha256(b"\0".join([hashlib.sha256(graph).digest(), raw, container]))
    return ServingModel(model_dir=model_dir, info=info, digest=digest.hexdigest()[:_DIGEST_LENGTH])


def prediction_request(photo: bytes | None, *, key: str, size: int) -> dict[str, Any]:
    """The request for one photo. The photo is made smaller first, because Vertex AI accepts at most 1.5 MB.

    Args:
      photo: the file's content; None for a drawn picture.
      key: the name of the photo in the response.
      size: the side of the square that the model's backbone takes.

    Raises:
      InputError: the file is not an image.
    """
    # Imported here so that --help stays quick.
    from preprocess.images.decode import encode_png
    from preprocess.images.probe_images import probe_images

    drawn = photo is None
    try:
        content = encode_png(probe_images(1, size=size)[0]) if photo is None else photo
        return {"instances": [instance_of(content, key=key, size=None if drawn else size)]}
    except InputError as error:
        raise InputError(f"--image: {error}") from error


def top_predictions(
    response: Any, labels: Sequence[str], *, at_most: int = 5
) -> tuple[str, bool, list[tuple[str, float]]]:
    """Reads the endpoint's response for one photo.

    Args:
      response: the response as JSON.
      labels: the labels of the model.
      at_most: the number of labels to give.

    Returns:
      The label, whether the model is confident, and the best labels with their scores.

    Raises:
      InputError: the model could not decode the photo, or the response does not have the form of our models'
        predictions.
    """
    try:
        prediction: Mapping[str, Any] = response["predictions"][0]
        refused = prediction.get("error")  # Models of earlier versions do not have it.
        scores = [float(score) for score in prediction["scores"]]
        top = sorted(zip(labels, scores, strict=True), key=lambda pair: -pair[1])[:at_most]
        label, confident = str(prediction["label"]), bool(prediction["confident"])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise InputError(
            f"test prediction: the endpoint did not answer as our models do ({cause_in_one_line(error)}): "
            f"{str(response)[:200]!r}"
        ) from error
    if refused:
        raise InputError(f"test prediction: the model could not read the photo ({refused}).")
    return label, confident, top
