# SPDX-License-Identifier: GPL-2.0-only
"""Extended virtual synchrony as checkers, I1 to I17 (ICDCS 1994; numbers as in docs/totem.md).

Each is a small class of its own. They share one :class:`~tests.sim.checkers.record.Record` of what every processor was told, and say
their name in the violation.
"""

from __future__ import annotations

from collections import defaultdict

from membership.api import Configuration, Kind, Message, Processor
from tests.sim.checkers.record import Checker, Key, Record
from vcs.model import RingId


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
        came_from: dict[Key, dict[Processor, tuple[Key, Configuration]]] = defaultdict(dict)
        for p, i, period in self.record.walk():
            if period.conf.kind is Kind.REGULAR and i >= 2:
                came_from[period.key][p] = (self.record.periods[p][i - 2].regular, self.record.periods[p][i - 1].conf)
        for key, origins in came_from.items():
            for p, (old, trans) in origins.items():
                members = self._members(p, old[0])
                for q, (q_old, _) in origins.items():
                    same = old == q_old and q in members
                    if same != (q in trans.members):
                        self.fail(f"{p} came to {key[0]} from {old[0]} with {trans.members}, {q} from {q_old[0]}")

    def _members(self, p: Processor, ring: RingId) -> tuple[Processor, ...]:
        at = self.record.installed(p, ring)
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
        if sent is None or sent.sender != message.sender:
            self.fail(f"{p} is told {message.payload[:24]!r} of {message.sender}, who did not send it")
        ring = self.record.periods[p][-1].regular[0]
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
        known: dict[Key, set[int]] = defaultdict(set)
        for _p, _i, period in self.record.walk():
            known[period.regular].update(m.seq for m in period.messages)
        for p, _i, period in self.record.walk():
            if period.conf.kind is Kind.REGULAR and period.messages:
                have = {m.seq for m in period.messages}
                high = max(have)
                lost = [s for s in known[period.regular] if s < high and s not in have]
                if lost:
                    self.fail(f"{p} delivered across a hole in {period.conf.ring}: {lost} missing before {high}")


class I7NoSendInTransition(Checker):
    """Nothing is sent in a transitional configuration."""

    name = "I7"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.transitional: set[RingId] = set()

    def on_configuration(self, p: Processor, conf: Configuration) -> None:
        if conf.kind is Kind.TRANSITIONAL:
            self.transitional.add(conf.ring)

    def on_message(self, p: Processor, message: Message) -> None:
        if message.ring in self.transitional:
            self.fail(f"{message.payload[:24]!r} was sent in the transitional {message.ring}")


class I8Causal(Checker):
    """Who delivers a message has delivered, in the same ring and before it, all that its sender had delivered when it submitted it.

    In a regular configuration this follows from I6 and from the order of one sender's messages; here it is looked at where holes are
    allowed, in transitional ones.
    """

    name = "I8"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.last: dict[tuple[Processor, Processor], int] = {}

    def on_message(self, p: Processor, message: Message) -> None:
        sent = self.record.submitted.get(message.payload)
        if sent is not None:
            if self.last.get((p, sent.sender), -1) >= sent.number:
                self.fail(f"{p} is told {message.payload[:24]!r} after a later message of the same sender")
            self.last[p, sent.sender] = sent.number

    def at_end(self) -> None:
        own: dict[tuple[Processor, RingId | None], list[bytes]] = defaultdict(list)
        for payload, sent in self.record.submitted.items():
            own[sent.sender, sent.ring].append(payload)
        for q, i, period in self.record.walk():
            if period.conf.kind is Kind.REGULAR or not period.messages:
                continue
            told = {m.payload for m in self.record.periods[q][i - 1].messages}
            covered: dict[Processor, int] = {}
            for m in period.messages:
                sent = self.record.submitted[m.payload]
                if sent.ring == m.ring:
                    for payload in own[sent.sender, m.ring]:
                        if payload == m.payload:
                            break
                        if payload not in told:
                            self.fail(f"{q} is told {m.payload[:24]!r} in {period.conf.ring} without {payload[:24]!r} of the same sender")
                    at = self.record.installed(sent.sender, m.ring)
                    past = self.record.periods[sent.sender][at].messages[:sent.past] if at is not None else []
                    for earlier in past[covered.get(sent.sender, 0):]:
                        if earlier.payload not in told:
                            self.fail(f"{q} is told {m.payload[:24]!r} in {period.conf.ring} without {earlier.payload[:24]!r}, "
                                      f"which {sent.sender} knew when it sent it")
                    covered[sent.sender] = max(covered.get(sent.sender, 0), len(past))
                told.add(m.payload)


class I9Identity(Checker):
    """One identifier, one configuration: kind, members and (transitional) origin."""

    name = "I9"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.known: dict[Key, tuple[Configuration, Key]] = {}

    def on_configuration(self, p: Processor, conf: Configuration) -> None:
        origin = self.record.origin(p, conf)
        known = self.known.setdefault(self.record.key(conf), (conf, origin))
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
                for item in (period.key, *(m.payload for m in period.messages)):
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
        self.sender: dict[tuple[Key, int], Processor] = {}
        self.place: dict[bytes, tuple[Key, int]] = {}

    def on_message(self, p: Processor, message: Message) -> None:
        place = (self.record.periods[p][-1].regular, message.seq)
        if self.sender.setdefault(place, message.sender) != message.sender:
            self.fail(f"{place} is of {message.sender} at {p}, of {self.sender[place]} elsewhere")
        if self.place.setdefault(message.payload, place) != place:
            self.fail(f"{message.payload[:24]!r} has the places {place} and {self.place[message.payload]}")


class I12Together(Checker):
    """Who goes from one configuration to the next together has been told the same."""

    name = "I12"

    def at_end(self) -> None:
        sets: dict[tuple[Key, Key], tuple[Processor, list[bytes]]] = {}
        for p, i, period in self.record.walk():
            if i + 1 == len(self.record.periods[p]):
                continue
            key = (period.key, self.record.periods[p][i + 1].key)
            told = [m.payload for m in period.messages]
            q, other = sets.setdefault(key, (p, told))
            if other != told:
                self.fail(f"{p} and {q} go from {key[0][0]} to {key[1][0]} with {len(told)} and {len(other)} messages, not the same")


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
                if not self.record.submitted[m.payload].safe:
                    continue
                for q in period.conf.members:
                    at = self.record.installed(q, m.ring)
                    gone = at is not None and at + 2 < len(self.record.periods[q])
                    if gone and m.payload not in self.record.delivered_in(q, m.ring):
                        self.fail(f"{p} delivered the safe {m.payload[:24]!r} in {period.conf.ring}, {q} left {m.ring} without it")


class I15SafeInstalled(Checker):
    """A safe message delivered in a regular configuration: every member has installed it, and holds the message."""

    name = "I15"

    def on_message(self, p: Processor, message: Message) -> None:
        period = self.record.periods[p][-1]
        if period.conf.kind is not Kind.REGULAR or not self.record.submitted[message.payload].safe:
            return
        for q in period.conf.members:
            if self.record.installed(q, message.ring) is None:
                self.fail(f"{p} delivers a safe message in {message.ring}, which {q} never installed")
            host = self.record.hosts.get(q)
            if host is not None and host.alive and host.core.core.ring.id == message.ring and (
                    host.core.core.ring.aru < message.seq):
                self.fail(f"{p} delivers a safe message at {message.seq} of {message.ring}; {q} holds up to "
                          f"{host.core.core.ring.aru} only")


class I16Instant(Checker):
    """A configuration is one logical instant: what comes before it at one processor does not come after it at another."""

    name = "I16"

    def at_end(self) -> None:
        before: dict[Key, dict[bytes, Processor]] = defaultdict(dict)
        for p, i, period in self.record.walk():
            if i:
                for earlier in self.record.periods[p][max(0, i - 2):i]:
                    before[period.key].update(dict.fromkeys((m.payload for m in earlier.messages), p))
        for p, i, period in self.record.walk():
            for later in self.record.periods[p][i:i + 2]:
                for m in later.messages:
                    q = before[period.key].get(m.payload)
                    if q is not None:
                        self.fail(f"{m.payload[:24]!r} comes before {period.conf.ring} at {q} and after it at {p}")


class I17NoGap(Checker):
    """Between two deliveries of one ring a processor misses nothing of the senders that share its (transitional) configuration."""

    name = "I17"

    def at_end(self) -> None:
        known: dict[Key, dict[int, list[Message]]] = defaultdict(dict)
        for _p, _i, period in self.record.walk():
            by_seq: dict[int, list[Message]] = defaultdict(list)
            for m in period.messages:
                by_seq[m.seq].append(m)
            for seq, messages in by_seq.items():
                known[period.regular].setdefault(seq, messages)
        for p, i, period in self.record.walk():
            if period.conf.kind is Kind.REGULAR or not period.messages:
                continue
            last = period.messages[-1].seq
            have = {m.seq for x in self.record.periods[p][i - 1:i + 1] for m in x.messages}
            for seq, messages in known[period.regular].items():
                if seq < last and seq not in have and messages[0].sender in period.conf.members:
                    self.fail(f"{p} delivered {last} of {period.regular[0]} in {period.conf.ring} and lacks {seq} of "
                              f"{messages[0].sender}, who is a member of it")


MODEL: tuple[type[Checker], ...] = (
    I1Inside, I2Member, I3Alternate, I4Once, I5NoInvention, I7NoSendInTransition, I9Identity, I11Place, I6Order, I14Safe, I15SafeInstalled,
    I12Together, I13Self, I8Causal, I16Instant, I17NoGap, I10TotalOrder,
)
"In the order in which they are asked at the end: the most telling ones first."
