import functools

import numpy as np
import pytest

from configs.errors import InputError
from preprocess.backbones import weights_files
from preprocess.backbones.backbone import BackboneSpec, check_weights, load_keras_backbone


@pytest.fixture(scope="module")
def loaded():
    return load_keras_backbone(BackboneSpec(weights="random", seed=0))


def test_random_weights_are_the_same_network_everywhere(loaded):
    # Drawn with a stream that NumPy has frozen: if this digest changes, every set made with a seed is orphaned.
    _, identity = loaded
    assert identity.weights_digest == "sha256:85f580a61e6ca5fc313c52c41fe76a1ea78a8c89f6106f4ab72395ff2fe0f733"
    assert identity.is_random
    assert identity.seed == 0
    assert identity.embedding_size == 2048


def test_embeddings_have_a_sane_scale_and_tell_images_apart(loaded):
    model, _ = loaded
    images = np.random.RandomState(0).uniform(-1, 1, (2, 299, 299, 3)).astype(np.float32)
    images[1] = (images[1] - 1) / 2
    embeddings = model(images, training=False).numpy()
    assert embeddings.shape == (2, 2048)
    assert embeddings.dtype == np.float32
    assert 0.01 < embeddings.std() < 100
    assert np.abs(embeddings[0] - embeddings[1]).max() > 1e-3


def test_weights_files_keep_the_network(tmp_path):
    # A smaller network than that of the other tests: it is built three times.
    small = functools.partial(BackboneSpec, architecture="mobilenet_0.25_128")
    model, identity = load_keras_backbone(small(weights="random", seed=1))
    assert not identity.agrees_with(load_keras_backbone(small(weights="random"))[1])
    for name in ("w.weights.h5", "w.keras"):
        path = str(tmp_path / name)
        model.save(path) if name.endswith(".keras") else model.save_weights(path)
        _, from_file = load_keras_backbone(small(weights=path))
        assert from_file.agrees_with(identity)
        assert (from_file.weights, from_file.is_random, from_file.seed) == (path, False, None)


def test_a_file_that_is_no_weights_says_so(tmp_path):
    path = tmp_path / "w.h5"
    path.write_bytes(b"not weights")
    with pytest.raises(InputError, match="does not fit the network") as error:
        load_keras_backbone(BackboneSpec(architecture="mobilenet_0.25_128", weights=str(path)))
    assert "\n" not in str(error.value)


def test_what_can_be_wrong_with_a_spec():
    with pytest.raises(InputError, match="Did you mean 'inception_v3'"):
        BackboneSpec(architecture="inception_v4")
    with pytest.raises(InputError, match="seed: must be from 0"):
        BackboneSpec(seed=-1)
    with pytest.raises(InputError, match="no such file: 'nowhere.h5'"):
        check_weights(BackboneSpec(weights="nowhere.h5"))


def test_without_a_network_imagenet_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))

    def unreachable(*args, **kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr(weights_files.urllib.request, "urlopen", unreachable)
    with pytest.raises(InputError) as error:
        check_weights(BackboneSpec())
    message = str(error.value)
    assert "--weights random" in message
    assert "--weights FILE" in message
    assert str(tmp_path) in message


def test_cached_imagenet_weights_need_no_network(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5").write_bytes(b"x")
    monkeypatch.setattr(weights_files.urllib.request, "urlopen", lambda *args, **kwargs: pytest.fail("asked"))
    check_weights(BackboneSpec())
