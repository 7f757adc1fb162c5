from __future__ import annotations

import dataclasses
import os
import subprocess

import pytest

from cloud.training_job import StagedPackage, TrainingJob, custom_job_spec, require_weights, trainer_arguments
from configs.cloud import CloudOptions, VertexOptions
from configs.errors import InputError
from configs.recipe import Recipe, TrainOptions, load_recipe
from trainer.options import parse_options

JOB = TrainingJob(job_dir="gs://bucket/a b/hugs_1", job_id="training", has_test=False)
PACKAGE = StagedPackage(
    uri="gs://bucket/a b/hugs_1/training/package/hugs-0.1.0-0123.tar.gz",
    lock_uri="gs://bucket/a b/hugs_1/training/package/requirements-4567.txt",
)
RECIPE = Recipe(name="hugs")
IMAGE = "us-central1-docker.pkg.dev/p/docker-hub/library/python:3.11"


def with_flags(*flags, **changes):
    return dataclasses.replace(JOB, flags=flags, **changes)


def options_of(job, recipe):
    return parse_options(trainer_arguments(job, recipe), environ={})


def test_the_trainer_gets_what_the_recipe_says():
    recipe = Recipe(name="x", train=TrainOptions(hidden_units=3, epochs=7, l2=0.25, label_mode="multi"))
    options = options_of(with_flags(has_test=True), recipe)
    assert (options.hidden_units, options.epochs, options.l2, options.label_mode) == (3, 7, 0.25, "multi")
    assert options.train_data_paths == ("gs://bucket/a b/hugs_1/preproc/train",)
    assert options.eval_data_paths == ("gs://bucket/a b/hugs_1/preproc/eval",)
    assert options.test_data_paths == ("gs://bucket/a b/hugs_1/preproc/test",)
    assert options.output_path == "gs://bucket/a b/hugs_1/training"
    assert options_of(JOB, recipe).test_data_paths == ()


def test_every_option_of_a_recipe_reaches_the_trainer():
    options = options_of(JOB, load_recipe("hugs"))
    for field, value in dataclasses.asdict(load_recipe("hugs").train).items():
        assert getattr(options, field) == value
    assert options.page_options == load_recipe("hugs").page
    assert options_of(JOB, Recipe(name="x")).page is None
    own = options_of(with_flags("--page", '{"title": "Cat?"}'), load_recipe("hugs"))
    assert own.page_options.to_json() == {"title": "Cat?"}


def test_flags_of_the_user_win():
    recipe = Recipe(name="x", train=TrainOptions(hidden_units=3, epochs=7))
    options = options_of(with_flags("--hidden_units", "5", "--max_steps=9"), recipe)
    assert (options.hidden_units, options.epochs, options.max_steps) == (5, None, 9)
    assert options_of(with_flags("--epochs", "2"), RECIPE).epochs == 2
    both = with_flags("--train_data_paths", "gs://other/train,gs://third/train")
    assert options_of(both, RECIPE).train_data_paths[1:] == ("gs://other/train", "gs://third/train")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--max_step", "5"], "unrecognized arguments: --max_step 5. Did you mean '--max_steps'?"),
        (["--dropout", "2"], "--dropout must be a number from 0 to below 1. Received: 2.0"),
        (["--recipe=mine.yaml"], "--recipe: the container has no recipes of yours"),
        (["--output_path", "gs://x/y"], "--output_path: is PATH/JOB_ID"),
        (["--weights", "my.weights.h5"], "--weights: the container does not have the files of this machine"),
        (["--eval_data_paths", "out/eval*"], "Copy it to the bucket and give gs://BUCKET/... Received: 'out/eval*'."),
        (["--input_dict", "dict.txt"], "--input_dict: the container does not have the files of this machine"),
        (["--log_dir", "logs"], "--log_dir: must be in a bucket"),
        (["--export_dir", "model"], "--export_dir: must be in a bucket"),
    ],
)
def test_flags_that_would_fail_in_the_container_are_refused_here(flags, message):
    with pytest.raises(InputError) as refusal:
        trainer_arguments(with_flags(*flags), RECIPE)
    assert message in str(refusal.value)


def test_weights_must_be_where_the_container_can_read_them():
    for weights in ("imagenet", "random", "gs://bucket/w.h5", "/gcs/bucket/w.h5"):
        require_weights(weights, JOB, RECIPE)
    require_weights("/home/me/w.h5", with_flags("--weights=gs://bucket/w.h5"), RECIPE)
    with pytest.raises(InputError, match=r"weights in /home/me/w\.h5, a file that the container does not have"):
        require_weights("/home/me/w.h5", JOB, RECIPE)
    in_image = Recipe(name="x", vertex=VertexOptions(image="eu-docker.pkg.dev/p/r/hugs:1", trainer_in_image=True))
    require_weights("/opt/hugs/weights/w.h5", JOB, in_image)
    trainer_arguments(with_flags("--weights", "/opt/hugs/weights/w.h5"), in_image)


def test_a_plain_image_installs_the_package_first():
    spec = custom_job_spec(JOB, RECIPE, image=IMAGE, package=PACKAGE)
    (pool,) = spec["workerPoolSpecs"]
    assert pool["machineSpec"] == {"machineType": "n1-standard-8"}
    assert pool["replicaCount"] == 1
    assert pool["containerSpec"]["imageUri"] == IMAGE
    assert pool["containerSpec"]["command"][-1] == "/gcs/bucket/a b/hugs_1/training/package/hugs-0.1.0-0123.tar.gz"
    assert spec["scheduling"] == {"timeout": "86400s", "restartJobOnWorkerRestart": True}
    assert not {"serviceAccount", "network"} & set(spec)


def test_no_two_folders_have_the_same_display_name():
    long = "gs://a/" + "x" * 200
    names = [
        TrainingJob(job_dir=uri, job_id="t", has_test=False).display_name for uri in (long, long.replace("a", "b"))
    ]
    assert len(set(names)) == 2
    assert all(len(name) <= 128 and name.endswith("xx/t") for name in names)
    assert JOB.display_name == "bucket/a b/hugs_1/training"


def test_several_workers_do_not_search():
    recipe = Recipe(name="x", vertex=VertexOptions(replicas=2))
    with pytest.raises(InputError, match=r"--tune: takes one worker, and vertex\.replicas of the recipe is 2"):
        trainer_arguments(with_flags("--tune", "3"), recipe)


def test_what_the_container_runs(tmp_path):
    # The command itself, with a stand-in for Python that writes down its arguments.
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" -- >> "{tmp_path}/calls"\nexit "${{FAIL:-0}}"\n')
    python.chmod(0o755)
    container = custom_job_spec(with_flags("--l2", "0"), RECIPE, image=IMAGE, package=PACKAGE)["workerPoolSpecs"][0]
    container = container["containerSpec"]
    command = [*container["command"], *container["args"], "--a=b c,$d \"'"]
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    calls = (tmp_path / "calls").read_text().removesuffix("\n--\n").split("\n--\n")
    locked, install, train = calls
    for call in (locked, install):
        assert call.splitlines()[:3] == ["-m", "pip", "install"]
        assert "--no-deps" in call.splitlines()
    assert "--require-hashes" in locked.splitlines()
    assert locked.splitlines()[-2:] == [
        "--requirement",
        "/gcs/bucket/a b/hugs_1/training/package/requirements-4567.txt",
    ]
    assert install.splitlines()[-1] == "/gcs/bucket/a b/hugs_1/training/package/hugs-0.1.0-0123.tar.gz"
    assert train.splitlines() == ["-m", "trainer.task", *container["args"], "--a=b c,$d \"'"]
    # Without the package nothing is trained.
    (tmp_path / "calls").unlink()
    assert subprocess.run(command, env={**environment, "FAIL": "3"}, check=False).returncode == 3
    assert "trainer.task" not in (tmp_path / "calls").read_text()


def test_an_image_that_has_the_trainer_gets_its_flags_alone():
    recipe = Recipe(name="x", vertex=VertexOptions(image="eu-docker.pkg.dev/p/r/hugs:1", trainer_in_image=True))
    (pool,) = custom_job_spec(JOB, recipe, image=recipe.vertex.image or IMAGE, package=None)["workerPoolSpecs"]
    assert set(pool["containerSpec"]) == {"imageUri", "args"}
    assert pool["containerSpec"]["args"] == trainer_arguments(JOB, recipe)


def test_an_image_of_vertex_installs_the_package_itself():
    recipe = Recipe(
        name="x", vertex=VertexOptions(image="us-docker.pkg.dev/vertex-ai/training/tf-cpu.2-21.py311:latest")
    )
    (pool,) = custom_job_spec(JOB, recipe, image=recipe.vertex.image or IMAGE, package=PACKAGE)["workerPoolSpecs"]
    package = pool["pythonPackageSpec"]
    assert package["executorImageUri"] == recipe.vertex.image
    assert package["packageUris"] == [PACKAGE.uri]
    assert package["pythonModule"] == "trainer.task"
    assert package["args"] == trainer_arguments(JOB, recipe)


def test_several_replicas_are_a_chief_and_workers():
    recipe = Recipe(
        name="x",
        cloud=CloudOptions(service_account="hugs@my-project.iam.gserviceaccount.com"),
        vertex=VertexOptions(replicas=4, timeout_hours=2, network="projects/1/global/networks/n"),
    )
    spec = custom_job_spec(JOB, recipe, image=recipe.vertex.image or IMAGE, package=PACKAGE)
    chief, workers = spec["workerPoolSpecs"]
    assert (chief["replicaCount"], workers["replicaCount"]) == (1, 3)
    assert chief["containerSpec"] == workers["containerSpec"]
    assert spec["scheduling"]["timeout"] == "7200s"
    assert spec["serviceAccount"] == "hugs@my-project.iam.gserviceaccount.com"
    assert spec["network"] == "projects/1/global/networks/n"


def test_a_job_is_named_after_its_output():
    assert JOB.display_name == "bucket/a b/hugs_1/training"
    long = TrainingJob(job_dir="gs://bucket/" + "x" * 200, job_id="training", has_test=False)
    assert len(long.display_name) == 128
    assert long.display_name.endswith("x/training")
