"""TensorFlow Serving's REST API: what a request asks, and how the answers are written.

https://www.tensorflow.org/tfx/serving/api_rest. Vertex AI's containers take and give the same JSON, in rows. Only bytes
in a request are read, as `{"b64": ...}`: a text that names a file or an address is no image.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serving.models import Model, ServedVersion
from serving.refusals import RefusedError
from trainer.export.classifier import Prediction
from trainer.export.model_info import ModelInfo

# The signatures of an exported model, and the inputs of each; `key` may be left out.
_INPUTS: dict[str, tuple[str, ...]] = {
    "serving_default": ("key", "image_bytes"),
    "images": ("image_bytes",),
    "embed_images": ("image_bytes",),
    "embeddings": ("embeddings",),
}


@dataclasses.dataclass(frozen=True, eq=False)
class PredictRequest:
    """A request for predictions, read and checked.

    Attributes:
      signature: the name of the signature.
      images: the image files; empty for the signature "embeddings".
      embeddings: float32 [n, embedding_size]; None for the others.
      keys: the keys of the images; None if there are none.
      in_rows: whether the answer is a list of rows, or columns.
    """

    signature: str
    images: tuple[bytes, ...] = ()
    embeddings: np.ndarray | None = None
    keys: tuple[str, ...] | None = None
    in_rows: bool = True

    @property
    def size(self) -> int:
        """The number of instances."""
        return len(self.images) if self.embeddings is None else len(self.embeddings)


def read_request(data: Any, info: ModelInfo) -> PredictRequest:
    """Reads the body of a request, which is JSON already.

    Raises:
      RefusedError: it does not say what the model needs.
    """
    if not isinstance(data, dict):
        raise RefusedError(400, "The body must be a JSON object with a list of 'instances'.")
    signature = data.get("signature_name") or "serving_default"
    if not isinstance(signature, str) or signature not in _INPUTS:
        raise RefusedError(400, f"'signature_name' must be one of {', '.join(_INPUTS)}.")
    if ("instances" in data) == ("inputs" in data):
        raise RefusedError(400, "The body must have 'instances' (rows) or 'inputs' (columns), one of the two.")
    if "instances" in data:
        columns = _columns_of_rows(data["instances"], signature)
    else:
        columns = _columns(data["inputs"], signature)
    keys = columns.get("key")
    if keys is not None and not all(map(_is_text, keys)):
        raise RefusedError(400, "'key' must be text.")
    return PredictRequest(
        signature=signature,
        images=tuple(_bytes_of(value, where) for where, value in enumerate(columns.get("image_bytes", ()))),
        embeddings=_embeddings_of(columns["embeddings"], info) if signature == "embeddings" else None,
        keys=None if keys is None else tuple(keys),
        in_rows="instances" in data,
    )


def _is_text(value: Any) -> bool:
    """JSON can write half a character, which no answer can repeat."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def _columns_of_rows(instances: Any, signature: str) -> dict[str, list[Any]]:
    names = _INPUTS[signature]
    if not isinstance(instances, list) or not instances:
        raise RefusedError(400, "'instances' must be a list that is not empty.")
    columns: dict[str, list[Any]] = {}
    wanted: set[str] = set()
    for number, instance in enumerate(instances):
        # The name of the only input that is needed may be left out: {"b64": ...} or a list of numbers.
        if not (isinstance(instance, dict) and names[-1] in instance) and (len(names) == 1 or _is_bytes(instance)):
            instance = {names[-1]: instance}
        if not isinstance(instance, dict) or names[-1] not in instance or not set(instance) <= set(names):
            raise RefusedError(400, f"Instance {number} must be an object of {' and '.join(map(repr, names))}.")
        wanted = wanted or set(instance)
        if set(instance) != wanted:
            raise RefusedError(400, f"Instance {number} must have a 'key' as the first, or none as the first.")
        for name, value in instance.items():
            columns.setdefault(name, []).append(value)
    return columns


def _is_bytes(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"b64"}


def _columns(inputs: Any, signature: str) -> dict[str, list[Any]]:
    names = _INPUTS[signature]
    columns = inputs if isinstance(inputs, dict) and "b64" not in inputs else {names[-1]: inputs}
    lists = {name: value for name, value in columns.items() if isinstance(value, list)}
    if names[-1] not in lists or not set(columns) <= set(names) or set(lists) != set(columns):
        raise RefusedError(400, f"'inputs' must be an object of lists: {' and '.join(map(repr, names))}.")
    if len({len(values) for values in lists.values()}) != 1 or not lists[names[-1]]:
        raise RefusedError(400, "The lists in 'inputs' must be of one length, and not empty.")
    return lists


def _bytes_of(value: Any, number: int) -> bytes:
    encoded = value["b64"] if _is_bytes(value) else None
    if not isinstance(encoded, str):
        raise RefusedError(
            400, f'The image of instance {number} must be its bytes: {{"b64": "..."}}. No file or address is opened.'
        )
    try:
        # Some clients write the alphabet for addresses, or leave the padding out, as TensorFlow Serving accepts.
        text = encoded.translate(_STANDARD_ALPHABET).rstrip("=")
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        hint = " Leave out what stands before the comma." if encoded.startswith("data:") else ""
        raise RefusedError(400, f"The image of instance {number} is not base64.{hint}") from None


_STANDARD_ALPHABET = str.maketrans({"-": "+", "_": "/", "\n": "", "\r": ""})


def _embeddings_of(rows: Sequence[Any], info: ModelInfo) -> np.ndarray:
    size = info.backbone.embedding_size
    for number, row in enumerate(rows):
        is_row = isinstance(row, list) and len(row) == size
        if not is_row or not all(isinstance(value, int | float) and not isinstance(value, bool) for value in row):
            raise RefusedError(400, f"The embedding of instance {number} must be a list of {size} numbers.")
    try:
        with np.errstate(over="ignore"):
            embeddings = np.array(rows, np.float32)
    except (OverflowError, ValueError):
        raise RefusedError(400, "Embeddings must be numbers of float32.") from None
    if not np.isfinite(embeddings).all():
        raise RefusedError(400, "Embeddings must be numbers of float32.")
    return embeddings


def row_of(prediction: Prediction, *, with_error: bool = True) -> dict[str, Any]:
    """A row of an answer: the outputs of the exported model."""
    return {
        "prediction": prediction.label_id,
        "label": prediction.label,
        "scores": [float(score) for score in prediction.scores],
        "confident": prediction.confident,
        **({"error": prediction.error} if with_error else {}),
    }


def response_of(rows: Sequence[Mapping[str, Any]], request: PredictRequest) -> dict[str, Any]:
    """The body of the response."""
    if request.keys is not None:
        rows = [{"key": key, **row} for key, row in zip(request.keys, rows, strict=True)]
    if request.in_rows:
        return {"predictions": list(rows)}
    return {"outputs": {name: [row[name] for row in rows] for name in rows[0]}}


def status_of(model: Model, number: int | None) -> dict[str, Any]:
    """The states of a model's versions.

    Raises:
      RefusedError: there is no such version.
    """
    states = [state for state in model.states() if number in (None, state.number)]
    if not states:
        raise no_such_version(model.name, number)
    return {
        "model_version_status": [
            {
                "version": str(state.number),
                "state": state.state,
                # The problem may name paths of this machine, so it is in the log alone.
                "status": {
                    "error_code": "UNKNOWN" if state.problem else "OK",
                    "error_message": "It cannot be loaded; the log of the server says why." if state.problem else "",
                },
            }
            for state in states
        ]
    }


def no_such_version(name: str, number: int | None) -> RefusedError:
    """The refusal of a version that is not served."""
    which = "Latest" if number is None else "Specific"
    version = "" if number is None else f", {number}"
    return RefusedError(404, f"Servable not found for request: {which}({name}{version})")


def metadata_of(version: ServedVersion) -> dict[str, Any]:
    """The signatures of a version, as TensorFlow Serving writes them."""
    info = version.info
    labels, size = str(len(info.labels)), str(info.backbone.embedding_size)
    answers = {
        "prediction": _tensor("DT_INT64"),
        "label": _tensor("DT_STRING"),
        "scores": _tensor("DT_FLOAT", labels),
        "confident": _tensor("DT_BOOL"),
    }
    with_error = {**answers, "error": _tensor("DT_STRING")}
    image, key = {"image_bytes": _tensor("DT_STRING")}, {"key": _tensor("DT_STRING")}
    embeddings = {"embeddings": _tensor("DT_FLOAT", size)}
    signatures = {
        "serving_default": ({**key, **image}, {**key, **with_error}),
        "images": (image, with_error),
        "embed_images": (image, {**embeddings, "error": _tensor("DT_STRING")}),
        "embeddings": (embeddings, answers),
    }
    return {
        "model_spec": {"name": version.name, "signature_name": "", "version": str(version.number)},
        "metadata": {
            "signature_def": {
                "signature_def": {
                    name: {"inputs": inputs, "outputs": outputs, "method_name": "tensorflow/serving/predict"}
                    for name, (inputs, outputs) in signatures.items()
                }
            }
        },
    }


def _tensor(dtype: str, *sizes: str) -> dict[str, Any]:
    dimensions = [{"size": size, "name": ""} for size in ("-1", *sizes)]
    return {"dtype": dtype, "tensor_shape": {"dim": dimensions, "unknown_rank": False}, "name": ""}
