"""Images of Docker Hub by way of the project's own repository `docker-hub`, which passes them on and keeps a copy.

Vertex AI serves only images of Artifact Registry. It trains with those of Docker Hub too, but Docker Hub limits how
often they are pulled without an account, and the machines of many customers share addresses
(https://docs.docker.com/docker-hub/usage/pulls/). So both go through the same repository:
https://cloud.google.com/artifact-registry/docs/repositories/remote-overview.
"""

from __future__ import annotations

from cloud.gcloud import Gcloud
from configs.errors import InputError

HUB_REPOSITORY = "docker-hub"
# The newest that is published, and the version of the TensorFlow that exports models here. Its Python package of the
# same version is released with it: https://pypi.org/project/tensorflow-serving-api/.
SERVING_IMAGE = "tensorflow/serving:2.21.0"
# Vertex AI has no training image with Python 3.11. "library" is where Docker Hub has its official images.
PYTHON_IMAGE = "library/python:3.11"
_MISSING = "NOT_FOUND"


def hub_image(image: str, *, project: str, region: str) -> str:
    """An image of Docker Hub as the project's repository has it."""
    return f"{region}-docker.pkg.dev/{project}/{HUB_REPOSITORY}/{image}"


def create_command(gcloud: Gcloud) -> str:
    """The command that makes the repository."""
    return (
        f"gcloud artifacts repositories create {HUB_REPOSITORY} --project {gcloud.project} --location {gcloud.region} "
        "--repository-format=docker --mode=remote-repository --remote-docker-repo=DOCKER-HUB"
    )


def has_repository(gcloud: Gcloud) -> bool:
    """Whether the project has the repository in the region of the job.

    Raises:
      InputError: Artifact Registry does not say.
    """
    words = ["gcloud", "artifacts", "repositories", "describe", HUB_REPOSITORY]
    try:
        gcloud.call([*words, f"--location={gcloud.region}", f"--project={gcloud.project}"])
    except InputError as error:
        if _MISSING not in str(error):
            raise
        return False
    return True


def require_repository(image: str, gcloud: Gcloud, *, field: str) -> None:
    """Checks that the project has the repository that passes an image on.

    Args:
      image: from `hub_image`.
      gcloud: of the project and the region.
      field: of the recipe that would name another image.

    Raises:
      InputError: the repository is missing, or Artifact Registry does not say.
    """
    if not has_repository(gcloud):
        raise InputError(
            f"{field}: {image} is not there, since project {gcloud.project} has no repository {HUB_REPOSITORY} in "
            f"{gcloud.region}. Make it, once: {create_command(gcloud)}. Or name another image in the recipe."
        )
