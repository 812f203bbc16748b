# SPDX-License-Identifier: GPL-2.0-only
"""What must happen: L1 to L4 in the liveness phase, F1 and F2 of the failure detector (numbers as in docs/totem.md)."""

from __future__ import annotations

from membership.api import Configuration, Health, Message, Processor, Rotation
from membership.totem.core import Core
from membership.totem.frames import Token
from membership.totem.limits import DOUBT_MAX
from tests.sim.checkers.record import Checker, Record
from tests.sim.engine_node import EngineHost, Node
from tests.sim.network import Network
from tests.sim.world import MS
from vcs.config.model import TotemConfig
from vcs.model import RingId

SYNC = b"sync/"


class L4Sync(Checker):
    """A consumer's state exchange, in small: it starts once in every configuration, and is complete when all members have spoken in
    it. It must complete in a configuration that stays."""

    name = "L4"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.started: dict[Processor, RingId] = {}
        self.waiting: dict[Processor, set[int]] = {}

    def begin(self, p: Processor, conf: Configuration) -> bytes:
        """The message with which ``p`` begins."""
        if self.started.get(p) == conf.ring:
            self.fail(f"{p} starts twice in {conf.ring}")
        self.started[p] = conf.ring
        self.waiting[p] = {m.nodeid for m in conf.members}
        return b"%s%d.%d/%d/%d" % (SYNC, conf.ring.seq, conf.ring.rep, p.nodeid, p.engine)

    def told(self, p: Processor, message: Message) -> None:
        if message.payload.startswith(SYNC):
            ring, node, _engine = message.payload[len(SYNC):].split(b"/")
            if ring.decode() == str(self.started[p]) and message.ring == self.started[p]:
                self.waiting[p].discard(int(node))

    def open(self, p: Processor) -> set[int]:
        """Members whose word ``p`` still waits for."""
        return self.waiting.get(p, set())


class F1Accused(Checker):
    """Nobody who lives, is on time and is connected with its accuser is ever accused of silence.

    ``disturbed`` is told what touched a node or a pair of nodes; only who was left alone for a while (GRACE times the time to detect)
    is innocent. That the accuser itself was paused is no excuse, as long as its socket kept what arrived.
    """

    name = "F1"
    GRACE = 3

    def __init__(self, record: Record, nodes: dict[int, Node], network: Network) -> None:
        super().__init__(record)
        self.nodes = nodes
        self.network = network
        self.node_ns: dict[int, int] = {}
        self.accuser_ns: dict[int, int] = {}
        self.pair_ns: dict[tuple[int, int], int] = {}
        self._overflowed: dict[int, int] = {}

    def disturbed(self, now: int, n: int, paused: bool = False) -> None:
        """Something happened to node ``n``."""
        self.node_ns[n] = now
        node = self.nodes[n]
        if not paused or self._overflowed.get(n, 0) != node.overflowed:
            self.accuser_ns[n] = now
        self._overflowed[n] = node.overflowed

    def cut(self, now: int, a: int, b: int) -> None:
        self.pair_ns[min(a, b), max(a, b)] = now

    def accused(self, now: int, host: EngineHost, event: Health) -> None:
        p, q = host.node, self.nodes.get(event.nodeid)
        if event.what != "suspect" or not event.detail.startswith("no answer") or q is None:
            return
        grace = self.GRACE * host.core.core.timing.detect
        last = max(p.wrote_ns, q.wrote_ns, self.node_ns.get(q.nodeid, 0), self.accuser_ns.get(p.nodeid, 0),
                   self.pair_ns.get((min(p.nodeid, q.nodeid), max(p.nodeid, q.nodeid)), 0))
        on_time = q.up and not any(x.paused or x.cost_ns or x.persist_ns for x in (p, q))
        if on_time and now - last > grace and self.network.connected(p.nodeid, q.nodeid, host.core.core.timing.detect // 8):
            self.fail(f"{host.processor} accuses node {q.nodeid} ({event.detail}); both were left alone for {(now - last) / MS} ms")


class S9Evidence(Checker):
    """A rotation that is told as evidence of quorum began before every member of the ring last had its token (SAFETY S9)."""

    name = "S9"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.had_ns: dict[tuple[Processor, RingId], int] = {}

    def token(self, core: Core, token: Token) -> None:
        """A token comes to this processor, which has not looked at it yet."""
        ring = core.ring if core.forming is None else core.forming.ring
        if token.ring == ring.id and token.token_seq > ring.token.seen:
            self.had_ns[core.local, ring.id] = self.record.hosts[core.local].node.world.now

    def rotation(self, host: EngineHost, event: Rotation) -> None:
        node = host.node
        began = node.world_time(event.began_ns)
        periods = self.record.periods[host.processor]
        if event.began_ns > node.now or periods[-1].conf.ring != event.ring:
            self.fail(f"{host.processor} tells a rotation of {event.ring} that began at {event.began_ns}; it is {node.now}")
        for q in periods[-1].conf.members:
            had = self.had_ns.get((q, event.ring), 0)
            if q != host.processor and had < began:
                self.fail(f"{host.processor} tells that all of {event.ring} took part after {began}; {q} last did at {had}")


def together(hosts: list[EngineHost]) -> bool:
    """They are, without anybody else, in one regular configuration, and form no other."""
    first = hosts[0].core.core
    if set(first.ring.members) != {h.processor for h in hosts}:
        return False
    return all(h.core.core.forming is None and h.core.core.state == 0 and h.core.core.ring.id == first.ring.id for h in hosts)


def notice_ns(config: TotemConfig, manner: str, nodes: int, hop_ns: int, doubt: int, slow: bool) -> int:
    """F2: how long the survivors may take to be in a configuration without a member that ended in this manner.

    ``hop_ns``: what one datagram takes. A new ring costs two rounds of the commit token and about five of the first tokens.
    ``doubt``: how often the most doubtful survivor was late of late; ``slow``: one knows the victim for answers that take long.
    """
    slack = 40 * MS + 10 * nodes * hop_ns
    if manner in ("leave", "die"):
        return slack
    # Several neighbours of a silent one are asked in turn; a slow one gets twice the time, and a doubtful node takes its own.
    detect = config.detect_ms * MS
    return max(3 * detect, detect * (2 if slow else 1) * (2 + min(doubt, DOUBT_MAX)) // 2) + slack
