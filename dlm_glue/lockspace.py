# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's two trees: /sys/kernel/dlm (what runs) and /sys/kernel/config/dlm (what is configured). Reading, and where things are.

Facts of the kernel, the same on 6.1 and 6.12: ``recover_status`` is hexadecimal and goes to 0 when a stop has completed; ``control=1``
reports no error; there is no uevent for "recovery done", so whoever waits for that reads recover_status again.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address
from typing import Protocol

CONFIG_ROOT = "/sys/kernel/config/dlm"
DLM_ROOT = "/sys/kernel/dlm"
CLUSTER_DIR = "cluster"
"The one cluster directory that the kernel can hold; dlm_controld's name for it."
SOCKADDR_SIZE = 128
"sizeof(struct sockaddr_storage): the only length that comms/N/addr accepts."
ADDRESSES_MAX = 3
NODEID_MAX = 0x7FFFFFFF
"The kernel DLM's nodeids are signed."
LOCKSPACE_MAX = 60
"Bytes of a lockspace's name: with the prefix `dlm:` it must fit into a group's name."


class Tree(Protocol):
    """The file operations that we need; errors are OSError, as the kernel gives them."""

    def mkdir(self, path: str) -> None: ...
    def rmdir(self, path: str) -> None: ...
    def write(self, path: str, data: bytes) -> None: ...
    def read(self, path: str) -> str: ...
    def listdir(self, path: str) -> list[str]: ...
    def exists(self, path: str) -> bool: ...


class OsTree:
    """The real trees. One write(2) per value, nothing buffered: the kernel acts on each write."""

    def mkdir(self, path: str) -> None:
        os.mkdir(path, 0o755)

    def rmdir(self, path: str) -> None:
        os.rmdir(path)

    def write(self, path: str, data: bytes) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            written = os.write(fd, data)
        finally:
            os.close(fd)
        if written != len(data):
            raise OSError(errno.EIO, f"{written} of {len(data)} bytes written", path)

    def read(self, path: str) -> str:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(fd, 8192).decode("ascii", "replace").strip()
        finally:
            os.close(fd)

    def listdir(self, path: str) -> list[str]:
        return sorted(e.name for e in os.scandir(path) if e.is_dir())

    def exists(self, path: str) -> bool:
        return os.path.isdir(path)


@dataclass(frozen=True, slots=True)
class Paths:
    """Where the trees are; tests put them elsewhere."""

    config: str = CONFIG_ROOT
    dlm: str = DLM_ROOT

    @property
    def cluster(self) -> str:
        return f"{self.config}/{CLUSTER_DIR}"

    @property
    def comms(self) -> str:
        return f"{self.cluster}/comms"

    def comm(self, nodeid: int) -> str:
        return f"{self.comms}/{nodeid}"

    @property
    def spaces(self) -> str:
        return f"{self.cluster}/spaces"

    def space(self, name: str) -> str:
        return f"{self.spaces}/{name}"

    def nodes(self, name: str) -> str:
        return f"{self.spaces}/{name}/nodes"

    def node(self, name: str, nodeid: int) -> str:
        return f"{self.spaces}/{name}/nodes/{nodeid}"

    def lockspace(self, name: str) -> str:
        return f"{self.dlm}/{name}"


def sockaddr(address: str) -> bytes:
    """An address as the kernel wants it: a whole sockaddr_storage, port 0 (the DLM fills it in). Raises ValueError."""
    ip = ip_address(address)
    if isinstance(ip, IPv4Address):
        raw = struct.pack("=HH4s", socket.AF_INET, 0, ip.packed)
    else:
        raw = struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, ip.packed, 0)
    return raw.ljust(SOCKADDR_SIZE, b"\0")


def parse_addr_list(text: str) -> tuple[str, ...]:
    """comms/N/addr_list (``AF_INET<tab>10.0.0.1`` per line) as canonical addresses. Raises ValueError."""
    return tuple(str(ip_address(line.split()[1])) for line in text.splitlines() if line.strip())


def parse_status(text: str) -> int:
    """recover_status; 0 for what cannot be read."""
    try:
        return int(text, 16)
    except ValueError:
        return 0


def read_status(tree: Tree, paths: Paths, name: str) -> int:
    """recover_status of a lockspace now. Raises OSError (ENOENT: the kernel does not have it)."""
    return parse_status(tree.read(f"{paths.lockspace(name)}/recover_status"))


@dataclass(frozen=True, slots=True)
class Left:
    """A lockspace as a starting dlm_glue finds it."""

    name: str
    present: bool
    id: int
    "0: never configured, that is, its join was never answered."
    status: int
    made: bool
    nodes: frozenset[int]
    "Complete nodes/N (their nodeid is set); a half-made one counts as unknown and is removed before the next start."


@dataclass(frozen=True, slots=True)
class Found:
    """Everything there is when dlm_glue starts."""

    comms: frozenset[int] = frozenset()
    "All comms/N except the local one."
    complete: frozenset[int] = frozenset()
    "Those of them that have a nodeid and an address."
    local: int = 0
    "The nodeid whose comm is local, 0 if there is none."
    spaces: Mapping[str, Left] = field(default_factory=dict)


def scan(tree: Tree, paths: Paths) -> Found:
    """Read both trees. Raises OSError if the DLM is not there at all."""
    comms: set[int] = set()
    complete: set[int] = set()
    local = 0
    for name in _numbers(tree, paths.comms):
        path = paths.comm(name)
        if tree.read(f"{path}/local") == "1":
            local = name
            continue
        comms.add(name)
        if tree.read(f"{path}/nodeid") == str(name) and tree.read(f"{path}/addr_list"):
            complete.add(name)
    configured = set(_names(tree, paths.spaces))
    running = set(tree.listdir(paths.dlm))
    spaces = {name: _left(tree, paths, name, name in running, name in configured) for name in configured | running}
    return Found(frozenset(comms), frozenset(complete), local, spaces)


def _left(tree: Tree, paths: Paths, name: str, present: bool, made: bool) -> Left:
    nodes = [n for n in _numbers(tree, paths.nodes(name)) if tree.read(f"{paths.node(name, n)}/nodeid") == str(n)]
    base = paths.lockspace(name)
    return Left(
        name,
        present,
        int(tree.read(f"{base}/id") or "0") if present else 0,
        read_status(tree, paths, name) if present else 0,
        made,
        frozenset(nodes),
    )


def _names(tree: Tree, path: str) -> list[str]:
    return tree.listdir(path) if tree.exists(path) else []


def _numbers(tree: Tree, path: str) -> list[int]:
    return [int(name) for name in _names(tree, path) if name.isdigit()]
