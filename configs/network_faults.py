"""Says in plain words which host cannot be reached, from the messages of HTTP clients and of gcloud."""

from __future__ import annotations

import re

# How advice begins where no host at all can be reached.
NO_NETWORK = "There seems to be no network here: check the connection"
# Google Cloud's machines ask this server for their credentials. Elsewhere there is none.
_METADATA = re.compile(r"metadata\.google\.internal|169\.254\.169\.254|[Mm]etadata ?[Ss]erver")
_HOSTS = (
    re.compile(r"host='(?P<host>[^']+)'"),  # requests and urllib3
    re.compile(r"Unable to find the server at (?P<host>[\w.-]+)"),  # httplib2
    re.compile(r"Failed to resolve '(?P<host>[^']+)'"),
    re.compile(r"[Cc]ould not resolve (?:host|proxy): (?P<host>[\w.-]+)"),  # curl
    re.compile(r"https?://(?P<host>[\w.-]+)"),
)
# What the messages of networks have in common, with what it means. The first pattern that matches is used.
_CAUSES = (
    (r"ProxyError|Tunnel connection failed|[Uu]nable to connect to proxy|resolve proxy", "the proxy does not let it"),
    (
        r"NameResolution|Name or service not known|[Nn]ame resolution|nodename nor servname|getaddrinfo|"
        r"Unable to find the server|[Cc]ould not resolve",
        "its name is not found: no network, or no name service",
    ),
    (r"CERTIFICATE_VERIFY_FAILED|SSLError|SSLCertVerification|certificate verify failed", "its certificate is refused"),
    (r"Network is unreachable|No route to host|Errno 101|Errno 113", "there is no network to it"),
    (r"Connection refused|Errno 111", "it refuses connections"),
    (r"timed out|[Tt]imeout|Errno 110", "it does not answer"),
    (r"Connection reset|Connection aborted|RemoteDisconnected|Connection broken", "the connection was cut"),
    (r"ConnectionError|ServerNotFoundError|Max retries exceeded|TransportError", "no connection can be made"),
)


def network_fault(message: str) -> str | None:
    """A network fault in one plain sentence without its full stop; None if a message is about something else.

    Args:
      message: of an HTTP client, as it is; it may be long and have several lines.
    """
    cause = next((words for pattern, words in _CAUSES if re.search(pattern, message)), None)
    if cause is None:
        return None
    if _METADATA.search(message):
        return (
            "the metadata server, which gives a machine of Google Cloud its credentials, does not answer. Anywhere "
            "else, log in: gcloud auth login, and gcloud auth application-default login"
        )
    host = next((found["host"] for pattern in _HOSTS if (found := pattern.search(message))), None)
    return f"cannot reach {host or 'the service'} ({cause})"
