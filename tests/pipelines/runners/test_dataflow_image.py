"""Workers of Dataflow with an image of their own, and without."""

import pytest

from configs.errors import InputError
from preprocess.engines import select
from tests.support.dataflow_job import IMAGE, QUICK, pipeline_of, run_embed, stages_of, write_recipe


@pytest.fixture
def no_weights_here(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    for scheme in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(scheme, "http://127.0.0.1:9")


def test_weights_and_engine_of_an_image_need_not_be_on_this_machine(
    cloud, tmp_path, no_weights_here, monkeypatch, capsys
):
    gcs, service = cloud
    monkeypatch.setattr(select, "has_openvino", lambda: False)
    before = gcs.names("bucket")
    with_weights = write_recipe(tmp_path / "with.yaml", image=IMAGE, weights_in_image=True)
    flags = ["--engine=openvino", "--dry_run"]
    assert run_embed(service, "--recipe", with_weights, *flags, weights="imagenet") == 0
    assert "weights from" not in capsys.readouterr().out
    without_weights = write_recipe(tmp_path / "without.yaml", image=IMAGE)
    with pytest.raises(InputError, match="weights: the ImageNet weights are not on this machine"):
        run_embed(service, "--recipe", without_weights, *flags, weights="imagenet")
    with pytest.raises(InputError, match="engine: openvino needs OpenVINO"):
        run_embed(service, *flags)
    assert gcs.names("bucket") == before
    assert not service.jobs


def test_a_job_with_an_image_stages_the_weights_and_no_project(cloud, tmp_path):
    gcs, service = cloud
    weights = tmp_path / "mine.weights.h5"
    weights.write_bytes(b"weights")
    recipe = write_recipe(
        tmp_path / "gpu.yaml",
        machine_type="n1-standard-8",
        image=IMAGE,
        gpu="t4",
        public_ips=False,
        num_workers=3,
        autoscaling="none",
    )
    assert run_embed(service, "--recipe", recipe, QUICK[1], weights=str(weights)) == 0
    (job,) = service.jobs
    environment = job.posted["environment"]
    (pool,) = environment["workerPools"]
    assert {image["containerImage"] for image in pool["sdkHarnessContainerImages"]} == {IMAGE}
    assert environment["serviceOptions"] == ["worker_accelerator=type:nvidia-tesla-t4;count:1;install-nvidia-driver"]
    assert pool["ipConfiguration"] == 2  # WORKER_IP_PRIVATE
    assert pool["numWorkers"] == 3
    assert pool["autoscalingSettings"]["algorithm"] == 1  # AUTOSCALING_ALGORITHM_NONE
    assert not pool.get("packages")
    (staged,) = [name for name in gcs.names("bucket") if name.startswith("hugs_staging/weights/")]
    assert gcs.get("bucket", staged) == b"weights"
    stage = stages_of(pipeline_of(gcs, job))["EmbedLists/EmbedImages"]
    assert stage._options.load_engine.backbone.staged.uri == f"gs://bucket/{staged}"


def test_workers_without_public_addresses_get_a_warning_unless_they_have_an_image(cloud, tmp_path, capsys):
    _, service = cloud
    for image, warns in ((None, True), (IMAGE, False)):
        recipe = write_recipe(tmp_path / "private.yaml", public_ips=False, image=image)
        assert run_embed(service, "--recipe", recipe, "--dry_run") == 0
        assert ("Cloud NAT" in capsys.readouterr().err) == warns


@pytest.mark.parametrize(
    ("machine_type", "flags", "disk", "starts"),
    [
        ("c4-standard-4", [], "hyperdisk-balanced", True),
        ("c3-standard-4", [], "pd-ssd", True),
        ("n2-standard-4", [], "", True),
        # A type that is not known here goes on to the service, which has the last word.
        ("n2-standard-4", ["hyperdisk-extreme"], "hyperdisk-extreme", False),
    ],
)
def test_workers_get_a_disk_that_their_machine_takes(cloud, tmp_path, machine_type, flags, disk, starts):
    _, service = cloud
    recipe = write_recipe(tmp_path / "disks.yaml", machine_type=machine_type, image=IMAGE)
    given = [f"--worker_disk_type=compute.googleapis.com/projects//zones//diskTypes/{name}" for name in flags]
    assert run_embed(service, "--recipe", recipe, QUICK[1], *given) == 0
    (job,) = service.jobs
    (pool,) = job.posted["environment"]["workerPools"]
    assert pool.get("diskType", "").rpartition("/")[2] == disk
    assert ("JOB_STATE_FAILED" in job.states) == (not starts)
    words = f"{disk} disk type cannot be used by {machine_type} machine type."
    assert [text for _, text in job.messages] == ([] if starts else [words])
