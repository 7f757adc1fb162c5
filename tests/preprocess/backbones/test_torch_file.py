"""Files of PyTorch, written here byte by byte: PyTorch is not installed, and must not be needed."""

import io
import os
import pickle
import pickletools
import struct
import zipfile

import numpy as np
import pytest

from configs.errors import InputError
from preprocess.backbones import architectures
from preprocess.backbones.backbone import BackboneSpec, load_keras_backbone
from preprocess.backbones.torch_file import UnsafePickleError, is_torch_file, read_state_dict

MAGIC = 0x1950A86A20F9469CFC6C
WEIGHT = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def tensor(key, dtype, array, strides=None, offset=0, shape=None):
    """The operations of a pickle that rebuild a tensor, as torch.save writes them."""
    kind = b"ctorch\n" + dtype.encode() + b"\n"
    storage = b"(" + text("storage") + kind + text(key) + text("cpu") + pickle_int(array.size) + b"tQ"
    shape = array.shape if shape is None else shape
    strides = [size // array.itemsize for size in array.strides] if strides is None else strides
    tuples = b"".join(b"(" + b"".join(map(pickle_int, numbers)) + b"t" for numbers in (shape, strides))
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + pickle_int(offset)
        + tuples
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )


def pickle_int(value):
    return b"J" + struct.pack("<i", value)


def state_dict(*items):
    content = b"\x80\x02ccollections\nOrderedDict\n)R("
    return content + b"".join(text(name) + value for name, value in items) + b"u."


def old_file(content, storages):
    parts = [pickle.dumps(part, 2) for part in (MAGIC, 1001, {"little_endian": True})]
    data = b"".join(struct.pack("<q", array.size) + array.tobytes() for _, array in storages)
    return b"".join([*parts, content, pickle.dumps([key for key, _ in storages], 2), data])


def new_file(content, storages):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        for key, array in storages:
            archive.writestr(f"archive/data/{key}", array.tobytes())
    return buffer.getvalue()


FORMATS = pytest.mark.parametrize("make", [old_file, new_file])


def written(path, data):
    path.write_bytes(data)
    return str(path)


@FORMATS
def test_arrays_are_read_with_their_strides(make, tmp_path):
    count = np.asarray([7], np.int64)
    content = state_dict(
        ("w", tensor("0", "FloatStorage", WEIGHT)),
        ("turned", tensor("0", "FloatStorage", WEIGHT, shape=(4, 3, 2), strides=(1, 4, 12))),
        ("part", tensor("0", "FloatStorage", WEIGHT, shape=(4,), strides=(1,), offset=8)),
        ("n", tensor("1", "LongStorage", count)),
    )
    pickletools.dis(content, out=io.StringIO())  # It is a pickle at all.
    path = written(tmp_path / "w.pth", make(content, [("0", WEIGHT), ("1", count)]))
    assert is_torch_file(path)
    found = read_state_dict(path)
    np.testing.assert_array_equal(found["w"], WEIGHT)
    np.testing.assert_array_equal(found["turned"], WEIGHT.transpose(2, 1, 0))
    np.testing.assert_array_equal(found["part"], WEIGHT.reshape(-1)[8:12])
    np.testing.assert_array_equal(found["n"], count)
    assert found["n"].dtype == np.int64


@FORMATS
@pytest.mark.parametrize(
    "call",
    [
        lambda mark: b"cposix\nsystem\n(" + text(f"touch {mark}") + b"tR",
        lambda mark: b"cbuiltins\neval\n(" + text(f"open({mark!r}, 'w')") + b"tR",
        lambda mark: b"\x8c\x08builtins\x8c\x04open\x93(" + text(mark) + text("w") + b"tR",
        lambda mark: b"ctorch._utils\n_rebuild_parameter\n(tR",
        lambda mark: b"ccollections\nCounter\n(" + text("x") + b"tR",
    ],
)
def test_a_file_that_would_run_code_is_refused_and_nothing_is_run(make, call, tmp_path):
    mark = tmp_path / "ran"
    content = state_dict(("w", tensor("0", "FloatStorage", WEIGHT)), ("x", call(str(mark))))
    path = written(tmp_path / "w.pth", make(content, [("0", WEIGHT)]))
    with pytest.raises(UnsafePickleError, match="could run code"):
        read_state_dict(path)
    assert not mark.exists()


@FORMATS
def test_numbers_outside_of_a_storage_are_not_read(make, tmp_path):
    for change in (
        {"shape": (25,), "strides": (1,)},
        {"shape": (2,), "strides": (1,), "offset": 23},
        {"shape": (2,), "strides": (-1,)},
        {"shape": (2, 2), "strides": (1,)},
    ):
        content = state_dict(("w", tensor("0", "FloatStorage", WEIGHT, **change)))
        path = written(tmp_path / "w.pth", make(content, [("0", WEIGHT)]))
        with pytest.raises(ValueError):
            read_state_dict(path)


def test_whatever_the_file_holds_the_user_reads_one_line(tmp_path):
    content = state_dict(("w", tensor("0", "FloatStorage", WEIGHT)))
    whole = old_file(content, [("0", WEIGHT)])
    system = b"\x80\x02cposix\nsystem\n(" + text("true") + b"tR."
    for data in (whole, whole[: len(whole) // 2], whole[:40], system, new_file(b"\x80\x02.", [])):
        path = written(tmp_path / "w.pth", data)
        with pytest.raises(InputError) as error:
            load_keras_backbone(BackboneSpec(architecture="mobilenet_0.25_128", weights=path))
        assert str(error.value).startswith("weights: ") and "\n" not in str(error.value)
    path = written(tmp_path / "w.pth", system)
    with pytest.raises(InputError, match=r"names posix.system, which .* could run code. Nothing of it was run"):
        load_keras_backbone(BackboneSpec(architecture="mobilenet_0.25_128", weights=path))


def test_weights_of_another_network_are_refused(tmp_path):
    other = architectures.ARCHITECTURES["efficientnet_lite1"].imagenet.find()
    assert other is not None, "run `make setup`"
    with pytest.raises(InputError, match="does not fit the network efficientnet_lite0"):
        load_keras_backbone(BackboneSpec(architecture="efficientnet_lite0", weights=other))
    with pytest.raises(InputError, match="read for EfficientNet-Lite only"):
        load_keras_backbone(BackboneSpec(architecture="mobilenet_0.25_128", weights=other))


@pytest.mark.skipif(not os.path.exists("../shared/data/flowers/photos/daisy"), reason="the shared photos are not here")
def test_efficientnet_lite_knows_daisies():
    import pathlib

    from preprocess.backbones.backbone import load_classifier
    from preprocess.images.decode import decode_image

    classifier = load_classifier(BackboneSpec(architecture="efficientnet_lite0"))
    photos = sorted(pathlib.Path("../shared/data/flowers/photos/daisy").iterdir())[:40]
    pixels = np.stack([decode_image(photo.read_bytes(), size=224) for photo in photos])
    best = np.argsort(-classifier.scores(pixels), axis=1)[:, :5]
    assert (best[:, 0] == 985).mean() >= 0.8
    assert (best == 985).any(axis=1).mean() >= 0.93
