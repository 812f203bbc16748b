# SPDX-License-Identifier: GPL-2.0-only
"""The inside of the protocol as checkers: J0 (the state table) and J1 to J5 (numbers as in docs/totem.md)."""

from __future__ import annotations

from collections.abc import Callable

from membership.api import Configuration, Processor
from membership.totem.core import Core
from membership.totem.engine import Action
from membership.totem.frames import Token
from membership.totem.limits import AEAD_CACHE_MAX, MESSAGE_MAX, PROCESSORS_MAX, QUEUE_BYTES_MAX, QUEUE_MESSAGES_MAX, STORE_MAX
from membership.totem.states import TABLE, Event, State
from tests.sim.checkers.record import Checker, Record
from tests.sim.engine_node import EngineHost, Node, stored_ring_seq
from vcs.model import RingId

MEMORY_EVERY = 32
"Events of a node between two looks at its memory."


class J0Table(Checker):
    """Every action ends in a state that its cell of the table declares."""

    name = "J0"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.reached: set[tuple[State, Event]] = set()
        self.on_token: Callable[[Core, Token], None] = lambda core, token: None

    def watch(self, host: EngineHost) -> None:
        """Put an observer around every bound action of this host."""
        engine = host.core
        engine._rows = tuple(tuple(self._observed(s, e, engine._rows[s][e]) for e in Event) for s in State)

    def _observed(self, state: State, event: Event, action: Action) -> Action:
        declared = TABLE[state, event].to
        cell = (state, event)
        reached = self.reached

        def observed(core: Core, sender: Processor | None, message: object, now: int) -> None:
            reached.add(cell)
            if event is Event.TOKEN and isinstance(message, Token):
                self.on_token(core, message)
            action(core, sender, message, now)
            if core.state not in declared:
                self.fail(f"{event.name} in {state.name} ended in {core.state.name}, the table says {declared}")

        return observed


class J1Monotone(Checker):
    """Inside one ring: tokens accepted, acknowledgement and delivery only rise, and never pass what exists."""

    name = "J1"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.last: dict[Processor, tuple[RingId, int, int, int, int, int]] = {}

    def after_event(self, node: Node, host: EngineHost) -> None:
        ring = host.core.core.ring
        now = (ring.id, ring.token.seen, ring.aru, ring.delivered, ring.released, ring.safe_upto)
        before = self.last.get(host.processor)
        if before == now:
            return
        self.last[host.processor] = now
        if before is not None and before[0] == now[0] and any(a < b for a, b in zip(now[1:], before[1:], strict=True)):
            self.fail(f"{host.processor} in {ring.id}: {before} became {now}")
        if not ring.released <= ring.delivered or not ring.aru <= ring.high:
            self.fail(f"{host.processor} in {ring.id}: released {ring.released}, delivered {ring.delivered}, "
                      f"aru {ring.aru}, high {ring.high}")


class J2Released(Checker):
    """A frame is forgotten only when every member that is still in its ring holds it."""

    name = "J2"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.released: dict[Processor, tuple[RingId, int]] = {}

    def after_event(self, node: Node, host: EngineHost) -> None:
        ring = host.core.core.ring
        now = (ring.id, ring.released)
        if self.released.get(host.processor) == now:
            return
        self.released[host.processor] = now
        for q in ring.members:
            other = self.record.hosts.get(q)
            if other is None or not other.alive:
                continue
            core = other.core.core
            theirs = core.ring if core.ring.id == ring.id else core.forming.ring if core.forming is not None else None
            if theirs is not None and theirs.id == ring.id and theirs.aru < ring.released:
                self.fail(f"{host.processor} forgot {ring.id} up to {ring.released}, {q} holds up to {theirs.aru}")


class J3Persisted(Checker):
    """A ring's sequence is on disk before the ring is installed, and a node never installs an older ring than in a former life."""

    name = "J3"

    def __init__(self, record: Record, nodes: dict[int, Node]) -> None:
        super().__init__(record)
        self.nodes = nodes
        self.highest: dict[int, int] = {}

    def disk_lost(self, nodeid: int) -> None:
        """Nobody can remember what was on it."""
        self.highest.pop(nodeid, None)

    def on_configuration(self, p: Processor, conf: Configuration) -> None:
        stored = stored_ring_seq(self.nodes[p.nodeid])
        if conf.ring.seq > stored:
            self.fail(f"node {p.nodeid} installs {conf.ring}, and {stored} is on disk")
        if conf.ring.seq <= self.highest.get(p.nodeid, 0):
            self.fail(f"node {p.nodeid} installs {conf.ring} after {self.highest[p.nodeid]}")
        self.highest[p.nodeid] = conf.ring.seq


class J4Gathering(Checker):
    """While a node gathers, who takes part and who failed only grow; failed ones take part; nobody holds itself for failed."""

    name = "J4"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.sets: dict[Processor, tuple[RingId, frozenset[Processor], frozenset[Processor]]] = {}

    def after_event(self, node: Node, host: EngineHost) -> None:
        core = host.core.core
        before = self.sets.get(host.processor)
        ring, proc, fail = core.ring.id, core.proc, core.fail
        if before is not None and before[0] == ring and before[1] == proc and before[2] == fail:
            return
        if host.processor in fail or not fail <= proc:
            self.fail(f"{host.processor} holds {fail} of {proc} for failed")
        if before is not None and before[0] == ring and not (before[1] <= proc and before[2] <= fail):
            self.fail(f"{host.processor}: proc {before[1]} became {proc}, fail {before[2]} became {fail}")
        self.sets[host.processor] = ring, frozenset(proc), frozenset(fail)


class J5Memory(Checker):
    """Memory: stores, queues, requests, sets and what is kept of each peer stay within their limits."""

    name = "J5"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.events = 0

    def after_event(self, node: Node, host: EngineHost) -> None:
        self.events += 1
        if self.events % MEMORY_EVERY:
            return
        core = host.core.core
        forming = core.forming
        sizes = {
            "stored frames": (len(core.ring.store), STORE_MAX),
            "stored frames of the forming ring": (len(forming.ring.store) if forming else 0, STORE_MAX),
            "frames to exchange": (len(forming.queue) if forming else 0, STORE_MAX),
            "processors": (len(core.proc), PROCESSORS_MAX),
            "joins": (len(core.joins), PROCESSORS_MAX),
            "queued messages": (len(core.queue), QUEUE_MESSAGES_MAX),
            "queued bytes": (core.queue._bytes, QUEUE_BYTES_MAX),
            "parts of messages": (sum(len(data) for _total, data in core.reassembly._partial.values()),
                                  MESSAGE_MAX * len(core.ring.members)),
            "keys": (len(core.sealer._cache), AEAD_CACHE_MAX),
            "timers": (len(core.timers), len(Event)),
            "raised events": (len(core.raised), 0),
        }
        for what, (size, limit) in sizes.items():
            if size > limit:
                self.fail(f"{host.processor} holds {size} {what}, the limit is {limit}")


def inside(record: Record, nodes: dict[int, Node]) -> list[Checker]:
    return [J1Monotone(record), J2Released(record), J4Gathering(record), J5Memory(record), J0Table(record), J3Persisted(record, nodes)]
