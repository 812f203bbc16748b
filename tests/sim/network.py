# SPDX-License-Identifier: GPL-2.0-only
"""Datagrams between nodes: every directed link of every pair has its own delay and faults, and can be cut.

A cluster may have several links (networks that all nodes are on). ``paths[a, b, k]`` is what a sends to b over link k;
``links[a, b]`` is the first of them. What chance decides for a datagram is its *fate*: drawn here, or told by a script (tape.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields

from tests.sim.world import MS, SECOND, World

SEGMENT = 1400
"Bytes of one packet on the wire; a larger frame travels in several, and is lost with any of them."
Fate = tuple[tuple[int, int], ...]
"Copies that arrive: (ns later than the link's delay, bit that is turned or -1). Empty: lost."
GOOD: Fate = ((0, -1),)


@dataclass(slots=True)
class Link:
    """What one direction of one pair does to datagrams. Probabilities are 0 to 1."""

    delay_ns: int = MS // 5
    jitter_ns: int = MS // 10
    fifo: bool = True
    "Jitter alone does not let one datagram overtake another; ``reorder`` does."
    loss: float = 0.0
    burst_enter: float = 0.0
    "Gilbert's model: how often a datagram begins a time in which all are lost,"
    burst_leave: float = 0.2
    "and how often one ends it."
    segment_loss: float = 0.0
    "Loss of each SEGMENT bytes of a datagram: large ones suffer more."
    duplicate: float = 0.0
    reorder: float = 0.0
    "How often a datagram takes up to ``reorder_ns`` longer."
    reorder_ns: int = 5 * MS
    corrupt: float = 0.0
    "How often one bit is turned: the receiver must refuse it."
    drop_above: int = 0
    "Datagrams larger than so many bytes vanish; 0: none."
    rate: int = 0
    "Bytes per second, 0: no limit;"
    queue: int = 65536
    "what waits beyond so many bytes is dropped."
    clogged_until: int = 0
    "What is sent before this time waits for it."
    cut: bool = False
    count: int = 0
    "Datagrams so far, for naming their fates."
    burst: bool = False
    free_at: int = 0
    "When the wire has sent what waits."
    last_at: int = 0
    "When the newest datagram arrives."

    @property
    def clean(self) -> bool:
        """Nothing is lost, held up or changed here."""
        return not (self.cut or self.loss or self.burst_enter or self.segment_loss or self.corrupt or self.drop_above
                    or self.rate or self.reorder or self.clogged_until)


FAULTS = frozenset(f.name for f in fields(Link)) - {"count", "burst", "free_at", "last_at"}
_PERFECT = Link()


class Network:
    def __init__(self, world: World, nodes: Iterable[int], ways: int = 1) -> None:
        self.world = world
        self.nodes = tuple(nodes)
        self.ways = ways
        self.paths = {(a, b, k): Link() for a in self.nodes for b in self.nodes if a != b for k in range(ways)}
        self.links = {(a, b): link for (a, b, k), link in self.paths.items() if not k}
        self.receivers: dict[int, Callable[[bytes, int], None]] = {}
        "What takes a node's datagrams, with the number of the link that they came on; nodes without one lose them."
        self.sent = 0
        self.sent_bytes = 0
        self.fates: dict[tuple[int, int, int, int], Fate] | None = None
        "(source, target, way, count) -> fate, all others being GOOD; None: chance decides."
        self.recorded: dict[tuple[int, int, int, int], Fate] | None = None
        "Where the fates that chance decided are written down, if anywhere."
        self.watch: Callable[[int, int, int, bytes, str], None] | None = None
        "Told of every datagram: (source, target, way, data, what happens to it)."
        self._rng = world.rng("net")

    def send(self, source: int, to: Iterable[int], data: bytes, way: int = 0) -> None:
        """``way``: which of the cluster's links it takes."""
        for target in to:
            self._send_one(source, target, data, way)

    def _send_one(self, source: int, target: int, data: bytes, way: int) -> None:
        link = self.paths.get((source, target, way))
        self.sent += 1
        size = len(data)
        self.sent_bytes += size
        if link is None:
            return
        link.count += 1
        if link.cut or (link.drop_above and size > link.drop_above):
            if self.watch is not None:
                self.watch(source, target, way, data, "cut" if link.cut else "too large")
            return
        wait = link.delay_ns
        now = self.world.now
        if link.rate:
            begin = max(now, link.free_at)
            if (begin - now) * link.rate > link.queue * SECOND:
                return
            link.free_at = begin + size * SECOND // link.rate
            wait += link.free_at - now
        if link.clogged_until > now:
            wait += link.clogged_until - now
        if self.fates is None:
            fate = self._draw(link, size)
            if self.recorded is not None and fate != GOOD:
                self.recorded[source, target, way, link.count] = fate
        else:
            fate = self.fates.get((source, target, way, link.count), GOOD)
        if self.watch is not None:
            self.watch(source, target, way, data, "" if fate == GOOD else "lost" if not fate else str(fate))
        for late, bit in fate:
            at = now + wait + late
            if link.fifo and late <= link.jitter_ns:
                link.last_at = at = max(at, link.last_at)
            sent = data
            if bit >= 0:
                byte, shift = divmod(bit % (size * 8), 8)
                sent = data[:byte] + bytes([data[byte] ^ 1 << shift]) + data[byte + 1:]
            self.world.at(at, self._arrive, link, target, sent, way)

    def _draw(self, link: Link, size: int) -> Fate:
        chance = self._rng.random
        if link.burst_enter:
            link.burst = chance() >= link.burst_leave if link.burst else chance() < link.burst_enter
            if link.burst:
                return ()
        if link.loss and chance() < link.loss:
            return ()
        if link.segment_loss and chance() >= (1 - link.segment_loss) ** (1 + size // SEGMENT):
            return ()
        late = int(chance() * (link.jitter_ns + 1)) if link.jitter_ns else 0
        if not (link.duplicate or link.reorder or link.corrupt):
            return ((late, -1),)
        copies = []
        for _ in range(2 if link.duplicate and chance() < link.duplicate else 1):
            later = late
            if link.reorder and chance() < link.reorder:
                later += int(chance() * (link.reorder_ns + 1))
            bit = int(chance() * size * 8) if link.corrupt and chance() < link.corrupt else -1
            copies.append((later, bit))
        return tuple(copies)

    def _arrive(self, link: Link, target: int, data: bytes, way: int) -> None:
        if link.cut:
            return
        receiver = self.receivers.get(target)
        if receiver is not None:
            receiver(data, way)

    # --- faults -------------------------------------------------------------------------------------------------------------

    def set_all(self, **faults: object) -> None:
        """Set fields of every link."""
        for link in self.paths.values():
            for name, value in faults.items():
                setattr(link, name, value)

    def cut(self, source: int, target: int, way: int | None = None) -> None:
        """One direction, of one link or of all."""
        for k in range(self.ways) if way is None else (way,):
            self.paths[source, target, k].cut = True

    def isolate(self, node: int) -> None:
        self.partition([[node], [n for n in self.nodes if n != node]])

    def partition(self, groups: Iterable[Iterable[int]]) -> None:
        """Cut every link between two groups, both ways; links within a group are as they were."""
        side = {n: i for i, group in enumerate(groups) for n in group}
        for (a, b, _k), link in self.paths.items():
            if side.get(a) != side.get(b):
                link.cut = True

    def heal(self) -> None:
        """Mend all cuts; other faults stay."""
        for link in self.paths.values():
            link.cut = False

    def perfect(self) -> None:
        """No fault at all any more."""
        for link in self.paths.values():
            mend(link)

    def connected(self, a: int, b: int, within_ns: int) -> bool:
        """Both directions of one link of the pair are without any fault, and take no longer than ``within_ns`` each."""
        pairs = [(self.paths[a, b, k], self.paths[b, a, k]) for k in range(self.ways)]
        return any(all(x.clean and x.delay_ns + x.jitter_ns <= within_ns for x in pair) for pair in pairs)


def mend(link: Link) -> None:
    """Take every fault away, in place: scenarios hold on to links."""
    for name in FAULTS:
        setattr(link, name, getattr(_PERFECT, name))
    link.burst, link.free_at, link.last_at = False, 0, 0
