"""`hugs serve --search`: similar photos for programs, beside a prediction, and their thumbnails."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
import http.server
import io
import json
import os
import shutil
import socket
import threading

import httpx
import numpy as np
import pytest
from PIL import Image

from configs.errors import InputError
from tests.support.classifiers import jpeg
from tests.support.programs import end_program, start_program
from tests.support.searched_photos import GONE, LABELS, REPLACED, WEB, write_searched_photos
from tests.support.written_sets import write_record_set

pytestmark = pytest.mark.usefixtures("with_extra")


@pytest.fixture(scope="module")
def web_host():
    """A web host on loopback, and the paths that it was asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as host:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{host.server_address[1]}/5.jpg", asked
        host.shutdown()


@pytest.fixture(scope="module")
def photos(tmp_path_factory, model_dir, web_host, with_extra):
    return write_searched_photos(tmp_path_factory.mktemp("searched"), model_dir, web_uri=web_host[0])


@pytest.fixture(scope="module")
def searching(model_dir, photos):
    from tests.support.serving import running_server

    with running_server(model_dir=(model_dir,), search=(photos.prefix,), max_queue=40) as running:
        yield running


def search(server, photo, query="", **sent):
    response = httpx.post(f"{server.url}/search{query}", **({"content": photo} | sent), timeout=60)
    assert response.status_code == 200, response.text
    return response.json()["nearest"]


def b64(data):
    return {"b64": base64.b64encode(data).decode()}


def counted(server, name):
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


def test_a_photo_of_the_set_is_found_first_and_marked(searching, photos):
    for sent in ({}, {"content": None, "files": {"photo": ("a.jpg", photos.files[2])}}):
        found = search(searching, photos.files[2], "?count=3", **sent)
        assert [near["same_file"] for near in found] == [True, False, False]
        assert found[0]["image_uri"] == "train/2 ä.jpg"
        assert found[0]["similarity"] == pytest.approx(1, abs=1e-3)
    assert found[0]["labels"] == ["bear"] and found[0]["set"] == "train"
    assert set(found[0]) == {"similarity", "image_uri", "labels", "set", "image_sha256", "same_file", "photo"}
    everything = search(searching, photos.files[2], "?count=50")
    similarities = [near["similarity"] for near in everything]
    assert len(everything) == 8 and similarities == sorted(similarities, reverse=True)
    unit = photos.embeddings / np.linalg.norm(photos.embeddings, axis=1, keepdims=True)
    expected = np.argsort(-(unit @ unit[2]))
    assert [near["image_uri"] for near in everything] == [photos.uris[row] for row in expected]


def test_a_prediction_and_similar_photos_take_one_decoding_and_one_embedding(searching, photos):
    alone = httpx.post(f"{searching.url}/predict", content=photos.files[0]).json()
    names = ("hugs_batch_images_sum", 'hugs_stage_seconds_count{stage="decode"}', "hugs_searches_total")
    before = [counted(searching, name) for name in names]
    both = httpx.post(f"{searching.url}/predict?nearest=4", content=photos.files[0]).json()
    assert [counted(searching, name) - was for name, was in zip(names, before, strict=True)] == [1, 1, 1]
    assert len(both.pop("nearest")) == 4
    assert both == alone


def test_a_client_that_sends_a_smaller_copy_says_which_file_it_is_of(searching, photos):
    digest = hashlib.sha256(photos.files[1]).hexdigest()
    smaller = jpeg(1, (50, 40))
    assert not any(near["same_file"] for near in search(searching, smaller))
    for query in (f"?image_sha256={digest}", f"?image_sha256={digest.upper()}"):
        marked = [near["image_uri"] for near in search(searching, smaller, query) if near["same_file"]]
        assert marked == ["train/1 ä.jpg"]


def test_rows_keep_their_keys_and_fail_alone(searching, photos):
    address = f"{searching.url}/v1/models/hugs:search?count=2"
    instances = [{"key": str(i), "image_bytes": b64(photo)} for i, photo in enumerate([photos.files[0], b"<html>"])]
    good, bad = httpx.post(address, json={"instances": instances}).json()["predictions"]
    assert (good["key"], good["error"], len(good["nearest"])) == ("0", "", 2)
    assert good["nearest"][0]["same_file"]
    assert (bad["key"], bad["nearest"]) == ("1", []) and bad["error"].startswith("not_an_image: ")
    body = {"signature_name": "embeddings", "instances": [photos.embeddings[6].tolist()]}
    for path in ("/v1/models/hugs:search", "/v1/models/hugs/versions/1:search", "/search"):
        (row,) = httpx.post(f"{searching.url}{path}?count=1", json=body).json()["predictions"]
        assert row["nearest"][0]["image_uri"] == photos.uris[6]
        assert row["nearest"][0]["labels"] == ["hugs", "bear"]
    columns = httpx.post(address, json={"inputs": {"image_bytes": [b64(photos.files[0])]}}).json()["outputs"]
    assert len(columns["nearest"][0]) == 2


@pytest.mark.parametrize("path", ["/search?count=", "/v1/models/hugs:search?count=", "/predict?nearest="])
def test_how_many_are_found_has_bounds(searching, path):
    for bad in ("0", "51", "-1", "x", "", "1e1", "٣", "9" * 40):
        response = httpx.post(f"{searching.url}{path}{bad}", content=jpeg(0))
        assert response.status_code == 400, bad
        assert "must be a whole number from 1 to 50" in response.json()["error"]
    response = httpx.post(f"{searching.url}{path}1&image_sha256=../../etc/passwd", content=jpeg(0))
    assert response.status_code == 400 and "64 hexadecimal digits" in response.json()["error"]


def test_what_cannot_be_searched_with_is_refused_as_elsewhere(searching):
    response = httpx.post(f"{searching.url}/search", content=b"<html>")
    assert (response.status_code, response.json()["reason"]) == (415, "not_an_image")
    assert httpx.post(f"{searching.url}/predict?nearest=3", content=b"<html>").status_code == 415
    assert httpx.get(f"{searching.url}/search").status_code == 405
    assert httpx.post(f"{searching.url}/v1/models/other:search", json={"instances": [1]}).status_code == 404
    body = {"signature_name": "embeddings", "instances": [[1.0]]}
    assert httpx.post(f"{searching.url}/v1/models/hugs:search", json=body).status_code == 400
    admission = searching.server.served.admission
    with admission.images_in_flight(admission.max_images):
        response = httpx.post(f"{searching.url}/search", content=jpeg(0))
    assert response.status_code == 429 and "Retry-After" in response.headers


def test_a_server_without_search_says_so(server):
    assert httpx.post(f"{server.url}/search", content=jpeg(0)).status_code == 404
    assert httpx.post(f"{server.url}/v1/models/hugs:search", json={}).status_code == 400
    assert httpx.get(f"{server.url}/page/settings.json").json()["search"] is None
    answer = httpx.post(f"{server.url}/predict?nearest=3", content=jpeg(0)).json()
    assert answer["predictions"] and answer["nearest"] is None
    assert answer["nearest_error"] == "This server does not search: it was started without --search."


def test_thumbnails_are_small_pictures_of_the_files_that_were_embedded(searching, photos, web_host):
    found = {near["image_uri"]: near["photo"] for near in search(searching, photos.files[0])}
    assert len(found) == 8
    statuses = []
    for uri in photos.uris:
        response = httpx.get(f"{searching.url}/{found[uri]}", timeout=30)
        statuses.append(response.status_code)
        if response.status_code == 200:
            assert response.headers["content-type"] == "image/jpeg"
            assert response.headers["cache-control"].startswith("private")
            assert Image.open(io.BytesIO(response.content)).size == (256, 256)
        else:
            assert response.json()["reason"] == "no_photo"
    assert statuses == [404 if row in (GONE, REPLACED, WEB) else 200 for row in range(8)]
    assert not web_host[1]  # A request never makes the server ask another host.


def test_no_path_of_a_request_is_opened(searching, photos):
    good = search(searching, photos.files[0], "?count=1")[0]["photo"]
    tag = good.split("/")[2]
    for tail in (
        f"{tag}/8",
        f"{tag}/999999999999",
        f"{tag}/-1",
        f"{tag}/+0",
        f"{tag}/0.0",
        f"{tag}/٠",
        f"{tag}/..%2f..%2fetc%2fpasswd",
        f"{tag}/%2fetc%2fpasswd",
        f"{tag}/0/../../etc/passwd",
        f"{tag}/http:%2f%2f127.0.0.1",
        "0123456789ab/0",
        "../0",
        "/etc/passwd",
    ):
        assert httpx.get(f"{searching.url}/search/photos/{tail}").status_code == 404, tail
    assert httpx.get(f"{searching.url}/{good}").status_code == 200


def test_sets_of_another_network_are_refused_at_start(model_dir, photos, tmp_path):
    from serving.serve import make_server
    from tests.support.serving import running_server
    from trainer.export.classifier import read_model_info

    ours = read_model_info(model_dir).backbone
    others = {
        "other": ({"architecture": "inception_v3"}, "the network is tiny against inception_v3."),
        "weights": ({"weights_digest": "sha256:1", "seed": 1}, "tiny with RANDOM weights (seed 0) against tiny with"),
        "image": ({"image_definition": "upright-square/1"}, f"{ours.image_definition} against upright-square/1."),
    }
    for name, (changes, words) in others.items():
        identity = dataclasses.replace(ours, **changes)
        rows = np.eye(24, dtype=np.float32)[:3]
        prefix = write_record_set(str(tmp_path / name), rows, [[0]] * 3, identity=identity)
        with (
            pytest.raises(InputError, match=r"--search: the model in .* have different networks: ") as refused,
            running_server(model_dir=(model_dir,), search=(prefix,)),
        ):
            pass
        assert words in str(refused.value)
    smaller = dataclasses.replace(ours, embedding_size=3, image_definition=ours.image_definition)
    prefix = write_record_set(str(tmp_path / "size"), np.eye(3, dtype=np.float32), [[0]] * 3, identity=smaller)
    options = {"model_dir": (model_dir,), "engine": "tensorflow", "precision": "float32"}
    from serving.options import ServeOptions

    with pytest.raises(InputError, match="the embedding size is 24 against 3"):
        make_server(ServeOptions(**options, search=(prefix,)), None)
    with pytest.raises(InputError, match=r"come from different backbones"):
        make_server(ServeOptions(**options, search=(prefix, photos.prefix)), None)
    unknown = dataclasses.replace(ours, weights_digest="unverified")
    prefix = write_record_set(str(tmp_path / "unknown"), rows, [[0]] * 3, identity=unknown)
    with pytest.raises(InputError, match="--search: nothing says which network made the records"):
        make_server(ServeOptions(**options, search=(prefix,)), None)
    from serving import serve

    flags = ["--model_dir", model_dir, "--port", "0", "--search"]
    with pytest.raises(InputError, match="--search: no such record set or file"):
        serve.main([*flags, str(tmp_path / "none")])
    with pytest.raises(InputError, match="--search: .* is a folder. Name a set in it"):
        serve.main([*flags, str(tmp_path)])
    with pytest.raises(InputError, match="--search_index: the folder .* holds .* and no index"):
        serve.main([*flags, photos.prefix, "--search_index", os.path.dirname(photos.prefix)])


def test_the_index_is_kept_extended_and_said(model_dir, photos, tmp_path, caplog):
    from serving.options import ServeOptions
    from serving.serve import make_server

    folder = tmp_path / "index"
    more = write_searched_photos(tmp_path, model_dir, web_uri="https://nowhere/5.jpg", name="eval")
    options = {"model_dir": (model_dir,), "engine": "tensorflow", "precision": "float32", "search_index": str(folder)}

    def start(*search):
        caplog.clear()
        with caplog.at_level("INFO", logger="serving"):
            make_server(ServeOptions(**options, search=search), None)
        return next(record.getMessage() for record in caplog.records if "search:" in record.getMessage())

    assert start(photos.prefix) == f"search: index: made, 8 photos, in {folder}; a search compares all of them"
    assert "index: read, 8 photos" in start(photos.prefix)
    assert "index: extended, 16 photos" in start(photos.prefix, more.prefix)
    assert len(os.listdir(folder)) == 3
    (tmp_path / "file").write_text("")
    options["search_index"] = str(tmp_path / "file")
    with pytest.raises(InputError, match="--search_index: .* is a file"):
        make_server(ServeOptions(**options, search=(photos.prefix,)), None)


def test_a_new_version_with_another_network_answers_without_similar_photos(model_dir, photos, tmp_path, caplog):
    from tests.support.serving import export_tiny_model, running_server

    shutil.copytree(model_dir, tmp_path / "1")
    with running_server(model_dir=(str(tmp_path),), search=(photos.prefix,)) as running:
        assert httpx.get(f"{running.url}/page/settings.json").json()["search"] == {"photos": 8, "count": 8}
        export_tiny_model(str(tmp_path / "new"), backbone_seed=1)
        os.rename(tmp_path / "new", tmp_path / "2")
        model = running.server.served.models.all[0]
        with caplog.at_level("WARNING", logger="serving"):
            asyncio.run(model.refresh())
        assert "no similar photos are found with version 2" in caplog.text
        answer = httpx.post(f"{running.url}/predict?nearest=3", content=photos.files[0]).json()
        assert answer["predictions"] and answer["nearest"] is None
        assert "another network" in answer["nearest_error"]
        refused = httpx.post(f"{running.url}/search", content=photos.files[0])
        assert (refused.status_code, refused.json()["reason"]) == (400, "other_network")
        assert httpx.get(f"{running.url}/page/settings.json").json()["search"] is None
        body = {"instances": [b64(photos.files[0])]}
        old = httpx.post(f"{running.url}/v1/models/hugs/versions/1:search", json=body)
        assert old.json()["predictions"][0]["nearest"][0]["same_file"]


class CountingFinder:
    """Finds a photo for every URI but one, and counts how often it is asked."""

    def __init__(self):
        self.asked = []
        self.go_on = threading.Event()

    def read(self, uri, digest):
        self.asked.append(uri)
        self.go_on.wait(20)
        return None if uri == "gone" else (uri, jpeg(0))


def test_a_thumbnail_is_made_once_and_few_bytes_are_kept():
    from insight.index.near_photo import NearPhoto
    from serving.metrics import Metrics
    from serving.search.thumbnails import Thumbnails

    def photo(row, uri):
        return NearPhoto(similarity=1, uri=uri, labels=(), set_number=0, digest=None, row=row)

    async def ask():
        finder = CountingFinder()
        together = asyncio.gather(*(thumbnails_of(finder).get(photo(0, "a")) for _ in range(5)))
        await asyncio.sleep(0)
        finder.go_on.set()
        pictures = await together
        assert len(set(pictures)) == 1 and finder.asked == ["a"]
        thumbnails = made[id(finder)]
        assert await thumbnails.get(photo(1, "gone")) is None
        assert await thumbnails.get(photo(1, "gone")) is None
        assert finder.asked == ["a", "gone"]
        for row in range(2, 6):  # There is room for two.
            await thumbnails.get(photo(row, str(row)))
        await thumbnails.get(photo(5, "5"))
        await thumbnails.get(photo(0, "a"))
        assert finder.asked == ["a", "gone", "2", "3", "4", "5", "a"]

    made = {}

    def thumbnails_of(finder):
        size = 2 * len_of_one + 10
        return made.setdefault(id(finder), Thumbnails([finder], Metrics(), kept_bytes=size))

    from trainer.data.photos import decode_photo, encode_jpeg

    len_of_one = len(encode_jpeg(decode_photo(jpeg(0), size=256), side=256))
    asyncio.run(ask())


def test_the_server_is_alive_and_not_ready_while_it_loads():
    from serving.loading import answering
    from serving.options import ServeOptions
    from serving.serve import _plain_server

    options = ServeOptions(model_dir=("m",))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        transport = httpx.HTTPTransport(retries=20)
        with answering(listener, lambda app: _plain_server(app, options)), httpx.Client(transport=transport) as client:
            assert client.get(f"{url}/healthz").json() == {"status": "ok"}
            for method, path in (("GET", "/readyz"), ("GET", "/"), ("POST", "/predict"), ("POST", "/search")):
                response = client.request(method, f"{url}{path}")
                assert (response.status_code, response.json()["reason"]) == (503, "loading")
                assert response.headers["retry-after"] == "5"
        # The next server answers who comes now.
        with socket.create_connection(("127.0.0.1", listener.getsockname()[1]), timeout=5):
            pass


def test_sigterm_ends_what_loads_as_ctrl_c_does():
    code = """
import os, signal, socket, time
from serving.loading import answering
from serving.options import ServeOptions
from serving.serve import _plain_server

options = ServeOptions(model_dir=("m",))
with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    try:
        with answering(listener, lambda app: _plain_server(app, options)):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
    except KeyboardInterrupt:
        print("what is half made is removed", flush=True)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
"""
    assert end_program(start_program(["-c", code])) == ("what is half made is removed\n", "")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--search_index", "a"], "--search_index: belongs to --search, and none is given"),
        (["--photo_dirs", "a"], "--photo_dirs: belongs to --search, and none is given"),
        (["--search", "a", "--search_index", "gs://b/c"], "--search_index: must be a folder of this machine"),
        (["--search", "ftp://a"], "opens local paths"),
        (["--search", " ,"], "--search: names nothing"),
        (["--search", "a", "--photo_dirs", ","], "--photo_dirs: names nothing"),
    ],
)
def test_wrong_flags(flags, words):
    from serving.options import parse_options

    with pytest.raises(InputError, match=words):
        parse_options(["--model_dir", "m", *flags], {})
    parsed = parse_options(["--model_dir", "m", "--search", "a,b", "--search", "c"], {})
    assert parsed.search == ("a", "b", "c")


def test_the_labels_of_the_set_need_not_be_those_of_the_model(searching, photos):
    assert LABELS[2] == "bear"
    settings = httpx.get(f"{searching.url}/page/settings.json").json()
    assert "bear" not in {label["name"] for label in settings["labels"]}
    assert json.dumps(search(searching, photos.files[2], "?count=1")).count("bear") == 1
