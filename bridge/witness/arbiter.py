# SPDX-License-Identifier: GPL-2.0-only
"""Who may go on: the witness's whole knowledge, and its one decision. Pure: time is an argument, and nothing is on a disk.

One configuration at a time holds the grant, until a time that counts from the last answer to it. It moves

- to whoever asks best, when it is free: the larger side, of two alike the one with the lowest node. Who cannot be beaten by the nodes that
  it does not see gets it at once, the others after a short window in which the better side would have asked;
- at once, to a later configuration that all members of the holder are in: each of them said so in it, so nobody is left who believes in
  the old one. The same frees it when they have no need of it any more;
- never away from a holder that is alive.

A new process does not know what the one before it granted, so it grants nothing for as long as that may hold. Members believe in a
grant for ``timeout_ms`` from before they asked; here it ends DRIFT later, for clocks that do not run alike.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final

from bridge.witness.wire import NODEID, Answer, Ask, Verdict
from membership.api import Processor
from vcs.model import RingId

MS: Final = 1_000_000
DRIFT: Final = 0.05
"Of the time-out: far more than any two clocks differ in it."
WINDOW_MAX_NS: Final = 300 * MS
RETIRED_MAX: Final = 64
"Processes of a node that were replaced and are remembered."


@dataclass(slots=True)
class Holder:
    ring: RingId
    members: frozenset[int]
    term: int
    until_ns: int


@dataclass(slots=True)
class Candidate:
    members: frozenset[int]
    since_ns: int
    seen_ns: int

    @property
    def rank(self) -> tuple[int, int]:
        return rank(self.members)


@dataclass(slots=True)
class Asker:
    """One node, by what its frames say."""

    process: Processor
    counter: int = 0
    ring_seq: int = 0
    retired: deque[Processor] = field(default_factory=lambda: deque(maxlen=RETIRED_MAX))


def rank(members: frozenset[int]) -> tuple[int, int]:
    """The better side has the greater one."""
    return (len(members), -min(members, default=NODEID))


class Arbiter:
    """``ask`` is the whole interface."""

    def __init__(self, timeout_ms: int, incarnation: int, now_ns: int) -> None:
        """``incarnation``: of this process, never used before."""
        self.timeout_ms = timeout_ms
        self.incarnation = incarnation
        self.length_ns = int(timeout_ms * MS * (1 + DRIFT))
        self.window_ns = min(WINDOW_MAX_NS, timeout_ms * MS // 10)
        self.quiet_ns = now_ns + self.length_ns
        "Nothing is granted before."
        self.holder: Holder | None = None
        self.term = 0
        self.candidates: dict[RingId, Candidate] = {}
        self.askers: dict[int, Asker] = {}
        self.counters: Counter[str] = Counter()

    def ask(self, sender: Processor, counter: int, ask: Ask, now_ns: int, wall_ms: int) -> Answer | None:
        """The answer to an authenticated question, None for one that is dropped (and counted). ``wall_ms``: since 1970, for terms."""
        if ask.witness != self.incarnation:
            return self._answer(Verdict.HELLO, sender, ask)
        dropped = self._stale(sender, counter, ask)
        if dropped:
            self.counters[dropped] += 1
            return None
        if ask.timeout_ms != self.timeout_ms:
            return self._answer(Verdict.TIMEOUT, sender, ask)
        if self.holder is not None and now_ns >= self.holder.until_ns:
            self.holder = None
        succeeds = self._succeeds(ask)
        if not ask.wanted:
            if succeeds:
                self.holder = None
            self.candidates.pop(ask.ring, None)
            return self._answer(Verdict.NOTED, sender, ask)
        return self._wanted(sender, ask, succeeds, now_ns, wall_ms)

    def _stale(self, sender: Processor, counter: int, ask: Ask) -> str:
        """Why the question is not to be looked at: sent again by somebody, or of a life or a ring that is over. Empty: it is good."""
        if ask.members and sender.nodeid not in ask.members:
            return "not a member"
        asker = self.askers.get(sender.nodeid)
        if asker is None:
            asker = self.askers[sender.nodeid] = Asker(sender)
        if sender in asker.retired:
            return "retired"
        if sender == asker.process and counter <= asker.counter:
            return "replayed"
        if ask.members and ask.ring.seq < asker.ring_seq:
            return "old ring"
        if sender != asker.process:
            asker.retired.append(asker.process)
            asker.process = sender
        asker.counter = counter
        if ask.members:
            asker.ring_seq = ask.ring.seq
        return ""

    def _succeeds(self, ask: Ask) -> bool:
        """Is this a later configuration with everybody of the holder?"""
        held = self.holder
        return held is not None and held.members.issubset(ask.members) and ask.ring.seq > held.ring.seq

    def _wanted(self, sender: Processor, ask: Ask, succeeds: bool, now_ns: int, wall_ms: int) -> Answer:
        held, members = self.holder, frozenset(ask.members)
        if held is not None and (held.ring, held.members) == (ask.ring, members):
            held.until_ns = now_ns + self.length_ns
            return self._answer(Verdict.GRANTED, sender, ask)
        if held is not None and not succeeds:
            return self._answer(Verdict.HELD, sender, ask, held.until_ns - now_ns)
        if now_ns < self.quiet_ns:
            return self._answer(Verdict.STARTING, sender, ask, self.quiet_ns - now_ns)
        wait_ns = 0 if succeeds else self._wait_ns(ask, members, now_ns)
        if wait_ns:
            return self._answer(Verdict.WAIT, sender, ask, wait_ns)
        self.candidates.clear()
        self.term = max(wall_ms, self.term + 1, ask.term + 1)
        self.holder = Holder(ask.ring, members, self.term, now_ns + self.length_ns)
        self.counters["grants"] += 1
        return self._answer(Verdict.GRANTED, sender, ask)

    def _wait_ns(self, ask: Ask, members: frozenset[int], now_ns: int) -> int:
        """How long this side still waits for a better one; 0: it is the best."""
        self.candidates = {r: c for r, c in self.candidates.items() if now_ns - c.seen_ns <= self.window_ns}
        mine = self.candidates.setdefault(ask.ring, Candidate(members, now_ns, now_ns))
        mine.seen_ns = now_ns
        if any(c.rank > mine.rank for c in self.candidates.values()):
            return self.window_ns
        if rank(frozenset(ask.others)) < mine.rank:
            return 0
        return max(0, mine.since_ns + self.window_ns - now_ns)

    def _answer(self, verdict: Verdict, sender: Processor, ask: Ask, left_ns: int = 0) -> Answer:
        self.counters[verdict.name.lower()] += 1
        held = self.holder
        term = held.term if held is not None and verdict is Verdict.GRANTED else 0
        ring = held.ring if held is not None else RingId(0, 0)
        return Answer(ask.number, verdict, self.incarnation, sender.engine, term, ring, -(-left_ns // MS), self.timeout_ms)
