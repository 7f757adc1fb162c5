"""The sections of a recipe about Google Cloud: project, region, machines and accounts of jobs.

Everything is checked when the recipe is read. So a misspelt machine type is found before anything is sent or paid for.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import re
from typing import Any, ClassVar, Literal

from configs.errors import did_you_mean
from configs.machine_families import DISK_TYPES, MIN_DISK_GB, disk_types_for, family_of, machine_fault
from configs.section import FieldError, Section, shown

# https://cloud.google.com/resource-manager/docs/creating-managing-projects; with a domain for old projects.
_PROJECT = re.compile(r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]")
_SERVICE_ACCOUNT = re.compile(r"[a-zA-Z0-9-]+@[a-zA-Z0-9.-]+\.gserviceaccount\.com")
_MACHINE_TYPE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)+")
_IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9._/:@-]*")
_RESOURCE_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBNETWORK = re.compile(r"(https://www\.googleapis\.com/compute/v1/projects/[^/]+/)?regions/[^/]+/subnetworks/[^/]+")
_NETWORK_PATH = re.compile(r"projects/[^/]+/global/networks/[^/]+")
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
_MAX_LABELS = 63  # Of 64; models that are served and their endpoints get one of ours.
# Which machines a GPU can be attached to: https://cloud.google.com/compute/docs/gpus.
_MACHINES_OF_GPU = {"t4": "n1", "l4": "g2"}


def known_regions() -> tuple[str, ...]:
    """The regions in configs/regions.txt."""
    text = importlib.resources.files("configs").joinpath("regions.txt").read_text(encoding="utf-8")
    return tuple(line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))


class _CloudSection(Section):
    def _check_pattern(self, field: str, pattern: re.Pattern[str], rule: str) -> None:
        value = getattr(self, field)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            self._fail(field, rule)

    def _check_machine_type(self) -> None:
        self._check_pattern("machine_type", _MACHINE_TYPE, "the name of a machine type such as n2-standard-4")
        name = getattr(self, "machine_type")  # noqa: B009 - sections that have a machine type call this
        if fault := machine_fault(name):
            raise FieldError(f"{self.prefix}machine_type", f"must be another machine type: {name} {fault}.")

    def _check_image(self) -> None:
        self._check_pattern("image", _IMAGE, "a container image such as europe-docker.pkg.dev/PROJECT/REPO/hugs:1")

    def _check_service_account(self) -> None:
        if getattr(self, "service_account") is not None:  # noqa: B009 - sections that have an account call this
            self._check_pattern(
                "service_account", _SERVICE_ACCOUNT, "an e-mail address that ends in gserviceaccount.com"
            )

    def _check_flag(self, *fields: str) -> None:
        for field in fields:
            if not isinstance(getattr(self, field), bool):
                self._fail(field, "true or false")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CloudOptions(_CloudSection):
    """The project, region and account of jobs.

    Attributes:
      project: the project that pays; None for GOOGLE_CLOUD_PROJECT, or the project that gcloud is set to.
      region: one of configs/regions.txt; the region of the bucket is best.
      service_account: e-mail address of the account of the workers; None for the service's default.
      labels: labels of the jobs, which appear on bills.
    """

    prefix: ClassVar[str] = "cloud."

    project: str | None = None
    region: str = "us-central1"
    service_account: str | None = None
    labels: dict[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.project is not None:
            self._check_pattern("project", _PROJECT, "the id of a project: 6 to 30 lower-case letters, digits and '-'")
        regions = known_regions()
        if self.region not in regions:
            hint = did_you_mean(self.region, regions) if isinstance(self.region, str) else ""
            raise FieldError(
                "cloud.region",
                f"must be a region of Google Cloud. Received: {shown(self.region)}.{hint} "
                "configs/regions.txt lists those that are known; add a line for a new one.",
            )
        self._check_service_account()
        self._check_labels()

    def _check_labels(self) -> None:
        labels: Any = self.labels
        if not isinstance(labels, dict) or len(labels) > _MAX_LABELS:
            self._fail("labels", f"at most {_MAX_LABELS} pairs of a key and a value")
        for key, value in labels.items():
            if not (isinstance(key, str) and _LABEL_KEY.fullmatch(key)):
                raise FieldError(
                    "cloud.labels", f"keys must be lower-case letters, digits, '_' and '-'. Received: {shown(key)}."
                )
            if not (isinstance(value, str) and _LABEL_VALUE.fullmatch(value)):
                raise FieldError(
                    f"cloud.labels.{key}", f"must be lower-case letters, digits, '_' and '-'. Received: {shown(value)}."
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataflowOptions(_CloudSection):
    """The machines on which lists are embedded.

    Attributes:
      machine_type: the machine type of a worker.
      max_workers: the largest number of workers at a time, at least 1.
      num_workers: the number of workers at the start; None lets the service choose.
      autoscaling: "throughput" lets the service choose the number; "none" keeps `num_workers`.
      disk_gb: the disk of a worker in GB, at least 30.
      disk_type: a disk type of Compute Engine that the machine type takes. None for the service's default, for machines
        that refuse that one for another (`machine_families.default_disk_type`).
      network: the name of the VPC network; None for "default".
      subnetwork: regions/REGION/subnetworks/NAME, or its full URL.
      public_ips: whether workers get public addresses. Without, the subnetwork needs Private Google Access.
      image: the container image of the workers (Dockerfile, target `worker`). None for Beam's image: then each worker
        installs the project and TensorFlow when it starts.
      weights_in_image: whether the image has the weights. Then they are not copied to the bucket.
      gpu: the GPU of a worker.
      flexrs: "cost" lets the service wait up to six hours for cheaper machines; with autoscaling and without a GPU.
    """

    prefix: ClassVar[str] = "dataflow."

    machine_type: str = "n2-standard-4"
    max_workers: int = 20
    num_workers: int | None = None
    autoscaling: Literal["throughput", "none"] = "throughput"
    disk_gb: int = 50
    disk_type: Literal["pd-standard", "pd-balanced", "pd-ssd", "hyperdisk-balanced"] | None = None
    network: str | None = None
    subnetwork: str | None = None
    public_ips: bool = True
    image: str | None = None
    weights_in_image: bool = False
    gpu: Literal["none", "t4", "l4"] = "none"
    flexrs: Literal["none", "cost", "speed"] = "none"

    def __post_init__(self) -> None:
        self._check_machine_type()
        self._check_int("max_workers", minimum=1)
        if self.num_workers is not None:
            self._check_int("num_workers", minimum=1)
            if self.num_workers > self.max_workers:
                self._fail("num_workers", f"at most max_workers ({self.max_workers})")
        self._check_choice("autoscaling", ("throughput", "none"))
        if self.autoscaling == "none" and self.num_workers is None:
            self._fail("num_workers", "given where autoscaling is none")
        self._check_int("disk_gb", minimum=MIN_DISK_GB)
        self._check_disk_type()
        if self.network is not None:
            self._check_pattern("network", _RESOURCE_NAME, "the name of a VPC network")
        if self.subnetwork is not None:
            self._check_pattern("subnetwork", _SUBNETWORK, "regions/REGION/subnetworks/NAME, or its full URL")
        self._check_flag("public_ips", "weights_in_image")
        if self.image is not None:
            self._check_image()
        if self.weights_in_image and self.image is None:
            self._fail("weights_in_image", "false where dataflow.image is not given")
        self._check_choice("gpu", ("none", "t4", "l4"))
        self._check_gpu()
        self._check_choice("flexrs", ("none", "cost", "speed"))
        self._check_flexrs()

    def _check_disk_type(self) -> None:
        if self.disk_type is None:
            return
        self._check_choice("disk_type", DISK_TYPES)
        possible = disk_types_for(self.machine_type)
        if self.disk_type not in possible:
            self._fail("disk_type", f"{' or '.join(possible)} for {self.machine_type}, which refuses other disks")

    def _check_flexrs(self) -> None:
        # "GPUs are not supported", "for autoscaled batch pipelines": https://cloud.google.com/dataflow/docs/guides/flexrs.
        if self.flexrs != "none" and self.gpu != "none":
            self._fail("flexrs", f"none with gpu {self.gpu}: FlexRS has no GPUs")
        if self.flexrs != "none" and self.autoscaling == "none":
            self._fail("flexrs", "none with autoscaling none: FlexRS chooses the number of workers")

    def _check_gpu(self) -> None:
        if self.gpu == "none":
            return
        family = _MACHINES_OF_GPU[self.gpu]
        if family_of(self.machine_type) != family:
            self._fail("machine_type", f"one of the {family} family for gpu {self.gpu}")
        if self.image is None:
            self._fail("gpu", "none where dataflow.image is not given: CUDA comes with the image")


@dataclasses.dataclass(frozen=True, kw_only=True)
class VertexOptions(_CloudSection):
    """The machines on which a model is trained.

    Attributes:
      machine_type: the machine type of a replica.
      replicas: the number of machines that train one model together, at least 1.
      image: the container image: one of ours (Dockerfile, target `trainer`) with `trainer_in_image`, or any image with
        Python 3.11, which installs the trainer when it starts. None for the image of Docker Hub, which the project's
        repository docker-hub passes on.
      trainer_in_image: whether the image has the trainer. Then nothing is installed when it starts.
      network: projects/NUMBER/global/networks/NAME, a VPC network that is peered with Vertex AI; None for none.
      timeout_hours: the service stops the job after this number of hours, at least 1.
    """

    prefix: ClassVar[str] = "vertex."

    machine_type: str = "n1-standard-8"
    replicas: int = 1
    image: str | None = None
    trainer_in_image: bool = False
    network: str | None = None
    timeout_hours: int = 24

    def __post_init__(self) -> None:
        self._check_machine_type()
        self._check_int("replicas", minimum=1)
        if self.image is not None:
            self._check_image()
        self._check_flag("trainer_in_image")
        if self.trainer_in_image and self.image is None:
            self._fail("trainer_in_image", "false where vertex.image is not given: that one has only Python")
        if self.network is not None:
            self._check_pattern("network", _NETWORK_PATH, "projects/NUMBER/global/networks/NAME")
        self._check_int("timeout_hours", minimum=1)
        # Images for training that Vertex AI provides have their Python in their name: tf-cpu.2-17.py310.
        python = re.search(r"\.[cp][py]3(\d+)(:|$)", self.image or "")
        if python and int(python[1]) != 11 and not self.trainer_in_image:
            self._fail("image", "one with Python 3.11, which the trainer needs")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeployOptions(_CloudSection):
    """The machines that answer requests when a model is deployed.

    Attributes:
      machine_type: the machine type of a replica.
      min_replicas: the number of replicas that always run, at least 1.
      max_replicas: the largest number of replicas, at least `min_replicas`.
      image: an image of TensorFlow Serving 2.20 or later in Artifact Registry. None for the image of Docker Hub, which
        the project's repository docker-hub passes on.
      server_in_image: whether `image` is the target `server` of the Dockerfile, and not TensorFlow Serving.
      service_account: e-mail address of an account for the container. None for that of Vertex AI, which may read the
        model and nothing else. Another one must be allowed to read the model itself:
        https://cloud.google.com/vertex-ai/docs/general/custom-service-account.
    """

    prefix: ClassVar[str] = "deploy."

    machine_type: str = "n1-standard-4"
    min_replicas: int = 1
    max_replicas: int = 1
    image: str | None = None
    server_in_image: bool = False
    service_account: str | None = None

    def __post_init__(self) -> None:
        self._check_machine_type()
        self._check_service_account()
        self._check_int("min_replicas", minimum=1)
        self._check_int("max_replicas", minimum=1)
        if self.max_replicas < self.min_replicas:
            self._fail("max_replicas", f"at least min_replicas ({self.min_replicas})")
        if self.image is not None:
            self._check_image()
        self._check_flag("server_in_image")
        if self.server_in_image and self.image is None:
            self._fail("server_in_image", "false where deploy.image is not given")
        # The newest of Vertex AI's own images has TensorFlow 2.15, which lacks an operation of our models (DecodeWebP).
        if self.image is not None and re.search(r"/vertex-ai/prediction/tf2-", self.image):
            self._fail("image", "TensorFlow Serving 2.20 or later; Vertex AI's own images are older")
