"""Hosts of a test: network namespaces with addresses of their own, which a cable can be pulled from. It needs root."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
from collections.abc import Iterator

CAN_MAKE_HOSTS = os.geteuid() == 0 and shutil.which("ip") is not None
WHY_NOT = "hosts are network namespaces, for which root and the program ip are needed"


@dataclasses.dataclass(frozen=True)
class Host:
    """A host: its address, and the words before a command that runs on it."""

    address: str
    name: str = ""

    @property
    def prefix(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.name) if self.name else ()

    def cut_off(self) -> None:
        """Pulls the cable."""
        _ip("-n", self.name, "link", "set", "eth0", "down")

    def bring_back(self) -> None:
        _ip("-n", self.name, "link", "set", "eth0", "up")


LOOPBACK = Host("127.0.0.1")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextlib.contextmanager
def made_hosts(number: int) -> Iterator[list[Host]]:
    """Hosts on one network, which lead nowhere else. The first one has the switch, and is not cut off."""
    tag = f"hugs{os.getpid()}"
    with contextlib.ExitStack() as stack:
        hosts = []
        for index in range(number):
            host = Host(f"10.77.0.{index + 1}", f"{tag}-{index}")
            _ip("netns", "add", host.name)
            stack.callback(_ip, "netns", "del", host.name)
            _ip("-n", host.name, "link", "set", "lo", "up")
            hosts.append(host)
        switch = hosts[0]
        _ip("-n", switch.name, "link", "add", "br0", "type", "bridge")
        _ip("-n", switch.name, "addr", "add", f"{switch.address}/24", "dev", "br0")
        _ip("-n", switch.name, "link", "set", "br0", "up")
        for index, host in enumerate(hosts[1:]):
            port = f"port{index}"
            _ip("-n", switch.name, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host.name)
            _ip("-n", switch.name, "link", "set", port, "master", "br0", "up")
            _ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", "eth0")
            _ip("-n", host.name, "link", "set", "eth0", "up")
        yield hosts
