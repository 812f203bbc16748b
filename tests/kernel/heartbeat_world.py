# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of the provider `heartbeat` stand on: instances of it in this kernel, directly connected or over a wire that can be cut.
The fixtures are found as a plugin (``pytest_plugins``)."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.kernel.guest_contract import KernelBackend
from tests.kernel.guest_module import CONSUMER, load, loaded
from tests.kernel.heartbeat_wire import LOCAL, Wire
from vcs.heartbeat import MISSED, MODULE, TYPE, Heartbeat, Node
from vcs.netlink import KernelSwitch

DEBUG = Path("/sys/kernel/debug/vcs_heartbeat")
KEY = b"a key that all nodes share"
INTERVAL_MS = 400
BEAT_S = INTERVAL_MS / 1000
LATE_S = 1.5
"What a busy host may add to anything; figures are recorded."
numbers = count(1)


def free_port(address: str = LOCAL) -> int:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        one.bind((address, 0))
        return int(one.getsockname()[1])


class Instance:
    """One node of one cluster, in this kernel."""

    def __init__(self, backend: KernelBackend, name: str, nodeid: int, nodes: Iterable[Node], interval_ms: int = INTERVAL_MS) -> None:
        self.backend, self.name, self.nodeid = backend, name, nodeid
        self.nodes = tuple(nodes)
        self.interval_ms = interval_ms
        self.handle = f"{name}-{nodeid}"
        self.port = next(n.port for n in self.nodes if n.nodeid == nodeid)
        self.switch = backend.port()
        self.reader = backend.port()
        self.switch.cluster_add(self.handle, name, nodeid)
        self.attached = False

    def attach(self, key: bytes = KEY) -> None:
        self.switch.attach_kernel(self.handle, TYPE, Heartbeat(key, self.nodes, self.interval_ms).attributes())
        self.attached = True

    def detach(self) -> None:
        self.switch.detach_kernel(self.handle)
        self.attached = False

    def close(self) -> None:
        if self.attached:
            self.detach()
        self.switch.cluster_del(self.handle)

    def members(self) -> list[int]:
        return [m.nodeid for m in self.reader.view(self.handle).members]

    def quorate(self) -> bool:
        return self.reader.view(self.handle).quorate

    def generation(self) -> int:
        return self.reader.view(self.handle).generation

    def sees(self, *members: int) -> None:
        """Wait until the view has these members."""
        what = f"{self.handle} to see {members}; it sees {self.members()}\n{self.said()}"
        self.backend.wait(what, lambda: self.members() == list(members), self.reader)

    def has_boot(self, boot: int) -> None:
        """Wait until the view's last member is of this boot."""
        self.backend.wait(f"boot {boot:#x}", lambda: self.reader.view(self.handle).members[-1].incarnation == boot, self.reader)

    def said(self) -> str:
        return (DEBUG / self.handle).read_text() if self.attached else "detached"

    def line(self, nodeid: int = 0) -> dict[str, int]:
        """What debugfs says of the peer ``nodeid``, or of this node."""
        lines = [dict(pair.split("=") for pair in line.split()) for line in self.said().splitlines()]
        found = lines[0] if not nodeid else next(x for x in lines[1:] if int(x["nodeid"]) == nodeid)
        return {key: int(value) for key, value in found.items()}

    def wait_count(self, what: str, least: int) -> None:
        self.backend.wait(f"{least} packets {what}\n{self.said()}", lambda: self.line()[what] >= least, self.reader)


@pytest.fixture
def backend() -> Iterator[KernelBackend]:
    load(MODULE)
    backend = KernelBackend()
    yield backend
    for cluster in KernelSwitch().clusters():
        if cluster.provider == TYPE and cluster.provider_state.name == "ATTACHED":
            KernelSwitch().detach_kernel(cluster.handle)
    if loaded(CONSUMER):
        subprocess.run(["rmmod", CONSUMER], timeout=30, check=False)
    backend.clean()


def wired(backend: KernelBackend, wire: Wire, size: int = 2) -> dict[int, Instance]:
    """Nodes that reach each other over a wire that can be cut."""
    name, ports = f"w{next(numbers)}", {n: free_port() for n in range(1, size + 1)}
    made = {}
    for me, own in ports.items():
        others = {n: wire.way(me, n, ports[n]) for n in ports if n != me}
        nodes = [Node(n, LOCAL, own if n == me else others[n]) for n in ports]
        made[me] = Instance(backend, name, me, nodes)
        made[me].attach()
    for one in made.values():
        one.sees(*ports)
    return made


def direct(backend: KernelBackend, addresses: dict[int, str]) -> dict[int, Instance]:
    """Nodes on addresses of their own, attached and up."""
    name, port = f"d{next(numbers)}", free_port()
    nodes = [Node(n, address, port) for n, address in addresses.items()]
    made = {n: Instance(backend, name, n, nodes) for n in addresses}
    for one in made.values():
        one.attach()
    for one in made.values():
        one.sees(*addresses)
    return made


@pytest.fixture
def wire() -> Iterator[Wire]:
    with Wire() as wire:
        yield wire


def more_beats(backend: KernelBackend, wire: Wire, sender: int, to: int) -> None:
    """Wait until some were delivered this way."""
    enough = len(wire.seen[sender, to]) + MISSED + 1
    backend.wait(f"beats from {sender}", lambda: len(wire.seen[sender, to]) >= enough, backend.port())
