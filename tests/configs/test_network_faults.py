"""Messages as gcloud 528, requests and httplib2 print them without a network; they were seen, and not made up."""

from __future__ import annotations

import pytest

from configs.network_faults import network_fault

RESOLVE = (
    "HTTPSConnectionPool(host='oauth2.googleapis.com', port=443): Max retries exceeded with url: /token (Caused by "
    'NameResolutionError("<urllib3.connection.HTTPSConnection object at 0x7f>: Failed to resolve '
    "'oauth2.googleapis.com' ([Errno -2] Name or service not known)\"))"
)


@pytest.mark.parametrize(
    ("message", "host", "cause"),
    [
        (RESOLVE, "oauth2.googleapis.com", "its name is not found"),
        (
            "HTTPConnectionPool(host='127.0.0.1', port=1): Max retries exceeded with url: / (Caused by "
            "NewConnectionError('<x>: Failed to establish a new connection: [Errno 111] Connection refused'))",
            "127.0.0.1",
            "it refuses connections",
        ),
        ("gcloud crashed (ServerNotFoundError): Unable to find the server at a.b.com", "a.b.com", "name is not found"),
        ("HTTPSConnectionPool(host='a.b', port=443): Read timed out. (read timeout=60)", "a.b", "it does not answer"),
        (
            "HTTPSConnectionPool(host='a.b', port=443): Max retries exceeded with url: / (Caused by "
            "ProxyError('Unable to connect to proxy', OSError('Tunnel connection failed: 403 Forbidden')))",
            "a.b",
            "the proxy does not let it",
        ),
        ("gcloud crashed (ConnectionError): ", "the service", "no connection can be made"),
        ("('Connection aborted.', RemoteDisconnected('Remote end closed'))", "the service", "the connection was cut"),
    ],
)
def test_a_network_fault_names_the_host_and_the_cause(message, host, cause):
    said = network_fault(message)
    assert said.startswith(f"cannot reach {host} (")
    assert cause in said
    assert "\n" not in said
    assert "Pool" not in said


@pytest.mark.parametrize(
    "message",
    [
        "HTTPConnectionPool(host='metadata.google.internal', port=80): Max retries exceeded with url: /computeMetadata",
        "Failed to retrieve http://169.254.169.254/computeMetadata/v1/: timed out",
    ],
)
def test_the_metadata_server_is_explained(message):
    assert network_fault(message).startswith("the metadata server, which gives a machine of Google Cloud its cred")


@pytest.mark.parametrize(
    "message",
    [
        "You do not currently have an active account selected.",
        "PERMISSION_DENIED: Permission 'aiplatform.customJobs.create' denied",
        "INVALID_ARGUMENT: Machine type x is not supported",
        "RESOURCE_EXHAUSTED: quotas are exceeded",
        "No such bucket: gs://nowhere",
    ],
)
def test_other_faults_are_none(message):
    assert network_fault(message) is None
