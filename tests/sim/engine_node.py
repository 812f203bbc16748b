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

INBOX_MAX = 256
"Datagrams that wait at a paused node; more are lost, as in a socket's buffer."
RING_SEQ = "ring_seq"
"Where EngineHost keeps the ring sequence in ``Node.storage``."


class Program(Protocol):
    """What a node runs. After each call the node asks for the next deadline (ns of the world's clock)."""

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
        "``before`` or ``after``: crash at the next persist, once."
        self.on_crash: list[Callable[[Node], None]] = []
        self._inbox: deque[tuple[bytes, int]] = deque()
        self._wake_at: int | None = None
        network.receivers[nodeid] = self._receive

    @property
    def up(self) -> bool:
        return self.program is not None

    def start(self, reboot: bool = True) -> None:
        """Start the program; ``reboot``: the machine was off (new boot incarnation), else only the process was."""
        assert self.program is None
        if reboot or not self.boot:
            self.boot += 1
        self.engine += 1
        self.processor = Processor(self.nodeid, self._unique("boot", self.boot), self._unique("engine", self.engine))
        self.paused = False
        self._inbox.clear()
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
        for hook in self.on_crash:
            hook(self)

    def persist(self, key: str, value: bytes) -> bool:
        """Write durably. False: the node crashed at it, and the caller must do nothing more."""
        fate, self.crash_at_persist = self.crash_at_persist, ""
        if fate == "before":
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
        while self._inbox and self.program is not None and not self.paused:
            self.program.datagram(*self._inbox.popleft())
        if self.program is not None:
            self.program.tick()
            self._rearm()

    def poke(self) -> None:
        """Something was asked of the program from outside its own events: its deadline may have changed."""
        self._rearm()

    def _receive(self, data: bytes, link: int) -> None:
        if self.program is None:
            return
        if self.paused:
            if len(self._inbox) < INBOX_MAX:
                self._inbox.append((data, link))
            return
        self.program.datagram(data, link)
        self._rearm()

    def _rearm(self) -> None:
        if self.program is None or self.paused:
            return
        at = self.program.deadline()
        if at is not None and (self._wake_at is None or at < self._wake_at):
            self._wake_at = at
            self.world.at(at, lambda: self._wake(at))

    def _wake(self, at: int) -> None:
        if self._wake_at != at:
            return
        self._wake_at = None
        if self.program is None or self.paused:
            return
        due = self.program.deadline()
        if due is not None and due <= self.world.now:
            self.program.tick()
        self._rearm()


class BadTag(Exception):
    """The simulator's counterpart of InvalidTag."""


class CheapAead:
    """Behaves as AES-GCM does towards its users, for a fraction of the time: what is changed, or another's, is refused."""

    def __init__(self, processor: Processor) -> None:
        self._key = zlib.crc32(repr(processor).encode())

    def _tag(self, nonce: bytes, data: bytes, aad: bytes) -> bytes:
        return (zlib.crc32(data, zlib.crc32(aad, zlib.crc32(nonce, self._key)))).to_bytes(16, "big")

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
    key_id = 0

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
        stored = int(node.storage.get(RING_SEQ, b"0"))
        self.core = TotemCore(
            CoreConfig(processor, nodes or node.network.nodes, Timing.of(config or TotemConfig()), stored),
            Sealer("sim", processor, CheapSuite()),
        )
        self._effects: deque[Effect] = deque()
        self._running = False

    # --- the program's side -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._run(self.core.start(self.node.world.now))

    def datagram(self, data: bytes, link: int = 0) -> None:
        self._run(self.core.datagram(data, self.node.world.now, link))

    def tick(self) -> None:
        self._run(self.core.tick(self.node.world.now))

    def deadline(self) -> int | None:
        return self.core.deadline()

    # --- the user's side ----------------------------------------------------------------------------------------------------

    def submit(self, payload: bytes, order: Order = Order.AGREED) -> None:
        self._run(self.core.submit(payload, order, self.node.world.now))
        self.node.poke()

    def leave(self) -> None:
        """Say goodbye; the caller then stops the node (``crash``)."""
        self._run(self.core.leave(self.node.world.now))

    @property
    def alive(self) -> bool:
        return self.node.processor is self.processor and self.node.up

    def _run(self, effects: list[Effect]) -> None:
        self._effects.extend(effects)
        if self._running:
            return  # the outer call goes on with what was added
        self._running = True
        try:
            while self._effects and self.alive:
                self._execute(self._effects.popleft())
        finally:
            self._running = False

    def _execute(self, effect: Effect) -> None:
        match effect:
            case Send():
                self.node.network.send(self.node.nodeid, effect.to, effect.data, effect.link)
            case Persist():
                self.persist(effect.ring_seq)
            case Deliver():
                self.sink(effect.event)
            case DeliverMessages():
                for message in effect.messages:
                    if not self.alive:
                        return  # the one before was the last thing that this process did
                    self.sink(message)
            case Note():
                self.on_note(effect.name, effect.fields)

    def persist(self, ring_seq: int) -> None:
        self.node.persist(RING_SEQ, str(ring_seq).encode())
