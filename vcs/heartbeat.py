# SPDX-License-Identifier: GPL-2.0-only
"""What the provider type `heartbeat` (vcs_heartbeat.ko) has to know, as a value and as attributes of an attach. Pure.

It sends UDP between the first addresses of the nodes; the key is shared by all of them, and the kernel derives one from it for the
cluster's name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from vcs import _spec
from vcs.config.model import ClusterConfig
from vcs.errors import ConfigError

TYPE: Final = "heartbeat"
MODULE: Final = "vcs_heartbeat"
PORT: Final = 5404
"Beside totem's, so that a node can be moved from one to the other."
INTERVAL_MS: Final = 200
MISSED: Final = 3
"A node is down when so many beats did not come."


@dataclass(frozen=True, slots=True)
class Node:
    nodeid: int
    address: str
    "IPv4 or IPv6 literal."
    port: int = PORT


@dataclass(frozen=True, slots=True)
class Heartbeat:
    key: bytes
    "16 to 64 bytes."
    nodes: tuple[Node, ...]
    "All of the cluster, this one too."
    interval_ms: int = INTERVAL_MS
    "Alike on all nodes."

    def attributes(self) -> Mapping[str, Any]:
        """For ``attach_kernel``. The kernel wants the nodes in the order of their ids."""
        nodes = [
            {"nodeid": n.nodeid, "address": ipaddress.ip_address(n.address).packed, "port": n.port}
            for n in sorted(self.nodes, key=lambda n: n.nodeid)
        ]
        return {"key": self.key, "interval-ms": self.interval_ms, "node": nodes}


def from_config(config: ClusterConfig, port: int = PORT, interval_ms: int = INTERVAL_MS) -> Heartbeat:
    """The nodes and the first key of cluster.toml. Raises ConfigError when they cannot be used."""
    if not config.key:
        raise ConfigError([f"cluster {config.name} has no key; make one with `vcs keygen` and name it as cluster.key_file"])
    if len(config.nodes) > _spec.HEARTBEAT_NODES_MAX:
        raise ConfigError([f"heartbeat serves {_spec.HEARTBEAT_NODES_MAX} nodes, cluster {config.name} has {len(config.nodes)}"])
    nodes = tuple(Node(n.id, n.addresses[0], port) for n in config.nodes)
    if len({ipaddress.ip_address(n.address).version for n in nodes}) > 1:
        raise ConfigError([f"the first addresses of cluster {config.name} are of IPv4 and of IPv6; heartbeat needs one of them"])
    weighted = [n.name for n in config.nodes if n.votes != 1]
    if weighted:
        raise ConfigError([f"every node has one vote with heartbeat, {', '.join(weighted)} has others; leave node.votes out"])
    return Heartbeat(config.key, nodes, interval_ms)
