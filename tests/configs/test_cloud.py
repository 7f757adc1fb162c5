from __future__ import annotations

import os

import pytest

from configs.cloud import CloudOptions, DataflowOptions, known_regions
from configs.errors import InputError
from configs.gcp_project import find_project
from configs.recipe import parse_recipe


def complaint(text: str) -> str:
    with pytest.raises(InputError) as caught:
        parse_recipe(text.encode(), where="my.yaml", default_name="my")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_recipe_for_the_cloud():
    recipe = parse_recipe(
        b"""
cloud:
  project: my-project-1
  region: europe-west4
  service_account: hugs@my-project-1.iam.gserviceaccount.com
  labels: {team: vision, cost-center: "42"}
dataflow: {machine_type: g2-standard-8, gpu: l4, image: "europe-docker.pkg.dev/p/r/hugs-worker:1", max_workers: 3}
vertex: {replicas: 2, network: projects/123/global/networks/shared}
""",
        where="my.yaml",
        default_name="my",
    )
    assert recipe.cloud.labels == {"team": "vision", "cost-center": "42"}
    assert recipe.dataflow.gpu == "l4"
    assert recipe.vertex.replicas == 2


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("cloud: {project: My_Project}", "my.yaml, line 1: cloud.project must be the id of a project"),
        ("cloud: {region: us-centrall1}", "Did you mean 'us-central1'? configs/regions.txt lists"),
        ("cloud: {region: us-central1-a}", "cloud.region must be a region of Google Cloud. Received: 'us-central1-a'."),
        ("cloud: {region: 3}", "cloud.region must be a region of Google Cloud. Received: 3."),
        ("cloud: {service_account: me@gmail.com}", "an e-mail address that ends in gserviceaccount.com"),
        ("cloud: {labels: [a]}", "cloud.labels must be at most 63 pairs"),
        ("cloud:\n  labels: {Team: x}", "line 2: cloud.labels keys must be lower-case"),
        ("cloud:\n  labels:\n    team: Vision", "cloud.labels.team must be lower-case"),
        ("cloud:\n  labels:\n    team: 3", "cloud.labels.team must be lower-case"),
        ("dataflow: {machine_type: big}", "dataflow.machine_type must be the name of a machine type"),
        ("dataflow: {max_workers: 0}", "dataflow.max_workers must be a whole number of at least 1"),
        ("dataflow: {num_workers: 9, max_workers: 8}", "dataflow.num_workers must be at most max_workers (8)"),
        ("dataflow: {autoscaling: none}", "dataflow.num_workers must be given where autoscaling is none"),
        ("dataflow: {disk_gb: 5}", "dataflow.disk_gb must be a whole number of at least 30"),
        ("dataflow: {disk_gb: 29}", "dataflow.disk_gb must be a whole number of at least 30"),
        ("dataflow: {disk_type: hyperdisk-balanced}", "must be pd-standard or pd-balanced or pd-ssd for n2-standard-4"),
        ("dataflow: {machine_type: n4-standard-4, disk_type: pd-ssd}", "must be hyperdisk-balanced for n4-standard-4"),
        (
            "dataflow: {machine_type: c3-standard-4, disk_type: pd-standard}",
            "must be pd-balanced or pd-ssd or hyperdisk",
        ),
        ("dataflow: {machine_type: custom-4-8192, disk_type: hyperdisk-balanced}", "for custom-4-8192, which refuses"),
        ("dataflow: {flexrs: cost, autoscaling: none, num_workers: 2}", "flexrs must be none with autoscaling none"),
        (
            "dataflow: {flexrs: speed, gpu: l4, machine_type: g2-standard-8, image: 'a/b:1'}",
            "dataflow.flexrs must be none with gpu l4: FlexRS has no GPUs",
        ),
        (
            "dataflow: {machine_type: g1-small}",
            "dataflow.machine_type must be another machine type: g1-small has a shared",
        ),
        ("dataflow: {machine_type: c4a-standard-4}", "c4a-standard-4 is an Arm machine"),
        (
            "vertex: {machine_type: t2a-standard-4}",
            "vertex.machine_type must be another machine type: t2a-standard-4 is",
        ),
        ("dataflow: {machine_type: e2-custom-medium-8192}", "e2-custom-medium-8192 has a shared core"),
        ("deploy: {machine_type: e2-micro}", "deploy.machine_type must be another machine type: e2-micro has a shared"),
        ("dataflow: {machine_type: g2-standard-4, disk_type: pd-standard}", "must be pd-balanced or pd-ssd for g2-"),
        (
            "dataflow: {machine_type: c4n-standard-4, disk_type: pd-ssd}",
            "must be hyperdisk-balanced for c4n-standard-4",
        ),
        ("dataflow: {disk_type: ssd}", "dataflow.disk_type must be one of pd-standard"),
        ("dataflow: {network: projects/p/global/networks/n}", "dataflow.network must be the name of a VPC network"),
        ("dataflow: {subnetwork: mine}", "dataflow.subnetwork must be regions/REGION/subnetworks/NAME"),
        ("dataflow: {public_ips: maybe}", "dataflow.public_ips must be true or false"),
        ("dataflow: {image: 'hugs worker'}", "dataflow.image must be a container image"),
        ("dataflow: {weights_in_image: true}", "false where dataflow.image is not given"),
        ("dataflow: {gpu: h100}", "dataflow.gpu must be one of none, t4, l4"),
        ("dataflow: {gpu: l4, image: a/b:1}", "dataflow.machine_type must be one of the g2 family for gpu l4"),
        ("dataflow: {gpu: t4, machine_type: n1-standard-4}", "dataflow.gpu must be none where dataflow.image is not"),
        ("dataflow: {flexrs: cheap}", "dataflow.flexrs must be one of none, cost, speed"),
        ("vertex: {replicas: 0}", "vertex.replicas must be a whole number of at least 1"),
        ("vertex: {network: default}", "vertex.network must be projects/NUMBER/global/networks/NAME"),
        ("vertex: {image: us-docker.pkg.dev/vertex-ai/training/tf-cpu.2-17.py310:latest}", "Python 3.11, which the"),
        ("vertex: {image: 'a b'}", "vertex.image must be a container image"),
        ("vertex: {trainer_in_image: true}", "vertex.trainer_in_image must be false where vertex.image is not given"),
        ("deploy: {image: us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest}", "TensorFlow Serving 2.20"),
        ("deploy: {min_replicas: 3}", "deploy.max_replicas must be at least min_replicas (3)"),
        ("dataflow: {machine: n2-standard-4}", "dataflow.machine is not a field of a recipe"),
    ],
)
def test_what_is_wrong_is_found_when_the_recipe_is_read(text, part):
    assert part in complaint(text)


def test_the_regions_are_those_of_google_cloud():
    regions = known_regions()
    assert len(regions) == len(set(regions)) > 30
    assert {"us-central1", "europe-west4", "asia-northeast1"} <= set(regions)


@pytest.fixture
def no_project(monkeypatch, tmp_path):
    """No project in the environment, and no gcloud."""
    for name in ("GOOGLE_CLOUD_PROJECT", "CLOUDSDK_CORE_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_the_project_as_given_goes_before_all_others(no_project, monkeypatch):
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "of-environment")
    assert find_project(CloudOptions(project="of-recipe"), "of-flag") == "of-flag"
    assert find_project(CloudOptions(project="of-recipe")) == "of-recipe"
    assert find_project(CloudOptions()) == "of-environment"
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "of the environment")
    with pytest.raises(InputError, match="GOOGLE_CLOUD_PROJECT: cloud.project must be the id of a project"):
        find_project(CloudOptions())


def test_the_project_that_gcloud_is_set_to(no_project):
    gcloud = no_project / "gcloud"
    gcloud.write_text("#!/bin/sh\necho of-gcloud\necho 'Your active configuration is: [default]' >&2\n")
    gcloud.chmod(0o755)
    assert os.access(gcloud, os.X_OK)
    assert find_project(CloudOptions()) == "of-gcloud"


def test_no_project_is_one_line(no_project):
    with pytest.raises(InputError, match="project: none is given. Set cloud.project in the recipe"):
        find_project(CloudOptions())
    with pytest.raises(InputError, match="cloud.project must be the id of a project"):
        find_project(CloudOptions(), "My Project")


def test_the_checks_hold_without_a_file_too():
    with pytest.raises(InputError, match="dataflow.disk_gb"):
        DataflowOptions(disk_gb=1)
