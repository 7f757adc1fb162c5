"""Requests to the Dataflow service: checks access, finds active jobs, and explains refusals in one line."""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Iterator
from typing import Any

from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

from configs.errors import InputError, cause_in_one_line
from configs.service_refusals import refusal_remedy
from pipelines.runners.dataflow import Place
from preprocess.storage.base import Storage, write_file

_TIMEOUT_SEC = 30.0
_LOG_IN = (
    "Run: gcloud auth application-default login; or set GOOGLE_APPLICATION_CREDENTIALS to a service account's key."
)


def place_of(options: PipelineOptions) -> Place:
    """The project and region of a job with these options."""
    cloud = options.view_as(GoogleCloudOptions)
    return Place(project=cloud.project, region=cloud.region)


def check_credentials(options: PipelineOptions) -> None:
    """Checks that there are credentials. Beam would search for half a minute, and then go on without any.

    Raises:
      InputError: there are no credentials on this machine.
    """
    cloud = options.view_as(GoogleCloudOptions)
    if cloud.no_auth:
        return
    import google.auth
    import google.auth.exceptions

    try:
        # google.auth logs warnings about the kinds of credentials that it finds.
        logging.getLogger("google.auth").setLevel(logging.ERROR)
        google.auth.default(scopes=cloud.gcp_oauth_scopes)
    except google.auth.exceptions.GoogleAuthError as error:
        raise InputError(f"credentials: none for Google Cloud ({_cause(error)}). {_LOG_IN}") from error


def check_service(options: PipelineOptions) -> None:
    """Asks the service for an active job with the name in the options. This also checks that it gives us access.

    Raises:
      InputError: there is such a job, or the service cannot be reached, or it refuses.
    """
    active = _active_job_id(service_job_of(options), options)
    if active is not None:
        raise _already_active(options, active)


def service_job_of(options: PipelineOptions) -> tuple[str, str, str]:
    """The (project, region, name) of the job that the options describe. No two active jobs have the same."""
    cloud = options.view_as(GoogleCloudOptions)
    return cloud.project, cloud.region, cloud.job_name


def watch_if_active(job: tuple[str, str, str], *, options: PipelineOptions) -> str:
    """Asks the service whether a job is active, with the credentials that the options name.

    Args:
      job: its (project, region, name).
      options: of the pipeline that asks.

    Returns:
      The page on which the job can be watched; empty if it is not active.

    Raises:
      InputError: the service cannot be reached or refuses.
    """
    project, region, name = job
    asked = PipelineOptions(**options.get_all_options(drop_default=True))
    cloud = asked.view_as(GoogleCloudOptions)
    cloud.project, cloud.region, cloud.job_name = project, region, name
    active = _active_job_id(job, asked)
    return "" if active is None else Place(project=project, region=region).console_url(active)


def _active_job_id(job: tuple[str, str, str], options: PipelineOptions) -> str | None:
    from apache_beam.runners.dataflow.internal import apiclient
    from google.cloud import dataflow

    project, region, name = job
    request = dataflow.ListJobsRequest(
        project_id=project,
        location=region,
        filter=dataflow.ListJobsRequest.Filter.ACTIVE,
        name=name,
    )
    with explained(options):
        jobs = apiclient.DataflowApplicationClient(options)._jobs_client
        found = jobs.list_jobs(request, retry=None, timeout=_TIMEOUT_SEC)
        return next((job.id for job in found if job.name == name), None)


def check_writable(options: PipelineOptions, storage: Storage) -> None:
    """Writes a small object into each folder that Beam will write to, and deletes it again.

    Raises:
      InputError: an object cannot be written.
    """
    cloud = options.view_as(GoogleCloudOptions)
    for flag, folder in (("temp_location", cloud.temp_location), ("staging_location", cloud.staging_location)):
        probe = f"{folder.rstrip('/')}/probe-{uuid.uuid4().hex}"
        try:
            write_file(storage, probe, b"")
            storage.delete_file(probe)
        except OSError as error:
            raise InputError(
                f"{flag}: cannot write to {folder!r} ({_cause(error)}). Check that the bucket exists and that your "
                "credentials may write to it."
            ) from error


def _already_active(options: PipelineOptions, job_id: str | None) -> InputError:
    place, name = place_of(options), options.view_as(GoogleCloudOptions).job_name
    job = f"{name} ({job_id})" if job_id else name
    watch = place.console_url(job_id) if job_id else place.command("list", "--status=active")
    stop = place.command("cancel", job_id) if job_id else "cancel it"
    return InputError(f"job_name: {job} is still running. Watch it: {watch} - wait for its end, or stop it: {stop}")


def _cause(error: BaseException) -> str:
    return cause_in_one_line(error).rstrip(".")


@contextlib.contextmanager
def explained(options: PipelineOptions) -> Iterator[None]:
    """Within this context, turns exceptions of the service, of the network and of packing the project into one line.

    Raises:
      InputError: there was such an exception.
    """
    import requests
    from apache_beam.runners.dataflow.internal import apiclient
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except apiclient.DataflowJobAlreadyExistsError as error:
        # "There is already active job named NAME with id: ID. If ..."
        raise _already_active(options, str(error).partition("with id: ")[2].partition(".")[0] or None) from error
    except exceptions.GoogleAPICallError as error:
        raise _refusal(error, options) from error
    except GoogleAuthError as error:
        raise InputError(f"credentials: Google does not take them ({_cause(error)}). {_LOG_IN}") from error
    except (exceptions.RetryError, requests.RequestException) as error:
        raise _unreachable(error, options) from error
    except OSError as error:
        raise InputError(f"dataflow: the job cannot be handed over ({_cause(error)}).") from error
    except RuntimeError as error:
        # Of Beam's stager: a line, or the traceback of a child process that has said itself what is wrong.
        why = "; see above" if "\n" in str(error) else f" ({_cause(error)})"
        raise InputError(f"dataflow: the project cannot be packed for the workers{why}.") from error


def _unreachable(error: BaseException, options: PipelineOptions) -> InputError:
    endpoint = options.view_as(GoogleCloudOptions).dataflow_endpoint
    return InputError(
        f"dataflow: {endpoint} does not answer ({_cause(error)}). Check the network, and give the same command again."
    )


def _refusal(error: Any, options: PipelineOptions) -> InputError:
    """Explains an error of the service. gRPC and REST raise subclasses of the same exception, with `code`."""
    place, cause = place_of(options), _cause(error)
    code = int(error.code or 0)
    if "Getting metadata from plugin failed" in cause or code == 401:
        return InputError(f"credentials: Google does not take them ({cause}). {_LOG_IN}")
    if code == 403:
        api, role = "dataflow.googleapis.com", "roles/dataflow.developer"
        remedy = refusal_remedy(cause, project=place.project, api=api, role=role)
        if remedy is None or role in remedy:
            remedy = (
                "You need roles/dataflow.developer and roles/compute.viewer there and roles/iam.serviceAccountUser on "
                "the workers' account, and that account needs roles/dataflow.worker."
            )
        return InputError(f"dataflow: no permission in project {place.project} ({cause}). {remedy}")
    if code == 404:
        return InputError(
            f"dataflow: no such project or region: {place.project}, {place.region} ({cause}). Check --project and "
            "--region."
        )
    if code == 409:
        return _already_active(options, None)
    if code == 429:
        return InputError(
            f"dataflow: a quota of project {place.project} is used up ({cause}). Wait and give the same command again, "
            "lower dataflow.max_workers, or ask for more quota."
        )
    if code in (503, 504):
        return _unreachable(error, options)
    if code >= 500:
        return InputError(f"dataflow: the service failed ({cause}). Give the same command again.")
    return InputError(f"dataflow: the service refuses the job ({cause}).")
