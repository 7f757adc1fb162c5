"""Weights on their way to workers: staged once, read back checked, and never fetched by a worker."""

import dataclasses
import hashlib
import os
import pathlib

import pytest

from configs.errors import InputError
from preprocess.backbones import backbone, weights_files
from preprocess.backbones.backbone import BackboneSpec, check_weights, load_keras_backbone
from preprocess.backbones.staged_weights import stage_weights
from preprocess.backbones.weights_files import PublishedFile, StagedFile
from preprocess.engines.converted_networks import load_network
from preprocess.engines.model_cache import ModelCache
from preprocess.storage.base import LocalStorage
from preprocess.storage.router import UriStorage
from tests.support import tiny_network


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The tiny network's trained weights in a file, and their identity."""
    with pytest.MonkeyPatch.context() as patch:
        tiny_network.install(patch)
        model, _ = load_keras_backbone(BackboneSpec(architecture=tiny_network.NAME, weights="random"))
        path = str(tmp_path_factory.mktemp("weights") / "tiny.weights.h5")
        tiny_network.trained(model).save_weights(path)
        return path, load_keras_backbone(BackboneSpec(architecture=tiny_network.NAME, weights=path))[1]


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No Keras cache, no network."""
    tiny_network.install(monkeypatch)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))

    def unreachable(*args, **kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr(weights_files.urllib.request, "urlopen", unreachable)


@pytest.fixture
def published(monkeypatch, weights, tmp_path):
    """The file as the network's ImageNet weights, in Keras' cache."""
    data = pathlib.Path(weights[0]).read_bytes()
    file = PublishedFile(url="https://nowhere/tiny.weights.h5", digest=hashlib.md5(data).hexdigest())
    tiny = dataclasses.replace(backbone.ARCHITECTURES[tiny_network.NAME], imagenet=file)
    monkeypatch.setitem(backbone.ARCHITECTURES, tiny_network.NAME, tiny)
    (tmp_path / "keras/models").mkdir(parents=True)
    pathlib.Path(file.cache_path).write_bytes(data)
    return file


@pytest.fixture
def staging(request, tmp_path):
    """A folder to stage in, its storage, and the names in it."""
    if request.param == "local":
        folder = tmp_path / "staging"
        yield str(folder), LocalStorage(), lambda: sorted(os.listdir(folder))
        return
    pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")
    from tests.support.faulty_gcs import FaultyGcs

    with FaultyGcs(buckets=["bucket"]) as gcs, pytest.MonkeyPatch.context() as patch:
        for name, value in gcs.environment.items():
            patch.setenv(name, value)
        yield (
            "gs://bucket/staging",
            UriStorage(),
            lambda: [name.removeprefix("staging/") for name in gcs.names("bucket")],
        )


both = pytest.mark.parametrize("staging", ["local", "gs"], indirect=True)
local = pytest.mark.parametrize("staging", ["local"], indirect=True)


def spec_of(weights):
    return BackboneSpec(architecture=tiny_network.NAME, weights=weights)


def sha256_of(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


@both
def test_a_weights_file_reaches_a_worker_that_does_not_have_it(staging, weights, tmp_path):
    folder, storage, names = staging
    path, identity = weights
    gone = tmp_path / "mine.weights.h5"
    gone.write_bytes(pathlib.Path(path).read_bytes())
    spec = stage_weights(spec_of(str(gone)), f"{folder}/", storage)
    assert names() == [f"{sha256_of(gone)}-mine.weights.h5"]
    assert spec.staged == StagedFile(uri=f"{folder}/{names()[0]}", sha256=sha256_of(gone))
    gone.unlink()
    check_weights(spec)
    _, loaded = load_keras_backbone(spec)
    assert loaded == dataclasses.replace(identity, weights=str(gone))


@both
def test_imagenet_weights_are_read_from_where_they_are_staged(staging, weights, published):
    folder, storage, names = staging
    spec = stage_weights(spec_of("imagenet"), folder, storage)
    assert names() == [f"{sha256_of(weights[0])}-tiny.weights.h5"]
    os.remove(published.cache_path)
    _, loaded = load_keras_backbone(spec)
    assert loaded == dataclasses.replace(weights[1], weights="imagenet")


@local
def test_what_an_image_has_is_not_read_again(staging, published, tmp_path):
    folder, storage, _ = staging
    spec = stage_weights(spec_of("imagenet"), folder, storage)
    cache = ModelCache(str(tmp_path / "cache"))
    os.remove(spec.staged.uri)
    first = load_network(spec, cache)  # From Keras' cache.
    os.remove(published.cache_path)
    assert load_network(spec, cache).graph_path == first.graph_path
    # An image's own network is that of the name alone, and the same.
    assert load_network(spec_of("imagenet"), cache).graph_path == first.graph_path


@local
def test_another_file_in_keras_cache_is_not_taken_for_what_was_staged(staging, weights, published):
    folder, storage, _ = staging
    spec = stage_weights(spec_of("imagenet"), folder, storage)
    pathlib.Path(published.cache_path).write_bytes(b"cut off")
    _, loaded = load_keras_backbone(spec)
    assert loaded.agrees_with(weights[1])


@local
def test_the_second_start_of_a_worker_reads_nothing(staging, weights, tmp_path):
    folder, storage, _ = staging
    spec = stage_weights(spec_of(weights[0]), folder, storage)
    cache = ModelCache(str(tmp_path / "cache"))
    first = load_network(spec, cache)
    os.remove(spec.staged.uri)
    assert load_network(spec, cache).graph_path == first.graph_path
    # Where the launcher runs the network as well, it is the same entry.
    assert load_network(spec_of(weights[0]), cache).graph_path == first.graph_path


@both
def test_a_file_is_staged_once(staging, weights, monkeypatch):
    folder, storage, names = staging
    first = stage_weights(spec_of(weights[0]), folder, storage)
    monkeypatch.setattr(storage, "create", lambda path: pytest.fail("written again"))
    assert stage_weights(spec_of(weights[0]), folder, storage) == first
    assert len(names()) == 1


@both
def test_a_damaged_or_missing_object_is_one_line(staging, weights):
    folder, storage, _ = staging
    spec = stage_weights(spec_of(weights[0]), folder, storage)
    with storage.create(spec.staged.uri) as stream:
        stream.write(b"something else")
    with pytest.raises(InputError, match="is damaged or was replaced") as error:
        load_keras_backbone(spec)
    assert spec.staged.uri in str(error.value)
    assert "\n" not in str(error.value)
    storage.delete_file(spec.staged.uri)
    with pytest.raises(InputError, match="cannot be read"):
        load_keras_backbone(spec)


@pytest.mark.parametrize("staging", ["gs"], indirect=True)
def test_weights_may_lie_in_a_bucket(staging, weights):
    folder, storage, _ = staging
    uri = f"{folder}/mine.weights.h5"
    with storage.create(uri) as stream:
        stream.write(pathlib.Path(weights[0]).read_bytes())
    check_weights(spec_of(uri))
    _, loaded = load_keras_backbone(spec_of(uri))
    assert loaded == dataclasses.replace(weights[1], weights=uri)
    staged = stage_weights(spec_of(uri), folder, storage).staged
    assert staged.uri == f"{folder}/{sha256_of(weights[0])}-mine.weights.h5"
    with pytest.raises(InputError, match="no such file: 'gs://bucket/staging/other.h5'"):
        check_weights(spec_of(f"{folder}/other.h5"))
    with pytest.raises(InputError, match="No such bucket"):
        check_weights(spec_of("gs://nowhere/w.h5"))


def test_random_weights_are_not_staged(tmp_path):
    spec = BackboneSpec(weights="random")
    assert stage_weights(spec, str(tmp_path / "staging"), LocalStorage()) is spec
    assert not (tmp_path / "staging").exists()


def test_what_can_be_wrong_when_staging(weights, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="no such file: 'nowhere.h5'"):
        stage_weights(spec_of("nowhere.h5"), str(tmp_path), LocalStorage())
    with pytest.raises(InputError, match="weights: cannot be put at"):
        stage_weights(spec_of(weights[0]), str(tmp_path / "file" / "staging"), LocalStorage())
    with pytest.raises(InputError, match="local, gs:// or s3://. Received: 'az://b/w.h5'"):
        check_weights(spec_of("az://b/w.h5"))
    assert not list(tmp_path.glob("*.h5"))
