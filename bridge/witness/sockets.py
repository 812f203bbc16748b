# SPDX-License-Identifier: GPL-2.0-only
"""What node and witness have in common on the network: a UDP socket, and seals of their own under the cluster's keys."""

from __future__ import annotations

import socket

from bridge.witness.wire import PURPOSE
from membership.api import Processor
from membership.totem.aes import AesGcm
from membership.totem.seal import Sealer
from membership.totem.sockets import resolve
from vcs.config.model import ClusterConfig, WitnessConfig
from vcs.errors import VcsError


def sealer(config: ClusterConfig, local: Processor) -> Sealer:
    """Seals and opens frames of this protocol, and no others."""
    return Sealer(f"{config.name} witness", local, *suites(config))


def suites(config: ClusterConfig) -> list[AesGcm]:
    return [AesGcm(key, PURPOSE) for key in (config.key, *config.more_keys)]


def connected(held: WitnessConfig) -> socket.socket:
    """A socket that talks to the witness alone. Raises VcsError or OSError."""
    family, where = resolve(held.address, held.port)
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.connect(where)
    except OSError:
        sock.close()
        raise
    return sock


def bound(held: WitnessConfig) -> socket.socket:
    """The witness's own. Raises VcsError."""
    family, where = resolve(held.address, held.port)
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
    except OSError as error:
        sock.close()
        remedy = "is another witness running, and is [quorum.witness] address this machine's?"
        raise VcsError(f"cannot bind UDP {held.address} port {held.port}: {error.strerror}", remedy) from None
    return sock
