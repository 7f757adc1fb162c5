"""Clients that others wrote for TensorFlow Serving: its own messages read what the server answers.

The package `tensorflow-serving-api` is no dependency of the project; where it is not installed, this is skipped.
"""

from __future__ import annotations

import base64

import httpx
import pytest
import tensorflow as tf
from google.protobuf import json_format

from tests.support.classifiers import jpeg

pytest.importorskip("tensorflow_serving.apis", reason="the package tensorflow-serving-api is not installed")
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    predict_pb2,
)


@pytest.mark.parametrize("version", ["", "/versions/1"])
def test_the_states_are_a_status_response(server, version):
    answer = httpx.get(f"{server.url}/v1/models/hugs{version}")
    (state,) = json_format.Parse(answer.text, get_model_status_pb2.GetModelStatusResponse()).model_version_status
    assert (state.version, state.state) == (1, get_model_status_pb2.ModelVersionStatus.AVAILABLE)
    assert (state.status.error_code, state.status.error_message) == (0, "")


def signatures_of(server):
    """The signatures, as a client reads them that knows nothing of this server."""
    told = httpx.get(f"{server.url}/v1/models/hugs/metadata").json()
    assert set(told) == {"model_spec", "metadata"}
    spec = json_format.ParseDict(told["model_spec"], model_pb2.ModelSpec())
    assert (spec.name, spec.version.value) == ("hugs", 1)
    # TensorFlow Serving writes the message itself, without the type that a message in another one has in JSON.
    return json_format.ParseDict(
        told["metadata"]["signature_def"], get_model_metadata_pb2.SignatureDefMap()
    ).signature_def


def test_the_metadata_are_signatures(server):
    signatures = signatures_of(server)
    assert set(signatures) == {"serving_default", "images", "embed_images", "embeddings"}
    assert {signature.method_name for signature in signatures.values()} == {tf.saved_model.PREDICT_METHOD_NAME}
    images = signatures["images"]
    assert images.inputs["image_bytes"].dtype == tf.string.as_datatype_enum
    assert [dim.size for dim in images.outputs["scores"].tensor_shape.dim] == [-1, 3]


@pytest.mark.parametrize("name", ["serving_default", "images", "embed_images", "embeddings"])
def test_a_client_that_knows_only_the_metadata_gets_what_they_say(server, name):
    signature = signatures_of(server)[name]
    photo = {"b64": base64.b64encode(jpeg(0)).decode()}
    size = signature.inputs["embeddings"].tensor_shape.dim[-1].size if name == "embeddings" else 0
    values = {"key": "a", "image_bytes": photo, "embeddings": [0.5] * size}
    row = {one: values[one] for one in signature.inputs}
    url = f"{server.url}/v1/models/hugs:predict"
    rows = httpx.post(url, json={"signature_name": name, "instances": [row, row]}).json()["predictions"]
    columns = httpx.post(
        url, json={"signature_name": name, "inputs": {one: [value] * 2 for one, value in row.items()}}
    ).json()["outputs"]
    assert columns == {one: [row[one] for row in rows] for one in rows[0]}
    response = predict_pb2.PredictResponse()
    for one, info in signature.outputs.items():
        tensor = tf.make_tensor_proto(columns[one], tf.DType(info.dtype))
        response.outputs[one].CopyFrom(tensor)
        assert tf.TensorShape(info.tensor_shape).is_compatible_with(tf.TensorShape(tensor.tensor_shape))
    assert set(columns) == set(response.outputs) == set(signature.outputs)


@pytest.mark.parametrize("path", ["", "/metadata", ":predict"])
@pytest.mark.parametrize("model", ["none", "hugs/versions/9", "hugs/labels/stable"])
def test_a_refusal_is_an_object_with_an_error(server, model, path):
    url = f"{server.url}/v1/models/{model}{path}"
    answer = httpx.post(url, json={"instances": [1]}) if path == ":predict" else httpx.get(url)
    assert answer.status_code == 404
    assert set(answer.json()) == {"error"} and answer.json()["error"]
