"""What is said and checked before a job starts whose images lie at web addresses."""

from __future__ import annotations

import concurrent.futures
import socket
import sys
import urllib.parse
import urllib.request

from configs.errors import InputError
from configs.network_faults import NO_NETWORK
from pipelines.checks.preflight import MAX_WEB_HOSTS, ScannedLists

_CONNECT_TIMEOUT_SEC = 10
_NAMED_HOSTS = 3
# One of these must answer. A few may be gone from a list that was made long ago.
_TRIED_HOSTS = 16


def check_web_hosts(lists: ScannedLists, *, connections_per_host: int, from_here: bool) -> None:
    """Says which web hosts will be asked for images, and checks that this machine reaches one of them.

    Args:
      lists: the scanned lists.
      connections_per_host: the limit.
      from_here: whether this machine will ask them.

    Raises:
      InputError: no connection to any of the first hosts can be made.
    """
    if not lists.web_images:
        return
    hosts = list(lists.web_hosts)
    number = f"{len(hosts):,}" if len(hosts) < MAX_WEB_HOSTS else f"at least {MAX_WEB_HOSTS:,}"
    named = ", ".join(hosts[:_NAMED_HOSTS]) + (", ..." if len(hosts) > _NAMED_HOSTS else "")
    print(
        f"note: {lists.web_images:,} of {lists.images:,} images are read from {number} web host"
        f"{'' if len(hosts) == 1 else 's'} ({named}), at most {connections_per_host} at once from each "
        "(--connections_per_host)",
        file=sys.stderr,
    )
    if not from_here or urllib.request.getproxies():
        return
    urls = list(lists.web_hosts.values())[:_TRIED_HOSTS]
    threads = concurrent.futures.ThreadPoolExecutor(len(urls))
    try:
        tries = [threads.submit(_try_to_connect, url) for url in urls]
        fault: OSError | None = None
        for done in concurrent.futures.as_completed(tries):
            fault = done.result()
            if fault is None:
                return
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
    raise InputError(
        f"input_path: no connection to any of the web hosts of its images can be made ({named}: "
        f"{(fault and fault.strerror) or fault}). {NO_NETWORK}, or set https_proxy if there is a proxy."
    )


def _try_to_connect(url: str) -> OSError | None:
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port or (443 if parts.scheme.lower() == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=_CONNECT_TIMEOUT_SEC).close()
    except OSError as error:
        return error
    except ValueError as error:  # It is no address; UnicodeError is such an error.
        return OSError(str(error))
    return None
