# SPDX-License-Identifier: GPL-2.0-only
"""Datagrams between nodes: every directed link has its own delay and faults, and can be cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.sim.world import MS, World


@dataclass(slots=True)
class Link:
    """What one direction of one pair does to datagrams. Probabilities are 0 to 1."""

    delay_ns: int = MS // 5
    jitter_ns: int = MS // 10
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    "How often a datagram takes up to ``reorder_ns`` longer."
    reorder_ns: int = 5 * MS
    corrupt: float = 0.0
    "How often one bit is turned: the receiver must refuse it."
    drop_above: int = 0
    "Datagrams larger than so many bytes vanish; 0: none."
    cut: bool = False


class Network:
    def __init__(self, world: World, nodes: Iterable[int]) -> None:
        self.world = world
        self.nodes = tuple(nodes)
        self.links = {(a, b): Link() for a in self.nodes for b in self.nodes if a != b}
        self.receivers: dict[int, Callable[[bytes, int], None]] = {}
        "What takes a node's datagrams, with the number of the link that they came on; nodes without one lose them."
        self.sent = 0

    def send(self, source: int, to: Iterable[int], data: bytes, way: int = 0) -> None:
        """``way``: which of the cluster's links it takes."""
        for target in to:
            self._send_one(source, target, data, way)

    def _send_one(self, source: int, target: int, data: bytes, way: int) -> None:
        link = self.links.get((source, target))
        self.sent += 1
        if link is None or link.cut or (link.drop_above and len(data) > link.drop_above):
            return
        rng = self.world.rng("net")
        if link.loss and rng.random() < link.loss:
            return
        copies = 2 if link.duplicate and rng.random() < link.duplicate else 1
        for _ in range(copies):
            delay = link.delay_ns + rng.randrange(link.jitter_ns + 1)
            if link.reorder and rng.random() < link.reorder:
                delay += rng.randrange(link.reorder_ns + 1)
            sent = data
            if link.corrupt and rng.random() < link.corrupt:
                bit = rng.randrange(len(data) * 8)
                sent = data[:bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1:]
            self.world.after(delay, lambda sent=sent: self._arrive(source, target, sent, way))  # type: ignore[misc]

    def _arrive(self, source: int, target: int, data: bytes, way: int) -> None:
        if self.links[source, target].cut:
            return
        receiver = self.receivers.get(target)
        if receiver is not None:
            receiver(data, way)

    # --- faults -------------------------------------------------------------------------------------------------------------

    def set_all(self, **faults: object) -> None:
        """Set fields of every link."""
        for link in self.links.values():
            for name, value in faults.items():
                setattr(link, name, value)

    def cut(self, source: int, target: int) -> None:
        """One direction."""
        self.links[source, target].cut = True

    def isolate(self, node: int) -> None:
        self.partition([[node], [n for n in self.nodes if n != node]])

    def partition(self, groups: Iterable[Iterable[int]]) -> None:
        """Cut every link between two groups, both ways; links within a group are as they were."""
        side = {n: i for i, group in enumerate(groups) for n in group}
        for (a, b), link in self.links.items():
            if side.get(a) != side.get(b):
                link.cut = True

    def heal(self) -> None:
        """Mend all cuts; other faults stay."""
        for link in self.links.values():
            link.cut = False

    def perfect(self) -> None:
        """No fault at all any more."""
        for key in self.links:
            self.links[key] = Link()
