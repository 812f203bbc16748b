# SPDX-License-Identifier: GPL-2.0-only
"""A node as the engine sees it: storage that survives, incarnations, crash, pause; and the adapter that runs a Totem core on it.

What runs on a node is a :class:`Program`, made by the factory that the node was given: the engine alone, or engine, coordinator and
whatever is above them. The node hands it datagrams and ticks by the driver's contract (all datagrams first).
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable
from typing import Protocol

from membership.api import EngineEvent, Order, Processor
from membership.totem.core import CoreConfig, Deliver, DeliverMessages, Effect, Note, Persist, Send
from membership.totem.engine import TotemCore
from membership.totem.limits import Timing
from membership.totem.seal import Sealer
from tests.sim.network import Network
from tests.sim.world import World
from vcs.config.model import TotemConfig

DATAGRAM_COST = 768
"Bytes of a socket's buffer that a datagram takes besides its own (the kernel counts so)."
DRAIN_MAX = 512
"Datagrams that a program reads before its timers get their turn, as in driver.py."
PPM = 1_000_000
RING_SEQ = "ring_seq"
"Where EngineHost keeps the ring sequence in ``Node.storage``."


class Program(Protocol):
    """What a node runs. After each call the node asks for the next deadline (ns of the node's clock)."""

    def start(self) -> None: ...

    def datagram(self, data: bytes, link: int = 0) -> None: ...

    def tick(self) -> None: ...

    def deadline(self) -> int | None: ...


Factory = Callable[["Node", Processor], Program]


class Node:
    def __init__(self, world: World, network: Network, nodeid: int, factory: Factory) -> None:
        self.world = world
        self.network = network
        self.nodeid = nodeid
        self.factory = factory
        self.storage: dict[str, bytes] = {}
        "Survives crashes. Write with ``persist``, which is where a crash can strike."
        self.boot = 0
        self.engine = 0
        self.program: Program | None = None
        self.processor: Processor | None = None
        self.paused = False
        self.crash_at_persist = ""
        "``before``, ``after``: crash at the next persist, once; ``failing``: the disk refuses, and the process ends of it."
        self.persist_ns = 0
        "How long a write takes."
        self.cost_ns = 0
        "How long this node's CPU is busy with one datagram."
        self.inbox_bytes = 1 << 20
        "The socket's buffer: what does not fit while the node is paused or busy is lost."
        self.skew_ppm = 0
        "How much faster than the world's its clock goes."
        self.overflowed = 0
        self.wrote_ns = 0
        "When the last slow write ended: nothing was sent or told while it lasted."
        self.on_crash: list[Callable[[Node], None]] = []
        self._inbox: deque[tuple[bytes, int]] = deque()
        self._waiting = 0
        self._busy_until = 0
        self._draining = False
        self._wake_at: int | None = None
        network.receivers[nodeid] = self._receive

    @property
    def up(self) -> bool:
        return self.program is not None

    @property
    def now(self) -> int:
        """This node's clock."""
        now = self.world.now
        return now + now * self.skew_ppm // PPM if self.skew_ppm else now

    def world_time(self, at: int) -> int:
        """The first moment at which ``now`` is ``at`` or later."""
        if not self.skew_ppm:
            return at
        return -(-at * PPM // (PPM + self.skew_ppm))

    def start(self, reboot: bool = True) -> None:
        """Start the program; ``reboot``: the machine was off (new boot incarnation), else only the process was."""
        assert self.program is None
        if reboot or not self.boot:
            self.boot += 1
        self.engine += 1
        self.processor = Processor(self.nodeid, self._unique("boot", self.boot), self._unique("engine", self.engine))
        self.paused = False
        self._empty()
        self._wake_at = None
        self.world.trace("start", self.nodeid, self.boot, self.engine)
        self.program = self.factory(self, self.processor)
        self.program.start()
        self._rearm()

    def _unique(self, what: str, count: int) -> int:
        """Incarnations are unique numbers without order, as the real ones are (drawn by the kernel, by the process)."""
        return zlib.crc32(f"{what}/{self.nodeid}/{count}".encode()) << 20 | self.nodeid << 12 | count

    def crash(self) -> None:
        """The process ends between two instructions. Nothing but ``storage`` remains."""
        if self.program is None:
            return
        self.world.trace("crash", self.nodeid)
        self.program = None
        self.crash_at_persist = ""
        self._empty()
        for hook in self.on_crash:
            hook(self)

    def persist(self, key: str, value: bytes) -> bool:
        """Write durably. False: the node crashed at it, and the caller must do nothing more."""
        fate, self.crash_at_persist = self.crash_at_persist, ""
        if fate in ("before", "failing"):
            self.crash()
            return False
        self.storage[key] = value
        if fate == "after":
            self.crash()
            return False
        return True

    def pause(self) -> None:
        self.paused = True
        self.world.trace("pause", self.nodeid)

    def resume(self) -> None:
        """Go on: first everything that arrived meanwhile, then the timers."""
        if not self.paused:
            return
        self.paused = False
        self.world.trace("resume", self.nodeid)
        self._drain()

    def poke(self) -> None:
        """Something was asked of the program from outside its own events: its deadline may have changed."""
        self._rearm()

    # --- the socket, the CPU, the clock -------------------------------------------------------------------------------------

    def _empty(self) -> None:
        self._inbox.clear()
        self._waiting = 0

    def _receive(self, data: bytes, link: int) -> None:
        program = self.program
        if program is None:
            return
        if self.paused or self.cost_ns or self._inbox:
            if self._waiting + len(data) + DATAGRAM_COST > self.inbox_bytes:
                self.overflowed += 1
                return
            self._inbox.append((data, link))
            self._waiting += len(data) + DATAGRAM_COST
            if not self.paused and not self._draining:
                self._draining = True
                self.world.at(self._busy_until, self._drain)
            return
        program.datagram(data, link)
        self._rearm()

    def _drain(self) -> None:
        """Read what waits, then fire what is due; a slow CPU needs its time for each."""
        self._draining = False
        for _ in range(1 if self.cost_ns else DRAIN_MAX):
            if not self._inbox or self.program is None or self.paused:
                break
            data, link = self._inbox.popleft()
            self._waiting -= len(data) + DATAGRAM_COST
            self.program.datagram(data, link)
        if self.program is None or self.paused:
            return
        self._busy_until = self.world.now + self.cost_ns
        if self._inbox:
            self._draining = True
            self.world.at(self._busy_until, self._drain)
        else:
            self.program.tick()
        self._rearm()

    def _rearm(self) -> None:
        if self.program is None or self.paused:
            return
        deadline = self.program.deadline()
        if deadline is None:
            return
        at = self.world_time(deadline)
        if self._wake_at is None or at < self._wake_at:
            self._wake_at = at
            self.world.at(at, self._wake, at)

    def _wake(self, at: int) -> None:
        if self._wake_at != at:
            return
        self._wake_at = None
        if self.program is None or self.paused or self._draining:
            return  # what waits is read first, then the timers fire
        due = self.program.deadline()
        if due is not None and due <= self.now:
            self.program.tick()
        self._rearm()


class BadTag(Exception):
    """The simulator's counterpart of InvalidTag."""


class CheapAead:
    """Behaves as AES-GCM does towards its users, for a fraction of the time: what is changed, or another's, is refused."""

    def __init__(self, processor: Processor) -> None:
        self._key = zlib.crc32(repr(processor).encode())

    def _tag(self, nonce: bytes, data: bytes, aad: bytes) -> bytes:
        return zlib.crc32(data, zlib.crc32(aad, zlib.crc32(nonce, self._key))).to_bytes(16, "big")

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes:
        return data + self._tag(nonce, data, associated_data)

    def decrypt(self, nonce: bytes, data: bytes | memoryview, associated_data: bytes, /) -> bytes:
        data = bytes(data)
        if data[-16:] != self._tag(nonce, data[:-16], associated_data):
            raise BadTag
        return data[:-16]


class CheapSuite:
    """Makes them."""

    invalid: type[Exception] = BadTag
    key_id: int = 0

    def __call__(self, processor: Processor, /) -> CheapAead:
        return CheapAead(processor)


class EngineHost:
    """Runs a TotemCore on a node: the simulator's counterpart of membership/totem/driver.py.

    It has Program's methods, so it can be a node's whole program, or the lower half of one: ``sink`` gets the engine's events, in
    order, and may call ``submit``.
    """

    def __init__(self, node: Node, processor: Processor, sink: Callable[[EngineEvent], None],
                 config: TotemConfig | None = None, nodes: tuple[int, ...] = ()) -> None:
        self.node = node
        self.processor = processor
        self.sink = sink
        self.on_note: Callable[[str, dict[str, object]], None] = lambda _name, _fields: None
        self._gasp = b""
        self.config = config or TotemConfig()
        self.core = TotemCore(
            CoreConfig(processor, nodes or node.network.nodes, Timing.of(self.config), stored_ring_seq(node), node.network.ways),
            Sealer("sim", processor, CheapSuite()),
        )
        self._effects: deque[Effect] = deque()
        self._running = False
        self.writing = False
        "Effects wait for a slow disk."

    # --- the program's side -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._run(self.core.start(self.node.now))
        self._gasp = self.core.last_gasp()

    def datagram(self, data: bytes, link: int = 0) -> None:
        self._run(self.core.datagram(data, self.node.now, link))

    def tick(self) -> None:
        self._run(self.core.tick(self.node.now))

    def deadline(self) -> int | None:
        return self.core.deadline()

    # --- the user's side ----------------------------------------------------------------------------------------------------

    def submit(self, payload: bytes, order: Order = Order.AGREED) -> None:
        self._run(self.core.submit(payload, order, self.node.now))
        self.node.poke()

    def leave(self) -> None:
        """Say goodbye; the caller then stops the node (``crash``)."""
        self._run(self.core.leave(self.node.now))

    def hint(self, nodeid: int, what: str, link: int) -> None:
        """The kernel told the driver something."""
        self._run(self.core.hint(nodeid, what, link, self.node.now))

    def gasp(self) -> None:
        """The process is dead, the host is not: its guardian says so for it, on all links (guardian.py)."""
        network = self.node.network
        others = tuple(n for n in network.nodes if n != self.node.nodeid)
        for way in range(network.ways):
            network.send(self.node.nodeid, others, self._gasp, way)

    @property
    def alive(self) -> bool:
        return self.node.processor is self.processor and self.node.program is not None

    def _run(self, effects: list[Effect]) -> None:
        self._effects.extend(effects)
        if self._running:
            return  # the outer call goes on with what was added
        self._running = True
        try:
            while self._effects and self.alive and not self.writing:
                self._execute(self._effects.popleft())
        finally:
            self._running = False

    def _execute(self, effect: Effect) -> None:
        kind = type(effect)
        if kind is Send:
            self.node.network.send(self.node.nodeid, effect.to, effect.data, effect.link)  # type: ignore[union-attr]
        elif kind is Deliver:
            self.sink(effect.event)  # type: ignore[union-attr]
        elif kind is DeliverMessages:
            for message in effect.messages:  # type: ignore[union-attr]
                if not self.alive:
                    return  # the one before was the last thing that this process did
                self.sink(message)
        elif kind is Persist:
            if not self.node.persist_ns:
                self.persist(effect.ring_seq)  # type: ignore[union-attr]
            else:
                self.writing = True
                self.node.world.after(self.node.persist_ns, self._written, effect.ring_seq)  # type: ignore[union-attr]
        elif kind is Note:
            self.on_note(effect.name, effect.fields)  # type: ignore[union-attr]

    def _written(self, ring_seq: int) -> None:
        """A slow disk is done: what stands behind the write goes on."""
        self.writing = False
        self.node.wrote_ns = self.node.world.now
        if self.alive:
            self.persist(ring_seq)
            self._run([])
            self.node.poke()

    def persist(self, ring_seq: int) -> None:
        self.node.persist(RING_SEQ, str(ring_seq).encode())


def stored_ring_seq(node: Node) -> int:
    """What is on disk; 0 if there is nothing that can be read, as in ringseq.py."""
    text = node.storage.get(RING_SEQ, b"")
    return int(text) if text.isdigit() else 0
