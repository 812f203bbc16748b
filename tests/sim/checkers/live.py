# SPDX-License-Identifier: GPL-2.0-only
"""What must happen: L1 to L4 in the liveness phase, F1 and F2 of the failure detector (numbers as in docs/totem.md)."""

from __future__ import annotations

from membership.api import Configuration, Message, Processor
from tests.sim.checkers.record import Checker, Record
from tests.sim.engine_node import EngineHost
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


def together(hosts: list[EngineHost]) -> bool:
    """They are, without anybody else, in one regular configuration, and form no other."""
    first = hosts[0].core.core
    if set(first.ring.members) != {h.processor for h in hosts}:
        return False
    return all(h.core.core.forming is None and h.core.core.state == 0 and h.core.core.ring.id == first.ring.id for h in hosts)


def notice_ns(config: TotemConfig, manner: str, nodes: int, hop_ns: int) -> int:
    """F2: how long the survivors may take to be in a configuration without a member that ended in this manner.

    ``hop_ns``: what one datagram takes. A new ring costs two rounds of the commit token and about five of the first tokens.
    """
    slack = 40 * MS + 10 * nodes * hop_ns
    if manner in ("leave", "die"):
        return slack
    return (config.token_ms + config.consensus_ms + 2 * config.join_ms) * MS + slack
