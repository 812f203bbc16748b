# SPDX-License-Identifier: GPL-2.0-only
"""What every daemon of ours is: one per lock file, known to the service manager, sure of which node it is."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

from vcs.config.model import ClusterConfig, NodeConfig
from vcs.errors import ConfigError, VcsError


def sd_notify(state: str) -> None:
    """Tell systemd, if it started us: e.g. ``READY=1``. Never raises."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s:
            s.setblocking(False)
            s.sendto(state.encode(), b"\0" + path[1:].encode() if path[0] == "@" else path)
    except OSError:
        pass


class AlreadyRunning(VcsError):
    """Another process holds the lock."""

    exit_code = 75


class LockFile:
    """Held from construction until ``close()`` or the end of the process. Raises AlreadyRunning with the holder's pid."""

    def __init__(self, path: str | Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "?"
            os.close(self._fd)
            raise AlreadyRunning(f"process {holder} holds {path}", "there is one vcsd per handle") from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        os.close(self._fd)


def _is_local(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s:
            s.bind((address, 0))
    except OSError:
        return False
    return True


def own_node(config: ClusterConfig, wanted: str = "") -> NodeConfig:
    """Which node of the configuration this machine is: ``wanted`` (a name or an id), else by host name, else by address.

    Raises ConfigError if it is none, or if that cannot be told.
    """
    known = ", ".join(f"{n.name} ({n.id})" for n in config.nodes)
    if wanted:
        for node in config.nodes:
            if wanted in (node.name, str(node.id)):
                return node
        raise ConfigError([f"--node {wanted}: cluster {config.name} has no such node; its nodes: {known}"])
    host = socket.gethostname()
    for name in (host, host.split(".")[0]):
        for node in config.nodes:
            if node.name == name:
                return node
    here = [n for n in config.nodes if any(_is_local(a) for a in n.addresses)]
    if len(here) == 1:
        return here[0]
    found = f"the addresses of {' and '.join(n.name for n in here)} are local" if here else "no address is local"
    raise ConfigError(
        [
            f"host name {host!r} is no node of cluster {config.name} ({known}) and {found}; "
            "give --node, or name the node as the host"
        ]
    )
