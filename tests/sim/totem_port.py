# SPDX-License-Identifier: GPL-2.0-only
"""The real engine under the machines of node.py: one Totem core per daemon, over the simulated network."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from membership.api import EngineEvent, Order, Processor
from tests.sim.engine_node import EngineHost, Node
from tests.sim.network import Network
from tests.sim.world import MS, World
from vcs.config.model import ClusterConfig
from vcs.errors import VcsError

RETRY_NS = 20 * MS


class _Seat(Node):
    """A node whose incarnations are the machine's."""

    sink: Callable[[EngineEvent], None]
    who: Processor

    def _unique(self, what: str, count: int) -> int:
        return self.who.boot if what == "boot" else self.who.engine


class TotemPort:
    """EnginePort and Wires of the machines, over Totem."""

    def __init__(self, world: World, config: ClusterConfig) -> None:
        self.world, self.config = world, config
        nodes = tuple(n.id for n in config.nodes)
        self.network = Network(world, nodes)
        self.seats = {n: _Seat(world, self.network, n, self._program) for n in nodes}
        self.waiting: dict[int, deque[bytes]] = {n: deque() for n in nodes}

    def _program(self, node: Node, processor: Processor) -> EngineHost:
        assert isinstance(node, _Seat)
        return EngineHost(node, processor, node.sink, self.config.totem)

    def start(self, who: Processor, sink: Callable[[EngineEvent], None]) -> None:
        seat = self.seats[who.nodeid]
        seat.who, seat.sink = who, sink
        self.waiting[who.nodeid].clear()
        seat.start()

    def stop(self, nodeid: int, gasp: bool = False) -> None:
        host = self.seats[nodeid].program
        if gasp and isinstance(host, EngineHost):
            host.gasp()
        self.seats[nodeid].crash()

    def leave(self, nodeid: int) -> None:
        """Goodbye, then the end of the process."""
        host = self.seats[nodeid].program
        if isinstance(host, EngineHost):
            host.leave()
        self.seats[nodeid].crash()

    def submit(self, nodeid: int, payload: bytes) -> None:
        self.waiting[nodeid].append(payload)
        self._flush(nodeid)

    def _flush(self, nodeid: int) -> None:
        host = self.seats[nodeid].program
        queue = self.waiting[nodeid]
        while queue and isinstance(host, EngineHost):
            try:
                host.submit(queue[0], Order.SAFE)
            except VcsError:
                self.world.after(RETRY_NS, lambda: self._flush(nodeid))
                return
            queue.popleft()

    def pause(self, nodeid: int, paused: bool) -> None:
        if paused:
            self.seats[nodeid].pause()
        else:
            self.seats[nodeid].resume()

    # --- the network ------------------------------------------------------------------------------------------------------
    def connect(self, sides: list[set[int]]) -> None:
        self.network.heal()
        self.network.partition(sides)

    def one_way(self, source: int, to: int) -> None:
        self.network.cut(source, to)

    def noise(self, level: float) -> None:
        self.network.set_all(loss=level, duplicate=level / 2, reorder=level / 2)
