"""Requests to Google's services for which gcloud has no command: which permissions an account has, a bucket's place.

The addresses of the services may be changed as for gcloud: by CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDRESOURCEMANAGER,
..._IAM and ..._STORAGE.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any

from cloud.gcloud import UnreachableError
from configs.errors import InputError, cause_in_one_line
from configs.network_faults import network_fault
from configs.service_refusals import refusal_remedy

_TIMEOUT_SEC = 20.0
_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_LOG_IN = "gcloud auth application-default login"
_HOSTS = {
    "cloudresourcemanager": "https://cloudresourcemanager.googleapis.com/",
    "iam": "https://iam.googleapis.com/",
    "storage": "https://storage.googleapis.com/",
}


def application_default() -> Any:
    """The credentials that Beam and the client of Cloud Storage use.

    Raises:
      InputError: there are none on this machine.
    """
    import google.auth
    import google.auth.exceptions

    try:
        return google.auth.default(scopes=_SCOPES)[0]
    except google.auth.exceptions.GoogleAuthError as error:
        raise InputError(cause_in_one_line(error).rstrip(".")) from error


def of_token(token: str) -> Any:
    """Credentials of an access token, such as that of gcloud."""
    from google.oauth2.credentials import Credentials

    return Credentials(token=token)


class GoogleRequests:
    """Sends requests with one account's credentials.

    Args:
      credentials: of google.auth.
      project: for messages.
    """

    def __init__(self, credentials: Any, project: str) -> None:
        from google.auth.transport.requests import AuthorizedSession

        self._session = AuthorizedSession(credentials, refresh_timeout=_TIMEOUT_SEC, max_refresh_attempts=1)
        self._project = project

    def granted_on_project(self, permissions: Collection[str]) -> set[str]:
        """Those of some permissions that the account has in the project.

        Raises:
          InputError: the service does not say.
        """
        body = {"permissions": sorted(permissions)}
        path = f"v1/projects/{self._project}:testIamPermissions"
        answer = self._ask("cloudresourcemanager", "POST", path, json=body)
        return set(answer.get("permissions") or ())

    def granted_on_account(self, account: str, permissions: Collection[str]) -> set[str]:
        """Those of some permissions that the account has on a service account. It raises the same errors."""
        body = {"permissions": sorted(permissions)}
        path = f"v1/projects/-/serviceAccounts/{account}:testIamPermissions"
        return set(self._ask("iam", "POST", path, json=body).get("permissions") or ())

    def granted_on_bucket(self, bucket: str, permissions: Collection[str]) -> set[str]:
        """Those of some permissions that the account has on a bucket. It raises the same errors."""
        path = f"storage/v1/b/{bucket}/iam/testPermissions"
        answer = self._ask("storage", "GET", path, params={"permissions": sorted(permissions)})
        return set(answer.get("permissions") or ())

    def bucket(self, bucket: str) -> dict[str, Any]:
        """A bucket as Cloud Storage describes it. It raises the same errors."""
        return self._ask("storage", "GET", f"storage/v1/b/{bucket}")

    def policy_of_bucket(self, bucket: str) -> dict[str, Any]:
        """The IAM policy of a bucket. It raises the same errors."""
        return self._ask("storage", "GET", f"storage/v1/b/{bucket}/iam")

    def _ask(self, service: str, method: str, path: str, **request: Any) -> dict[str, Any]:
        import requests
        from google.auth.exceptions import GoogleAuthError

        base = os.environ.get(f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{service.upper()}") or _HOSTS[service]
        try:
            answer = self._session.request(
                method, f"{base.rstrip('/')}/{path}", timeout=_TIMEOUT_SEC, max_allowed_time=_TIMEOUT_SEC, **request
            )
            found = answer.json() if answer.content else {}
        except (GoogleAuthError, requests.RequestException) as error:
            if fault := network_fault(str(error)):
                raise UnreachableError(f"{fault}. Check the network.") from error
            raise InputError(f"Google does not take the credentials ({cause_in_one_line(error)}). {_LOG_IN}") from error
        except ValueError as error:
            raise InputError(f"{service}: the answer is not JSON ({cause_in_one_line(error)}). Try again.") from error
        if not isinstance(found, Mapping):
            raise InputError(f"{service}: the answer is not an object. Try again.")
        if answer.ok:
            return dict(found)
        fault = found.get("error")
        said = str(fault.get("message") or fault.get("status") or "") if isinstance(fault, Mapping) else str(fault)
        said = f"{answer.status_code}: {' '.join(said.split()) or 'no reason given'}"
        if answer.status_code == 401:
            raise InputError(f"{said.rstrip('.')}. {_LOG_IN}")
        words = f"PERMISSION_DENIED {said}" if answer.status_code == 403 else said
        role = "roles/storage.admin on the bucket" if service == "storage" else "roles/browser"
        remedy = refusal_remedy(words, project=self._project, api=f"{service}.googleapis.com", role=role)
        raise InputError(f"{said.rstrip('.')}. {remedy or 'Check the names of project, bucket and account.'}")
