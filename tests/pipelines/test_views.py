"""Several views of each image, from the command line to the records."""

import json

import numpy as np
import pytest

from benchmarks import numpy_views
from configs.errors import InputError
from configs.recipe import parse_recipe
from configs.view_options import VIEW_OPTIONS
from pipelines import embed, plan, preproc, why
from pipelines.checks.embed_flags import read_flags
from pipelines.diagnosis.look import Look
from pipelines.diagnosis.next_commands import command_of_definition, command_of_job_dir
from pipelines.embedding.next_step import next_steps
from preprocess.backbones.backbone import BackboneSpec, load_keras_backbone
from preprocess.beam.image_source import ImageSource
from preprocess.beam.transforms import EngineLoader
from preprocess.engines.select import EngineSpec
from preprocess.records.example import decode_example
from preprocess.records.record_set import Manifest
from preprocess.records.tfrecord import whole_records
from preprocess.records.views import Views
from preprocess.storage.base import LocalStorage
from tests.pipelines.test_embed import photo
from tests.support import tiny_network
from tests.support.slow_job import SlowEngine
from tests.test_written_pages import Fields, paths_in

VIEWS = Views(count=3, flip_left_right=True, random_crop=10.0, random_scale=20.0, random_brightness=30.0)
FLAGS = ["--views", "3", "--flip_left_right", "--random_crop", "10", "--random_scale", "20", "--random_brightness"]
FLAGS += ["30"]
WEIGHTS = ["--weights", "random"]
IMAGES = 11


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "dict.txt").write_text("daisy\nrose\n")
    for number in range(IMAGES):
        photo(tmp_path / f"photos/{number}.png", seed=number, size=(50 + number, 40), image_format="PNG")
    rows = [f"photos/{number}.png,{'rose' if number % 3 else 'daisy'}\n" for number in range(IMAGES)]
    (tmp_path / "train.csv").write_text("".join(rows))
    (tmp_path / "backwards.csv").write_text("".join(reversed(rows)))
    return tmp_path


class PowerFails(RuntimeError):
    pass


class Engine(SlowEngine):
    limit = 10**6

    def embed(self, pixels):
        if sum(self.batches) >= self.limit:
            raise PowerFails
        self.batches.append(len(pixels))
        return super().embed(pixels)


@pytest.fixture
def use_engine(monkeypatch):
    def use(limit=10**6):
        engine = Engine(0)
        engine.limit = limit
        monkeypatch.setattr(EngineLoader, "__call__", lambda self: engine)
        return engine

    use()
    return use


def run(folder, *flags, name="train", to="out"):
    paths = ["--input_path", f"{folder}/{name}.csv", "--input_dict", f"{folder}/dict.txt"]
    return embed.main([*paths, "--output_path", f"{folder}/{to}/train", "--rows_per_shard", "6", *WEIGHTS, *flags])


def report_of(folder, to="out"):
    return json.loads((folder / to / "_train/report.json").read_text())


def shards(folder, to="out"):
    return {path.name: path.read_bytes() for path in (folder / to).glob("train-*")}


def records(folder, to="out"):
    found = [decode_example(data) for shard in shards(folder, to).values() for data in whole_records(shard)]
    return {record.image_uri: record for record in found}


def test_a_record_holds_the_image_as_without_views_and_views_of_the_formulas(folder, monkeypatch):
    tiny_network.install(monkeypatch)
    network = ["--backbone", "tiny", "--precision", "float32"]
    assert run(folder, *network, *FLAGS) == 0
    assert run(folder, *network, to="plain") == 0
    with_views, plain = records(folder), records(folder, "plain")
    assert len(with_views) == IMAGES
    model, _ = load_keras_backbone(BackboneSpec(architecture="tiny", weights="random", seed=0))
    for uri, record in with_views.items():
        assert record.embedding.tobytes() == plain[uri].embedding.tobytes()
        assert plain[uri].view_embeddings is None
        assert record.view_embeddings.shape == (2, 24)
        data = (folder / uri).read_bytes()
        whole = photo_pixels(folder / uri)
        for view, found in enumerate(record.view_embeddings, start=1):
            pixels, brightness = numpy_views.view_of(whole, data, view, VIEWS, size=299)
            expected = model(pixels[None].astype(np.float32) * np.float32(brightness) / 127.5 - 1).numpy()[0]
            # The pixels are rounded before they are embedded.
            np.testing.assert_allclose(found, expected, atol=0.01 * np.abs(expected).max())
            assert np.abs(found - record.embedding).max() > 0.02 * np.abs(expected).max()
    manifest, without = (
        Manifest.from_bytes((folder / to / "_train/manifest.json").read_bytes(), where="m") for to in ("out", "plain")
    )
    assert (manifest.views, without.views) == (VIEWS, None)
    assert (report_of(folder)["views"], report_of(folder, "plain")["views"]) == (3, 1)
    check_formats_page(folder)
    assert report_of(folder)["job_key"] != report_of(folder, "plain")["job_key"]
    assert "views" not in report_of(folder, "plain")["definition"]


def check_formats_page(folder):
    """docs/formats.md lists what only sets with views have."""
    import tensorflow as tf

    written = json.loads((folder / "out/_train/manifest.json").read_text())
    fields = Fields("manifest.json")
    listed = {path for path in fields.leaves if path.startswith("views.")}
    assert {path for path in paths_in(written, fields) if path.startswith("views")} == listed
    (first, *_) = whole_records(next(iter(shards(folder).values())))
    assert set(tf.train.Example.FromString(first).features.feature) == set(Fields("The records").types)


def photo_pixels(path):
    from PIL import Image

    return np.array(Image.open(path).convert("RGB"))


def test_a_view_is_the_same_in_every_order_and_read_and_decoded_once(folder, use_engine, monkeypatch):
    from preprocess.beam.image_source import ImageReader

    read = []
    real = ImageReader.__call__
    monkeypatch.setattr(ImageReader, "__call__", lambda self, location: read.append(location) or real(self, location))
    assert run(folder, *FLAGS) == 0
    assert len(read) == len(set(read)) == IMAGES
    assert run(folder, *FLAGS, name="backwards", to="backwards") == 0
    one, other = records(folder), records(folder, "backwards")
    for uri, record in one.items():
        assert record.embeddings.tobytes() == other[uri].embeddings.tobytes()
    assert list(one) == list(reversed(other))


@pytest.mark.parametrize(("limit", "compression"), [(1, "none"), (9, "gzip"), (19, "none")])
def test_a_job_that_was_stopped_goes_on_to_the_same_bytes(folder, use_engine, limit, compression):
    flags = [*FLAGS, "--compression", compression, "--batch_size", "2"]
    assert run(folder, *flags, to="undisturbed") == 0
    use_engine(limit=limit)
    with pytest.raises(Exception, match="PowerFails"):
        run(folder, *flags)
    engine = use_engine()
    assert run(folder, *flags) == 0
    assert shards(folder) == shards(folder, "undisturbed")
    assert sum(engine.batches) <= 3 * IMAGES
    assert sum(report_of(folder)["embedded_by"].values()) == IMAGES
    if limit == 19:
        # Batches of several images run at once, so it is chance how many of them are whole by then; one is.
        assert report_of(folder)["embedded_by"]["earlier_run"] >= 2


def test_failed_rows_are_tried_again_with_all_views(folder, use_engine):
    (folder / "photos/4.png").rename(folder / "4.png")
    assert run(folder, *FLAGS) == 0
    assert report_of(folder)["failed"] == {"not_found": 1}
    (folder / "4.png").rename(folder / "photos/4.png")
    assert run(folder, *FLAGS, "--retry_failures") == 0
    assert report_of(folder)["embedded_by"] == {"earlier_run": IMAGES - 1, "computed": 1}
    assert run(folder, *FLAGS, to="undisturbed") == 0
    assert shards(folder) == shards(folder, "undisturbed")


def test_int8_is_calibrated_on_the_images_as_they_are(folder):
    paths = tuple(str(path) for path in sorted((folder / "photos").iterdir()))
    spec = BackboneSpec(architecture="inception_v3", weights="random")
    images = ImageSource(size=32, views=VIEWS)
    loaders = [
        EngineLoader(backbone=spec, engine=EngineSpec(), calibration=paths, images=one)
        for one in (images, images.without_views)
    ]
    with_views, plain = (loader._calibration_pixels() for loader in loaders)
    np.testing.assert_array_equal(with_views, plain)
    assert plain.shape == (IMAGES, 32, 32, 3)


def test_the_cache_keeps_all_views_and_tells_other_views_apart(folder, use_engine):
    cache = ["--embedding_cache", f"{folder}/cache"]
    assert run(folder, *FLAGS, *cache) == 0
    assert run(folder, *FLAGS, *cache, to="again") == 0
    assert report_of(folder, "again")["embedded_by"] == {"cache": IMAGES}
    assert shards(folder, "again") == shards(folder)
    others = ([], [*FLAGS, "--views", "4"], [*FLAGS, "--random_crop", "11"])
    for number, flags in enumerate(others):
        assert run(folder, *flags, *cache, to=f"other{number}") == 0
        assert report_of(folder, f"other{number}")["embedded_by"] == {"computed": IMAGES}


def test_other_views_are_another_job_and_the_same_in_other_words_are_not(folder, use_engine, capsys):
    assert run(folder, *FLAGS) == 0
    for change in ([], [*FLAGS, "--views", "2"], [*FLAGS, "--random_brightness", "31"]):
        with pytest.raises(InputError, match=r"views|random_brightness"):
            run(folder, *change)
    recipe = folder / "my.yaml"
    words = "views: 3, flip_left_right: true, random_crop: 10, random_scale: 20, random_brightness: 30"
    recipe.write_text(f"preprocess: {{{words}}}\n")
    capsys.readouterr()
    assert run(folder, "--recipe", str(recipe)) == 0
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--views", "2"], "--views says 2, but nothing makes 2 views differ"),
        (["--views", "3", "--random_crop", "0"], "nothing makes 3 views differ"),
        (["--flip_left_right"], "--flip_left_right is only for further views"),
        (["--views", "1", "--random_scale", "5"], "--random_scale is only for further views"),
        (["--views", "0", "--flip_left_right"], "--views must be a whole number from 1 to 32"),
        (["--views", "33", "--flip_left_right"], "--views must be a whole number from 1 to 32"),
        (["--views", "2", "--random_crop", "100"], "--random_crop must be a number from 0 to 99"),
        (["--views", "2", "--random_brightness", "nan"], "--random_brightness must be a number from 0 to 99"),
        (["--views", "2", "--random_brightness", "5", "--precision", "int8"], "255, which int8 cuts off"),
    ],
)
def test_wrong_views_are_one_line(flags, words):
    with pytest.raises(InputError) as caught:
        read_flags(["--input_path", "l", "--input_dict", "d", "--output_path", "o", *flags])
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_views_in_a_recipe_name_the_file_the_line_and_the_field():
    with pytest.raises(InputError, match=r"my\.yaml, line 3: preprocess\.views says 4, but nothing"):
        parse_recipe(b"name: my\npreprocess:\n  views: 4\n", where="my.yaml", default_name="my")


RECIPE = "preprocess: {views: 4, flip_left_right: true, random_crop: 10}\n"


@pytest.mark.parametrize(
    ("recipe", "flags", "of_train", "of_eval"),
    [
        (RECIPE, [], Views(count=4, flip_left_right=True, random_crop=10.0), None),
        (RECIPE, ["--views", "2"], Views(count=2, flip_left_right=True, random_crop=10.0), None),
        (RECIPE, ["--views=1"], None, None),
        (RECIPE, ["--no-flip_left_right", "--seed=3"], Views(count=4, random_crop=10.0), None),
        ("name: x\n", FLAGS, VIEWS, None),
        ("name: x\n", ["--seed", "3"], None, None),
    ],
)
def test_only_the_training_list_of_a_recipe_has_views(folder, recipe, flags, of_train, of_eval):
    (folder / "my.yaml").write_text(recipe)
    (folder / "eval.csv").write_text("photos/1.png,rose\n")
    calls = []
    argv = ["--recipe", f"{folder}/my.yaml", "--data_dir", str(folder), "--job_dir", f"{folder}/job", *flags]
    assert preproc.main(argv, embed=lambda words: calls.append(words) or 0) == 0
    found = {call[5].rpartition("/")[2]: read_flags(call).options for call in calls}
    assert {split: Views.of_options(options) for split, options in found.items()} == {
        "train": of_train,
        "eval": of_eval,
    }
    assert all(options.seed == (3 if any("seed" in flag for flag in flags) else 0) for options in found.values())
    # `hugs why` makes the command for the directory anew, of the note of either list.
    definition = {name: getattr(found["train"], name) for name in ("views", "flip_left_right", "random_crop")}
    definition |= {name: getattr(found["train"], name) for name in ("random_scale", "random_brightness")}
    for call in calls:
        note = {"arguments": call, "folder": "/"}
        command = command_of_job_dir({call[5]: note}, definition)
        again = []
        preproc.main(command.split(" preproc ")[1].split(), embed=lambda words, again=again: again.append(words) or 0)
        assert [Views.of_options(read_flags(words).options) for words in again] == [of_train, of_eval]


@pytest.mark.parametrize(
    ("lists", "views"),
    [(["train"], 4), (["eval"], 1), (["test"], 1), (["mine"], 4), (["other_eval"], 4), (["eval", "test"], 1)],
)
def test_a_recipe_gives_views_to_no_list_that_it_evaluates_on(folder, lists, views):
    (folder / "my.yaml").write_text(RECIPE)
    words = ["--recipe", f"{folder}/my.yaml", "--input_dict", "d", "--output_path", "o"]
    words += [word for name in lists for word in ("--input_path", f"{folder}/{name}.csv")]
    assert read_flags(words).options.views == views
    asked = read_flags([*words, "--views", "3", "--random_crop", "9"]).options
    assert (asked.views, asked.flip_left_right) == (3, views == 4)


def test_the_next_command_after_the_training_list_has_no_views(folder, use_engine):
    (folder / "eval.csv").write_text("photos/1.png,rose\n")
    assert run(folder, *FLAGS) == 0
    paths = ["--input_path", f"{folder}/train.csv", "--input_dict", f"{folder}/dict.txt"]
    paths += ["--output_path", f"{folder}/out/train", *WEIGHTS]
    (command,) = next_steps([*paths, *FLAGS], LocalStorage())
    assert "eval.csv" in command and not any(f"--{name}" in command for name in VIEW_OPTIONS)
    (folder / "my.yaml").write_text(RECIPE)
    (command,) = next_steps([*paths, "--recipe", f"{folder}/my.yaml"], LocalStorage())
    assert read_flags(command.split(" embed ")[1].split()).options.views == 1


def test_the_command_of_a_definition_has_the_views_and_why_tells_them(folder, use_engine, capsys):
    assert run(folder, *FLAGS) == 0
    assert why.main([f"{folder}/out/train"]) == 0
    assert f"{VIEWS.describe()} of each image  [{folder}/out/_train/manifest.json]\n" in capsys.readouterr().out
    command, _ = command_of_definition(report_of(folder)["definition"], f"{folder}/out/train", Look(LocalStorage()))
    assert Views.of_options(read_flags(command.split(" embed ")[1].split()).options) == VIEWS


def test_a_plan_counts_every_view_of_the_training_list(folder, use_engine, monkeypatch, capsys):
    tiny_network.install(monkeypatch)
    (folder / "eval.csv").write_text((folder / "train.csv").read_text())
    words = ["--data_dir", str(folder), "--sample", "5", *WEIGHTS, *FLAGS]
    assert plan.main(words) == 0
    assert "train: 3 views of each image, from one decode" in capsys.readouterr().out
    made = json.loads((folder / "hugs_plan.json").read_text())
    train, held_out = made["lists"]
    assert (train["views"], held_out["views"]) == (VIEWS.to_json(), None)
    assert train["record_bytes"] > held_out["record_bytes"] + 2 * 3 * 4
    flags = ["--prediction", f"{folder}/hugs_plan.json"]
    assert run(folder, *FLAGS, *flags) == 0
    assert report_of(folder)["prediction"]["compared"]
    assert run(folder, *FLAGS, "--random_crop", "11", *flags, to="other") == 0
    assert report_of(folder, "other")["prediction"] is None
    assert "made for another number or kind of views" in capsys.readouterr().err
