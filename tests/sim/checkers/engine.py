# SPDX-License-Identifier: GPL-2.0-only
"""Extended virtual synchrony as checkers (numbers as in docs/totem.md: I1 to I15 of the model, J1 to J3 of the protocol's inside).

Each is a small class of its own. They share one :class:`Record` of what every processor was told, and say their name in the
violation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from membership.api import Configuration, Kind, Message, Processor
from membership.totem.core import Core
from membership.totem.engine import Action
from membership.totem.limits import PROCESSORS_MAX, STORE_MAX
from membership.totem.states import TABLE, Event, State
from tests.sim.engine_node import RING_SEQ, EngineHost, Node
from tests.sim.world import Violation
from vcs.model import RingId


@dataclass(slots=True)
class Period:
    """What one processor was told inside one configuration."""

    conf: Configuration
    messages: list[Message] = field(default_factory=list)


@dataclass(slots=True)
class Record:
    """Everything that the checkers look at."""

    periods: dict[Processor, list[Period]] = field(default_factory=dict)
    submitted: dict[bytes, tuple[Processor, bool]] = field(default_factory=dict)
    "payload -> (sender, safe); payloads are unique."
    dead: set[Processor] = field(default_factory=set)
    _delivered: dict[tuple[Processor, RingId], set[bytes]] = field(default_factory=dict)

    def regular_before(self, p: Processor, index: int) -> RingId | None:
        """The regular configuration that the period ``index`` is, or comes from."""
        for period in reversed(self.periods[p][:index + 1]):
            if period.conf.kind is Kind.REGULAR:
                return period.conf.ring
        return None

    def installed(self, p: Processor, ring: RingId) -> int | None:
        """Index of the regular configuration ``ring`` at ``p``, None if it never installed it."""
        return next((i for i, x in enumerate(self.periods.get(p, ())) if x.conf.ring == ring and x.conf.kind is Kind.REGULAR), None)

    def delivered_in(self, p: Processor, ring: RingId) -> set[bytes]:
        """Payloads that ``p`` delivered in ``ring`` or its transitional successor. Only at the end: the answer is kept."""
        out = self._delivered.get((p, ring))
        if out is None:
            out = self._delivered[p, ring] = self._collect(p, ring)
        return out

    def _collect(self, p: Processor, ring: RingId) -> set[bytes]:
        at = self.installed(p, ring)
        if at is None:
            return set()
        out = {m.payload for m in self.periods[p][at].messages}
        if at + 1 < len(self.periods[p]):
            out |= {m.payload for m in self.periods[p][at + 1].messages}
        return out

    def walk(self) -> Iterator[tuple[Processor, int, Period]]:
        for p, periods in self.periods.items():
            for i, period in enumerate(periods):
                yield p, i, period


class Checker:
    """Sees every event before it is recorded, and everything at the end."""

    name = ""

    def __init__(self, record: Record) -> None:
        self.record = record

    def fail(self, detail: str) -> None:
        raise Violation(self.name, detail)

    def on_configuration(self, p: Processor, conf: Configuration) -> None: ...

    def on_message(self, p: Processor, message: Message) -> None: ...

    def after_event(self, node: Node, host: EngineHost) -> None: ...

    @classmethod
    def watches(cls, what: str) -> bool:
        """This checker has its own method for ``what``: the others need not be called."""
        return getattr(cls, what) is not getattr(Checker, what)

    def at_end(self) -> None: ...


class I1Inside(Checker):
    """Everything happens inside exactly one configuration, the first of which is regular; nothing after the end of the process."""

    name = "I1"

    def on_configuration(self, p: Processor, conf: Configuration) -> None:
        if p in self.record.dead:
            self.fail(f"{p} installs {conf.ring} after its end")
        if not self.record.periods.get(p) and conf.kind is not Kind.REGULAR:
            self.fail(f"{p} begins with a transitional configuration")

    def on_message(self, p: Processor, message: Message) -> None:
        if p in self.record.dead or not self.record.periods.get(p):
            self.fail(f"{p} is told a message outside of every configuration")


class I2Member(Checker):
    """A processor is a member of what it installs, begins alone, and identifiers rise."""

    name = "I2"

    def on_configuration(self, p: Processor, conf: Configuration) -> None:
        before = self.record.periods.get(p)
        if p not in conf.members or list(conf.members) != sorted(set(conf.members)):
            self.fail(f"{p} installs {conf}")
        if not before and conf.members != (p,):
            self.fail(f"{p} does not begin alone: {conf}")
        if before and conf.ring <= before[-1].conf.ring:
            self.fail(f"{p}: {conf.ring} after {before[-1].conf.ring}")


class I3Alternate(Checker):
    """Kinds alternate; the transitional members are those who come from the same regular configuration, and no others."""

    name = "I3"

    def on_configuration(self, p: Processor, conf: Configuration) -> None:
        before = self.record.periods.get(p)
        if not before:
            return
        last = before[-1].conf
        if last.kind is conf.kind:
            self.fail(f"{p}: {conf.kind.name} follows {last.kind.name}")
        inner, outer = (conf, last) if conf.kind is Kind.TRANSITIONAL else (last, conf)
        if not set(inner.members) <= set(outer.members):
            self.fail(f"{p}: transitional {inner} is no part of {outer}")

    def at_end(self) -> None:
        came_from: dict[RingId, dict[Processor, tuple[RingId | None, Configuration]]] = defaultdict(dict)
        for p, i, period in self.record.walk():
            if period.conf.kind is Kind.REGULAR and i >= 2:
                came_from[period.conf.ring][p] = (self.record.regular_before(p, i - 2), self.record.periods[p][i - 1].conf)
        for ring, origins in came_from.items():
            for p, (old, trans) in origins.items():
                for q, (q_old, _) in origins.items():
                    same = old == q_old and q in self._members(p, old)
                    if same != (q in trans.members):
                        self.fail(f"{p} came to {ring} from {old} with {trans.members}, {q} from {q_old}")

    def _members(self, p: Processor, ring: RingId | None) -> tuple[Processor, ...]:
        at = self.record.installed(p, ring) if ring is not None else None
        return self.record.periods[p][at].conf.members if at is not None else ()


class I4Once(Checker):
    """No message twice."""

    name = "I4"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.seen: set[tuple[Processor, bytes]] = set()

    def on_message(self, p: Processor, message: Message) -> None:
        key = (p, message.payload)
        if key in self.seen:
            self.fail(f"{p} is told {message.payload[:24]!r} twice")
        self.seen.add(key)


class I5NoInvention(Checker):
    """What is delivered was sent, unchanged, by that sender, in the configuration in which it is delivered."""

    name = "I5"

    def on_message(self, p: Processor, message: Message) -> None:
        sent = self.record.submitted.get(message.payload)
        if sent is None or sent[0] != message.sender:
            self.fail(f"{p} is told {message.payload[:24]!r} of {message.sender}, who did not send it")
        periods = self.record.periods[p]
        ring = self.record.regular_before(p, len(periods) - 1)
        if message.ring != ring:
            self.fail(f"{p} is told a message of {message.ring} in {ring}")


class I6Order(Checker):
    """Positions rise; in a regular configuration nothing is left out that anybody knows of."""

    name = "I6"

    def on_message(self, p: Processor, message: Message) -> None:
        periods = self.record.periods[p]
        for period in periods[-2:]:
            if period.messages and period.messages[-1].ring == message.ring and message.seq < period.messages[-1].seq:
                self.fail(f"{p}: position {message.seq} after {period.messages[-1].seq} in {message.ring}")

    def at_end(self) -> None:
        known: dict[RingId, dict[int, list[bytes]]] = defaultdict(dict)
        for _p, _i, period in self.record.walk():
            by_seq: dict[int, list[bytes]] = defaultdict(list)
            for m in period.messages:
                by_seq[m.seq].append(m.payload)
            for seq, payloads in by_seq.items():
                known[period.messages[0].ring].setdefault(seq, payloads)
        for p, _i, period in self.record.walk():
            if period.conf.kind is Kind.REGULAR and period.messages:
                have = {m.seq for m in period.messages}
                lost = [s for s in known[period.conf.ring] if s < max(have) and s not in have]
                if lost:
                    self.fail(f"{p} delivered across a hole in {period.conf.ring}: {lost} missing before {max(have)}")


class I7NoSendInTransition(Checker):
    """Nothing is sent in a transitional configuration."""

    name = "I7"

    def on_message(self, p: Processor, message: Message) -> None:
        if any(x.conf.kind is Kind.TRANSITIONAL and x.conf.ring == message.ring for x in self.record.periods[p]):
            self.fail(f"{message.payload[:24]!r} was sent in the transitional {message.ring}")


class I9Identity(Checker):
    """One identifier, one configuration: kind, members and (transitional) origin."""

    name = "I9"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.known: dict[RingId, tuple[Configuration, RingId | None]] = {}

    def on_configuration(self, p: Processor, conf: Configuration) -> None:
        origin = None
        if conf.kind is Kind.TRANSITIONAL:
            origin = self.record.regular_before(p, len(self.record.periods[p]) - 1)
        known = self.known.setdefault(conf.ring, (conf, origin))
        if known != (conf, origin):
            self.fail(f"{conf.ring} names {conf} (from {origin}) and {known[0]} (from {known[1]})")


class I10TotalOrder(Checker):
    """One order for all: messages and configurations of all processors together make an acyclic graph."""

    name = "I10"

    def at_end(self) -> None:
        after: dict[object, set[object]] = defaultdict(set)
        for periods in self.record.periods.values():
            last: object = None
            for period in periods:
                for item in (period.conf.ring, *(m.payload for m in period.messages)):
                    if last is not None:
                        after[last].add(item)
                    last = item
        degree: dict[object, int] = defaultdict(int)
        for targets in after.values():
            for t in targets:
                degree[t] += 1
        free = [n for n in after if not degree[n]]
        while free:
            for t in after.pop(free.pop(), ()):
                degree[t] -= 1
                if not degree[t]:
                    free.append(t)
        if any(degree[n] for n in after):
            self.fail(f"a cycle through {sorted(map(str, (n for n in after if degree[n])))[:6]}")


class I11Place(Checker):
    """One place in the order, one frame: same sender and same content at everybody, and one message has one place."""

    name = "I11"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.sender: dict[tuple[RingId, int], Processor] = {}
        self.place: dict[bytes, tuple[RingId, int]] = {}

    def on_message(self, p: Processor, message: Message) -> None:
        place = (message.ring, message.seq)
        if self.sender.setdefault(place, message.sender) != message.sender:
            self.fail(f"{place} is of {message.sender} at {p}, of {self.sender[place]} elsewhere")
        if self.place.setdefault(message.payload, place) != place:
            self.fail(f"{message.payload[:24]!r} has the places {place} and {self.place[message.payload]}")


class I12Together(Checker):
    """Who goes from one configuration to the next together has been told the same."""

    name = "I12"

    def at_end(self) -> None:
        sets: dict[tuple[RingId, RingId], tuple[Processor, list[bytes]]] = {}
        for p, i, period in self.record.walk():
            if i + 1 == len(self.record.periods[p]):
                continue
            key = (period.conf.ring, self.record.periods[p][i + 1].conf.ring)
            told = [m.payload for m in period.messages]
            q, other = sets.setdefault(key, (p, told))
            if other != told:
                self.fail(f"{p} and {q} go from {key[0]} to {key[1]} with {len(told)} and {len(other)} messages, not the same")


class I13Self(Checker):
    """Who sent a message and goes on has delivered it itself."""

    name = "I13"

    def at_end(self) -> None:
        for m in {m.payload: m for _p, _i, x in self.record.walk() for m in x.messages}.values():
            at = self.record.installed(m.sender, m.ring)
            if at is None or at + 2 >= len(self.record.periods[m.sender]):
                continue
            if m.payload not in self.record.delivered_in(m.sender, m.ring):
                self.fail(f"{m.sender} left {m.ring} without its own {m.payload[:24]!r}")


class I14Safe(Checker):
    """A safe message delivered in a configuration is delivered by all its members, unless they fail before they leave it."""

    name = "I14"

    def at_end(self) -> None:
        for p, _i, period in self.record.walk():
            for m in period.messages:
                if not self.record.submitted[m.payload][1]:
                    continue
                for q in period.conf.members:
                    at = self.record.installed(q, m.ring)
                    gone = at is not None and at + 2 < len(self.record.periods[q])
                    if gone and m.payload not in self.record.delivered_in(q, m.ring):
                        self.fail(f"{p} delivered the safe {m.payload[:24]!r} in {period.conf.ring}, {q} left {m.ring} without it")


class I15SafeInstalled(Checker):
    """A safe message delivered in a regular configuration: every member has installed it, and holds the message."""

    name = "I15"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.hosts: dict[Processor, EngineHost] = {}

    def on_message(self, p: Processor, message: Message) -> None:
        period = self.record.periods[p][-1]
        if period.conf.kind is not Kind.REGULAR or not self.record.submitted[message.payload][1]:
            return
        for q in period.conf.members:
            if self.record.installed(q, message.ring) is None:
                self.fail(f"{p} delivers a safe message in {message.ring}, which {q} never installed")
            host = self.hosts.get(q)
            if host is not None and host.alive and host.core.core.ring.id == message.ring and (
                    host.core.core.ring.aru < message.seq):
                self.fail(f"{p} delivers a safe message at {message.seq} of {message.ring}; {q} holds up to "
                          f"{host.core.core.ring.aru} only")


class J1Monotone(Checker):
    """Inside one ring: tokens accepted, acknowledgement and delivery only rise, and never pass what exists."""

    name = "J1"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.last: dict[tuple[Processor, RingId], tuple[int, ...]] = {}

    def after_event(self, node: Node, host: EngineHost) -> None:
        ring = host.core.core.ring
        now = (ring.token.seen, ring.aru, ring.delivered, ring.released, ring.safe_upto)
        key = (host.processor, ring.id)
        before = self.last.get(key)
        if before == now:
            return
        self.last[key] = now
        if before is not None and any(a < b for a, b in zip(now, before, strict=True)):
            self.fail(f"{host.processor} in {ring.id}: {before} became {now}")
        if not ring.released <= ring.delivered or not ring.aru <= ring.high:
            self.fail(f"{host.processor} in {ring.id}: released {ring.released}, delivered {ring.delivered}, "
                      f"aru {ring.aru}, high {ring.high}")


class J2Bounded(Checker):
    """Memory: stores, requests and sets stay within their limits; a node never holds itself for failed."""

    name = "J2"

    def after_event(self, node: Node, host: EngineHost) -> None:
        core = host.core.core
        if len(core.ring.store) > 2 * STORE_MAX or len(core.proc) > PROCESSORS_MAX:
            self.fail(f"{host.processor} holds {len(core.ring.store)} frames, {len(core.proc)} processors")
        if host.processor in core.fail or not core.fail <= core.proc:
            self.fail(f"{host.processor} holds {core.fail} of {core.proc} for failed")


class J3Persisted(Checker):
    """A ring's sequence is on disk before the ring is installed, and a node never installs an older ring than in a former life."""

    name = "J3"

    def __init__(self, record: Record, nodes: dict[int, Node]) -> None:
        super().__init__(record)
        self.nodes = nodes
        self.highest: dict[int, int] = {}

    def on_configuration(self, p: Processor, conf: Configuration) -> None:
        stored = int(self.nodes[p.nodeid].storage.get(RING_SEQ, b"0"))
        if conf.ring.seq > stored:
            self.fail(f"node {p.nodeid} installs {conf.ring}, and {stored} is on disk")
        if conf.ring.seq <= self.highest.get(p.nodeid, 0):
            self.fail(f"node {p.nodeid} installs {conf.ring} after {self.highest[p.nodeid]}")
        self.highest[p.nodeid] = conf.ring.seq


class J0Table(Checker):
    """Every action ends in a state that its cell of the table declares."""

    name = "J0"
    reached: ClassVar[set[tuple[State, Event]]] = set()
    "Cells seen in this process, over all seeds."

    def watch(self, host: EngineHost) -> None:
        """Put an observer around every bound action of this host."""
        engine = host.core
        engine._rows = tuple(tuple(self._observed(s, e, engine._rows[s][e]) for e in Event) for s in State)

    def _observed(self, state: State, event: Event, action: Action) -> Action:
        declared = TABLE[state, event].to

        def observed(core: Core, sender: Processor | None, message: object, now: int) -> None:
            self.reached.add((state, event))
            action(core, sender, message, now)
            if core.state not in declared:
                self.fail(f"{event.name} in {state.name} ended in {core.state.name}, the table says {declared}")

        return observed


def all_checkers(record: Record, nodes: dict[int, Node]) -> list[Checker]:
    simple = (I1Inside, I2Member, I3Alternate, I4Once, I5NoInvention, I7NoSendInTransition, I9Identity, I11Place, I6Order,
              I14Safe, I15SafeInstalled, I12Together, I13Self, I10TotalOrder, J1Monotone, J2Bounded, J0Table)
    return [*(c(record) for c in simple), J3Persisted(record, nodes)]
