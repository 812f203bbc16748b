# SPDX-License-Identifier: GPL-2.0-only
"""The witness's machine, and the network to it: the real arbiter and the real frames' insides, without their seal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.coordinator.api import AskWitness
from bridge.witness.arbiter import Arbiter
from bridge.witness.session import Session
from bridge.witness.wire import Answer, Ask, decode_answer, decode_ask, encode_answer, encode_ask
from tests.sim.world import MS

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster
    from tests.sim.node import Daemon

HOP_NS = (100_000, 3_000_000)


class WitnessHost:
    """``on``, ``cut`` (nodes that do not reach it; what is under way to them arrives), ``hop_ns`` and ``loss`` are the faults it has."""

    def __init__(self, cluster: Cluster, timeout_ms: int) -> None:
        self.cluster, self.timeout_ms = cluster, timeout_ms
        self.rng = cluster.world.rng("witness")
        self.on = False
        self.cut: set[int] = set()
        self.hop_ns = HOP_NS
        self.loss = 0.0
        self.lives = 0
        self.sessions: dict[int, tuple[Daemon, Session]] = {}
        self.counters: dict[int, int] = {}
        self.start()

    def start(self) -> None:
        """A new process, which knows nothing."""
        if not self.on:
            self.on = True
            self.lives += 1
            self.arbiter = Arbiter(self.timeout_ms, self.lives, self.cluster.now)

    def stop(self) -> None:
        self.on = False

    def heal(self) -> None:
        """All is well with it from now on."""
        self.start()
        self.cut, self.hop_ns, self.loss = set(), HOP_NS, 0.0

    def ask(self, daemon: Daemon, what: AskWitness) -> None:
        nodeid = daemon.machine.nodeid
        held = self.sessions.get(nodeid)
        if held is None or held[0] is not daemon:
            held = self.sessions[nodeid] = (daemon, Session(daemon.who.engine, self.timeout_ms))
        self._send(*held, held[1].ask(what))

    def _lost(self, nodeid: int) -> bool:
        return nodeid in self.cut or (self.loss > 0 and self.rng.random() < self.loss)

    def _send(self, daemon: Daemon, session: Session, ask: Ask) -> None:
        nodeid = daemon.machine.nodeid
        counter = self.counters[nodeid] = self.counters.get(nodeid, 0) + 1
        body = encode_ask(ask)
        if not self._lost(nodeid):
            self.cluster.after(self.rng.randint(*self.hop_ns), lambda: self._arrived(daemon, session, counter, body))

    def _arrived(self, daemon: Daemon, session: Session, counter: int, body: bytes) -> None:
        if not self.on or daemon.machine.nodeid in self.cut:
            return
        now = self.cluster.now
        answer = self.arbiter.ask(daemon.who, counter, decode_ask(body), now, now // MS)
        if answer is not None and not self._lost(daemon.machine.nodeid):
            reply = encode_answer(answer)
            self.cluster.after(self.rng.randint(*self.hop_ns), lambda: self._answered(daemon, session, decode_answer(reply)))

    def _answered(self, daemon: Daemon, session: Session, answer: Answer) -> None:
        if daemon.dead or not daemon.machine.on:
            return
        heard = session.hear(answer)
        if isinstance(heard, Ask):
            self._send(daemon, session, heard)
        elif heard is not None:
            daemon.feed(heard)
