"""int8 in the server: the images that it is calibrated on."""

from __future__ import annotations

import numpy as np
import pytest

from configs.errors import InputError
from pipelines.checks.preflight import scan_lists
from preprocess.backbones.backbone import BackboneSpec
from preprocess.beam.image_source import ImageSource
from preprocess.beam.transforms import EngineLoader
from preprocess.engines.int8 import CALIBRATION_IMAGES
from preprocess.engines.select import EngineSpec
from preprocess.lists.labels import LabelDict
from preprocess.storage.router import UriStorage
from serving import calibration, loaded_model
from serving.options import ServeOptions
from tests.support.photos import write_photos
from trainer.export.classifier import read_model_info


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path, 24, side=40, broken={5}, missing={7})


def test_the_list_of_the_training_gives_the_images_that_embed_took(photos, model_dir, monkeypatch):
    info = read_model_info(model_dir)
    monkeypatch.setattr(calibration, "CALIBRATION_IMAGES", 12)
    labels = LabelDict(info.labels, optional=True)
    path = str(photos / "train.csv")
    scanned = scan_lists([path], labels=labels, unknown_labels="unlabeled", storage=UriStorage(), sample_size=12)
    loader = EngineLoader(
        backbone=BackboneSpec.of_identity(info.backbone),
        engine=EngineSpec(precision="int8"),
        calibration=scanned.sample,
        images=ImageSource(size=info.image.size),
    )
    found = calibration.calibration_pixels([path], info)
    assert 10 <= len(found) <= 12 < CALIBRATION_IMAGES
    np.testing.assert_array_equal(found, loader._calibration_pixels())


def test_the_server_calibrates_on_the_photos_that_are_named(photos, model_dir, monkeypatch):
    asked = []

    def load_engine(spec, engine, pixels):
        asked.append((engine, pixels()))
        raise InputError("precision: enough")

    monkeypatch.setattr(loaded_model, "load_engine", load_engine)
    for named in (photos, photos / "*.png"):
        options = ServeOptions(model_dir=(model_dir,), precision="int8", calibrate_with=(str(named),))
        with pytest.raises(InputError, match="precision: enough"):
            loaded_model.load_model(model_dir, options)
    (engine, first), (_, second) = asked
    assert engine == EngineSpec(engine="auto", precision="int8")
    assert first.shape == (22, 299, 299, 3)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("name", "words"),
    [("none/*.jpg", "--calibrate_with: nothing matches"), ("none.csv", "--calibrate_with: there is no file or folder")],
)
def test_what_is_not_there_is_one_line(name, words, model_dir, tmp_path):
    options = ServeOptions(model_dir=(model_dir,), precision="int8", calibrate_with=(str(tmp_path / name),))
    with pytest.raises(InputError, match=words) as caught:
        loaded_model.load_model(model_dir, options)
    assert "\n" not in str(caught.value)
