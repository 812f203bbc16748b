# SPDX-License-Identifier: GPL-2.0-only
"""The scenarios' network: the simulator's, with delays that do not vary, and a filter that can pick out single datagrams."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tests.sim.network import FAULTS, Network
from tests.sim.world import World

DELAY_NS = 200_000
Filter = Callable[[int, int, bytes], int | None]
"(source, target, data) -> ns by which this datagram is late; None: it is lost."


class Wires(Network):
    def __init__(self, world: World, nodes: Iterable[int], jitter: bool, ways: int = 1) -> None:
        super().__init__(world, nodes, ways)
        self.filter: Filter | None = None
        self.copies = 1
        "Every datagram is sent so many times."
        self.set_all(delay_ns=DELAY_NS)
        if not jitter:
            self.set_all(jitter_ns=0)

    def set_links(self, source: int | None, to: int | None, way: int | None, **faults: object) -> None:
        """Set fields of every path that fits (None fits all)."""
        unknown = set(faults) - FAULTS
        if unknown:
            raise AttributeError(f"a link has no {unknown}")
        for (a, b, k), link in self.paths.items():
            if source in (None, a) and to in (None, b) and way in (None, k):
                for name, value in faults.items():
                    setattr(link, name, value)

    def _send_one(self, source: int, target: int, data: bytes, way: int) -> None:
        for _ in range(self.copies):
            late = self.filter(source, target, data) if self.filter is not None else 0
            if late:
                self.world.after(late, super()._send_one, source, target, data, way)
            elif late is not None:
                super()._send_one(source, target, data, way)
