import re

import pytest

from configs.errors import InputError
from preprocess.backbones import weights_files
from preprocess.backbones.architectures import ARCHITECTURES
from preprocess.backbones.backbone import BackboneSpec, check_weights, load_keras_backbone
from preprocess.backbones.weights_files import PackagedFile, PublishedFile
from preprocess.engines.converted_networks import load_network
from preprocess.engines.model_cache import ModelCache


def test_the_table():
    assert next(iter(ARCHITECTURES)) == BackboneSpec().architecture == "inception_v3"
    assert {
        f"mobilenet_{width}_{size}" for width in ("0.25", "0.50", "0.75", "1.0") for size in (128, 160, 192, 224)
    } <= (set(ARCHITECTURES))
    urls = set()
    for name, architecture in ARCHITECTURES.items():
        assert re.fullmatch(r"[a-z0-9_.]+", name)
        for file in (architecture.imagenet, architecture.imagenet_classes):
            assert (file is not None and file.digest is None) or re.fullmatch(r"[0-9a-f]{32}|[0-9a-f]{64}", file.digest)
            if isinstance(file, PublishedFile):
                urls.add(file.url)
    assert len(urls) == 2 * (len(ARCHITECTURES) - 3)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("mobilenet_0.25_128", "mobilenet"),
        ("mobilenet_1.0_224", "mobilenet"),
        ("mobilenet_v2_0.35_224", "mobilenet_v2"),
        ("mobilenet_v3_small_0.75", "mobilenet_v3"),
    ],
)
def test_weights_are_those_that_keras_would_fetch(name, module, monkeypatch):
    import importlib

    asked = {}

    class Asked(Exception):
        pass

    def get_file(fname, origin, file_hash=None, **options):
        asked.update(cached=fname, url=origin, digest=file_hash)
        raise Asked

    utils = importlib.import_module(f"keras.src.applications.{module}").file_utils
    monkeypatch.setattr(utils, "get_file", get_file)
    architecture = ARCHITECTURES[name]
    function, size = architecture.build.args
    options = {key: value for key, value in architecture.build.keywords.items() if key != "classes"}
    import keras

    with pytest.raises(Asked):
        getattr(keras.applications, function)(
            weights="imagenet", include_top=False, pooling="avg", input_shape=(size, size, 3), **options
        )
    file = architecture.imagenet
    assert asked == {"cached": file.name, "url": file.url, "digest": file.digest}


def test_a_network_of_keras_with_random_weights():
    model, identity = load_keras_backbone(BackboneSpec(architecture="mobilenet_0.25_128", weights="random"))
    assert (identity.embedding_size, identity.image_definition) == (256, "upright-rgb-128-bilinear/2")
    assert model.input_shape == (None, 128, 128, 3)
    again = load_keras_backbone(BackboneSpec(architecture="mobilenet_0.25_128", weights="random"))[1]
    assert again == identity
    other = load_keras_backbone(BackboneSpec(architecture="mobilenet_0.25_128", weights="random", seed=1))[1]
    assert not other.agrees_with(identity)


def test_weights_without_a_published_digest_are_told_apart_by_their_content(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("HUGS_CACHE_DIR", str(tmp_path / "cache"))
    spec = BackboneSpec(architecture="mobilenet_0.25_128")
    file = ARCHITECTURES[spec.architecture].imagenet
    assert file.digest is None
    (tmp_path / "keras/models").mkdir(parents=True)
    digests = []
    for seed in (0, 1):
        model, _ = load_keras_backbone(BackboneSpec(architecture=spec.architecture, weights="random", seed=seed))
        model.save_weights(tmp_path / "w.weights.h5")
        (tmp_path / "w.weights.h5").rename(tmp_path / "w.h5")
        monkeypatch.setattr(
            "preprocess.backbones.backbone._load_file",
            lambda network, *_, model=model: network.set_weights(model.get_weights()),
        )
        (tmp_path / "w.h5").rename(file.cache_path)
        digests.append(load_network(spec, ModelCache()).graph_sha256)
    assert digests[0] != digests[1]


def test_packaged_weights_are_checked(tmp_path, monkeypatch):
    lite = ARCHITECTURES["efficientnet_lite0"].imagenet
    assert isinstance(lite, PackagedFile) and lite.find(), "run `make setup`"
    assert lite.fetch() == lite.find()
    missing = PackagedFile(distribution="no-such-package", package="no_such_package", path="x", sha256="0" * 64)
    with pytest.raises(InputError, match="no-such-package, which is not installed. Install"):
        missing.fetch()
    (tmp_path / "packaged_here").mkdir()
    (tmp_path / "packaged_here" / "w.pth").write_bytes(b"x")
    monkeypatch.syspath_prepend(tmp_path)
    damaged = PackagedFile(distribution="d", package="packaged_here", path="w.pth", sha256="0" * 64)
    with pytest.raises(InputError, match="is damaged or was replaced"):
        damaged.fetch()


def test_without_a_network_a_message_names_what_is_installed(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))

    def unreachable(*args, **kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr(weights_files.urllib.request, "urlopen", unreachable)
    with pytest.raises(InputError, match="--backbone efficientnet_lite0, whose weights are installed"):
        check_weights(BackboneSpec(architecture="convnext_tiny"))
    check_weights(BackboneSpec(architecture="efficientnet_lite0"))
