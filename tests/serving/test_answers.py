"""What the server answers, to a file and to TensorFlow Serving's clients."""

from __future__ import annotations

import base64
import gzip
import time

import httpx
import numpy as np
import pytest

from tests.serving.conftest import HEALTH_ROUTE, PREDICT_ROUTE
from tests.support.classifiers import jpeg
from tests.support.serving import LABELS

PHOTOS = [
    jpeg(0),
    jpeg(1, (900, 400)),
    jpeg(2, format="PNG"),
    jpeg(3, format="WEBP"),
    jpeg(4, (31, 17), format="TIFF"),
    jpeg(5, (1300, 1300)),
]


@pytest.fixture(scope="module")
def expected(model_dir):
    """The answers of `trainer.predict`: the float32 SavedModel on the pixels of the pipeline."""
    from trainer.export.classifier import Classifier, normalize_photo

    classifier = Classifier(model_dir)
    return classifier.predict([normalize_photo(photo, size=classifier.info.image.size) for photo in PHOTOS])


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


def ask(server, body, path="/v1/models/hugs:predict"):
    return httpx.post(f"{server.url}{path}", json=body, timeout=60)


def same_row(row, wanted):
    assert row["label"] == wanted.label
    assert row["prediction"] == wanted.label_id
    assert row["confident"] == wanted.confident
    np.testing.assert_allclose(row["scores"], wanted.scores, atol=1e-4)


def test_a_file_gets_the_answer_of_trainer_predict(server, expected):
    for photo, wanted in zip(PHOTOS, expected, strict=True):
        for sent in ({"content": photo}, {"files": {"photo": ("Grüße.jpg", photo)}}):
            response = httpx.post(f"{server.url}/predict", timeout=60, **sent)
            assert response.status_code == 200
            answer = response.json()
            assert answer["predictions"][0]["label"] == wanted.label
            scores = {entry["id"]: entry["score"] for entry in answer["predictions"]}
            np.testing.assert_allclose([scores[i] for i in range(len(LABELS))], wanted.scores, atol=1e-4)
            assert answer["confident"] == wanted.confident
            assert answer["threshold"] == 0.7
            assert answer["random_weights"] is True
    assert {wanted.confident for wanted in expected} == {True, False}


def test_the_best_few(server):
    response = httpx.post(f"{server.url}/predict?top_k=2", content=PHOTOS[0])
    assert len(response.json()["predictions"]) == 2
    for bad in ("0", "-1", "x", "99999999999999"):
        assert httpx.post(f"{server.url}/predict?top_k={bad}", content=PHOTOS[0]).status_code == 400


def test_rows_keep_their_order_and_keys_and_fail_alone(server, expected):
    instances = [{"key": str(i), "image_bytes": b64(photo)} for i, photo in enumerate(PHOTOS)]
    instances.insert(2, {"key": "bad", "image_bytes": b64(b"<html>")})
    response = ask(server, {"instances": instances, "parameters": {"ignored": 1}})
    assert response.status_code == 200
    rows = response.json()["predictions"]
    assert [row["key"] for row in rows] == ["0", "1", "bad", "2", "3", "4", "5"]
    bad = rows.pop(2)
    assert bad["error"].startswith("not_an_image: ")
    assert (bad["label"], bad["prediction"], bad["scores"], bad["confident"]) == ("", -1, [0, 0, 0], False)
    for row, wanted in zip(rows, expected, strict=True):
        same_row(row, wanted)
        assert row["error"] == ""


@pytest.mark.parametrize("path", ["/v1/models/hugs/versions/1:predict", PREDICT_ROUTE, "/predict"])
def test_vertex_and_versions_take_the_same_rows(server, expected, path):
    response = ask(server, {"instances": [{"image_bytes": b64(PHOTOS[0])}]}, path)
    (row,) = response.json()["predictions"]
    same_row(row, expected[0])
    assert "key" not in row


def test_the_signature_without_keys_takes_bare_bytes(server, expected):
    for instance in (b64(PHOTOS[1]), {"image_bytes": b64(PHOTOS[1])}):
        response = ask(server, {"signature_name": "images", "instances": [instance]})
        same_row(response.json()["predictions"][0], expected[1])


def test_the_key_and_with_it_the_name_of_the_image_may_be_left_out(server, expected):
    photo = b64(PHOTOS[0])
    rows = ask(server, {"instances": [photo, {"image_bytes": photo}]}).json()["predictions"]
    for row in rows:
        same_row(row, expected[0])
        assert "key" not in row


def test_a_compressed_body_is_refused_and_not_unpacked(server):
    packed = gzip.compress(b'{"instances": []}')
    for path in ("/predict", "/v1/models/hugs:predict"):
        answer = httpx.post(f"{server.url}{path}", content=packed, headers={"Content-Encoding": "gzip"})
        assert answer.status_code == 415
        assert "without Content-Encoding" in answer.json()["error"]


def test_columns(server, expected):
    inputs = {"key": ["a", "b"], "image_bytes": [b64(PHOTOS[0]), b64(PHOTOS[1])]}
    outputs = ask(server, {"inputs": inputs}).json()["outputs"]
    assert outputs["key"] == ["a", "b"]
    assert outputs["label"] == [wanted.label for wanted in expected[:2]]
    assert np.shape(outputs["scores"]) == (2, 3)
    assert ask(server, {"signature_name": "images", "inputs": [b64(PHOTOS[0])]}).status_code == 200


def test_embeddings_come_and_go(server, expected):
    rows = ask(server, {"signature_name": "embed_images", "instances": [b64(PHOTOS[0]), b64(b"x")]}).json()
    good, bad = rows["predictions"]
    assert good["error"] == "" and bad["error"] and not any(bad["embeddings"])
    rows = ask(server, {"signature_name": "embeddings", "instances": [{"embeddings": good["embeddings"]}]}).json()
    same_row(rows["predictions"][0], expected[0])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ([], "JSON object"),
        ({}, "'instances' (rows) or 'inputs'"),
        ({"instances": [], "inputs": []}, "'instances' (rows) or 'inputs'"),
        ({"instances": []}, "not empty"),
        ({"instances": {"b64": ""}}, "must be a list"),
        ({"instances": ["/etc/passwd"]}, "Instance 0 must be an object of 'key' and 'image_bytes'"),
        ({"instances": [{"image_bytes": "/etc/passwd"}]}, "No file or address is opened"),
        ({"instances": [{"image_bytes": "http://127.0.0.1/a.jpg"}]}, "No file or address is opened"),
        ({"instances": [{"image_bytes": {"uri": "gs://bucket/a.jpg"}}]}, "No file or address is opened"),
        ({"instances": [{"image_bytes": {"b64": "!"}}]}, "not base64"),
        ({"instances": [{"image_bytes": {"b64": "ä"}}]}, "not base64"),
        ({"instances": [{"b64": "data:image/jpeg;base64,/9j/4AA="}]}, "Leave out what stands before the comma"),
        ({"instances": [{"b64": ""}, {"image_bytes": {"b64": ""}, "key": "a"}]}, "Instance 1"),
        ({"instances": [{"image_bytes": {"b64": 3}}]}, "must be its bytes"),
        ({"instances": [{"image_bytes": {"b64": ""}, "key": 3}]}, "'key' must be text"),
        ({"instances": [{"image_bytes": {"b64": ""}, "key": "a"}, {"image_bytes": {"b64": ""}}]}, "Instance 1"),
        ({"instances": [{"image_bytes": {"b64": ""}, "more": "a"}]}, "Instance 0"),
        ({"signature_name": "no", "instances": [1]}, "'signature_name' must be one of"),
        ({"signature_name": ["images"], "instances": [1]}, "'signature_name' must be one of"),
        ({"signature_name": "embeddings", "instances": [[1, 2]]}, "list of 24 numbers"),
        ({"signature_name": "embeddings", "instances": [[True] * 24]}, "list of 24 numbers"),
        ({"signature_name": "embeddings", "instances": [[1e39] * 24]}, "numbers of float32"),
        ({"signature_name": "embeddings", "instances": [[10**400] + [1] * 23]}, "numbers of float32"),
        ({"signature_name": "embeddings", "instances": [[0] * 24, [3e38] * 24]}, "instance 1 are too large"),
        ({"inputs": {"image_bytes": [{"b64": ""}], "key": []}}, "of one length"),
        ({"inputs": {"key": ["a"]}}, "'inputs' must be an object of lists"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(server, body, words):
    response = ask(server, body)
    assert response.status_code == 400
    assert words in response.json()["error"]
    assert response.headers["content-type"] == "application/json"


def test_an_empty_photo_is_one_bad_row(server):
    row = ask(server, {"instances": [{"image_bytes": b64(b"")}]}).json()["predictions"][0]
    assert row["error"].startswith("empty_file")


def test_states_and_signatures(server):
    wanted = [{"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}]
    for path in ("/v1/models/hugs", "/v1/models/hugs/versions/1"):
        assert httpx.get(f"{server.url}{path}").json() == {"model_version_status": wanted}
        metadata = httpx.get(f"{server.url}{path}/metadata").json()
        assert metadata["model_spec"] == {"name": "hugs", "signature_name": "", "version": "1"}
        signatures = metadata["metadata"]["signature_def"]["signature_def"]
        assert set(signatures) == {"serving_default", "images", "embed_images", "embeddings"}
        assert set(signatures["serving_default"]["inputs"]) == {"key", "image_bytes"}


def test_the_signatures_are_those_of_the_exported_model(server, model_dir):
    from trainer.export.classifier import load_saved_model

    signatures = httpx.get(f"{server.url}/v1/models/hugs/metadata").json()["metadata"]["signature_def"]["signature_def"]
    model = load_saved_model(model_dir)
    for name, described in signatures.items():
        function = model.signatures[name]
        for ours, theirs in (
            (described["inputs"], function.structured_input_signature[1]),
            (described["outputs"], function.structured_outputs),
        ):
            assert set(ours) == set(theirs)
            for tensor, spec in theirs.items():
                assert ours[tensor]["dtype"] == f"DT_{spec.dtype.name.upper().replace('FLOAT32', 'FLOAT')}"
                sizes = [int(dimension["size"]) for dimension in ours[tensor]["tensor_shape"]["dim"]]
                assert len(sizes) == spec.shape.rank
                assert all(size in (-1, known) or known is None for size, known in zip(sizes, spec.shape, strict=True))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models/other", 404),
        ("GET", "/v1/models/hugs/versions/9", 404),
        ("GET", "/v1/models/hugs/versions/9/metadata", 404),
        ("GET", "/v1/models/hugs/versions/x", 400),
        ("GET", "/v1/models/hugs/versions/99999999999999999999", 400),
        ("POST", "/v1/models/other:predict", 404),
        ("POST", "/v1/models/hugs/versions/9:predict", 404),
        ("POST", "/v1/models/hugs:classify", 400),
        ("GET", "/v1/models/hugs:predict", 404),
        ("GET", "/predict", 405),
        ("DELETE", "/v1/models/hugs", 405),
        ("GET", "/predict/", 404),
        ("GET", "/nothing", 404),
        ("GET", HEALTH_ROUTE, 200),
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("HEAD", "/readyz", 200),
    ],
)
def test_statuses(server, method, path, status):
    response = httpx.request(method, f"{server.url}{path}")
    assert response.status_code == status
    if status >= 400:
        assert response.json()["error"]
    assert "default-src 'none'" in response.headers["content-security-policy"]


def test_a_full_queue_is_refused_with_the_time_to_wait(server):
    admission = server.server.served.admission
    with admission.images_in_flight(admission.max_images):
        for response in (
            httpx.post(f"{server.url}/predict", content=PHOTOS[0]),
            ask(server, {"instances": [{"image_bytes": b64(PHOTOS[0])}]}),
        ):
            assert response.status_code == 429
            assert 1 <= int(response.headers["retry-after"]) <= 60
    assert httpx.post(f"{server.url}/predict", content=PHOTOS[0]).status_code == 200
    assert ask(server, {"instances": [{"image_bytes": b64(b"")}] * 41}).status_code == 413


def test_an_image_whose_turn_does_not_come_is_given_up(server, monkeypatch):
    from serving.decoding import ImageDecoder

    (version,) = server.server.served.models.all[0]._served.values()
    assert isinstance(version._decoder, ImageDecoder)
    monkeypatch.setattr(version._decoder, "_max_wait_sec", -1)
    response = httpx.post(f"{server.url}/predict", content=PHOTOS[0])
    assert response.status_code == 429
    assert response.headers["retry-after"]


def test_metrics_count(server):
    def value(name):
        lines = httpx.get(f"{server.url}/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    answered = 'hugs_requests_total{route="predict",status="200"}'
    before = value(answered), value("hugs_images_total")
    httpx.post(f"{server.url}/predict", content=PHOTOS[0])
    assert (value(answered), value("hugs_images_total")) == (before[0] + 1, before[1] + 1)
    assert value('hugs_model_version{model="hugs",version="1"}') == 1
    assert value("hugs_images_in_flight") == 0
    assert value("process_resident_memory_bytes") > 0


def test_a_log_line_says_nothing_of_the_content(server, caplog):
    with caplog.at_level("INFO", logger="serving.requests"):
        httpx.post(f"{server.url}/predict?secret=1", content=PHOTOS[0], headers={"Cookie": "secret"})
        httpx.get(f"{server.url}/secret%0Aline")
        until = time.monotonic() + 20
        while True:  # A line is logged after its answer.
            lines = [record.getMessage() for record in caplog.records if record.name == "serving.requests"]
            ours = [line for line in lines if line.startswith(("POST predict ", "GET other "))]
            if len(ours) == 2:
                break
            assert time.monotonic() < until
            time.sleep(0.01)
    assert ours[0].startswith("POST predict 200 ") and ours[0].endswith(" 1 images hugs/1")
    assert ours[1].startswith("GET other 404 ")
    assert not any("secret" in line for line in lines)
