# SPDX-License-Identifier: GPL-2.0-only
"""One ring: its members, the frames it ordered, how far they are received, delivered and released, and where the token stands."""

from __future__ import annotations

from membership.api import Processor
from membership.totem.limits import RTR_RANGES_MAX, STORE_MAX
from membership.totem.wire import Regular, Token
from vcs.model import RingId


class TokenState:
    """What this member remembers of the token between two visits."""

    __slots__ = ("fail_visits", "held", "hurried", "idle", "last_body", "own_backlog", "own_sent", "prev_aru", "prev_seq",
                 "retransmits", "seen", "sent_ns")

    def __init__(self) -> None:
        self.seen = 0
        "Highest token_seq accepted; older ones are copies."
        self.last_body: bytes | None = None
        "The token as we passed it on, to send again."
        self.sent_ns: int | None = None
        "When it was first passed on, while the ring is a regular configuration; None before."
        self.prev_aru = 0
        self.prev_seq = 0
        self.own_sent = 0
        "Our part in the token's fcc."
        self.own_backlog = 0
        "Our part in the token's backlog."
        self.fail_visits = 0
        self.idle = 0
        "Rotations without news."
        self.held: Token | None = None
        "The resting token, not yet processed (representative only)."
        self.hurried = False
        self.retransmits = 0


class Ring:
    """An installed ring or one that is being formed."""

    __slots__ = ("aru", "by_id", "delivered", "high", "id", "local", "members", "nodeids", "others", "released", "safe_upto",
                 "store", "successor", "token")

    def __init__(self, ring: RingId, members: tuple[Processor, ...], local: Processor) -> None:
        self.id = ring
        self.members = members
        self.local = local
        self.nodeids = tuple(p.nodeid for p in members)
        self.by_id = {p.nodeid: p for p in members}
        self.others = tuple(n for n in self.nodeids if n != local.nodeid)
        at = self.nodeids.index(local.nodeid)
        self.successor = self.nodeids[(at + 1) % len(members)]
        self.store: dict[int, Regular] = {}
        self.aru = 0
        "All frames up to this one are here (or were, and are released)."
        self.high = 0
        "Highest frame known to exist."
        self.delivered = 0
        "All frames up to this one are delivered to the application."
        self.safe_upto = 0
        "All members are known to hold the frames up to this one."
        self.released = 0
        "Frames up to this one are no longer stored: everybody has them and they are delivered here."
        self.token = TokenState()

    @property
    def rep(self) -> int:
        return self.nodeids[0]

    def add(self, message: Regular) -> bool:
        """Store a frame. False: it is here already, or beyond all limits."""
        seq = message.seq
        store = self.store
        if seq <= self.aru or seq in store or seq > self.aru + STORE_MAX:
            return False
        store[seq] = message
        self.high = max(self.high, seq)
        if seq == self.aru + 1:
            aru = seq
            while aru + 1 in store:
                aru += 1
            self.aru = aru
        return True

    def missing(self, upto: int) -> list[tuple[int, int]]:
        """Ranges of frames up to ``upto`` that are not here, at most RTR_RANGES_MAX."""
        ranges: list[tuple[int, int]] = []
        store = self.store
        seq = self.aru + 1
        upto = min(upto, self.aru + STORE_MAX)
        while seq <= upto:
            if seq in store:
                seq += 1
                continue
            first = seq
            while seq <= upto and seq not in store:
                seq += 1
            ranges.append((first, seq - 1))
            if len(ranges) == RTR_RANGES_MAX:
                break
        return ranges

    def release(self, upto: int) -> None:
        """Forget frames that every member holds and that are delivered here."""
        upto = min(upto, self.delivered)
        for seq in range(self.released + 1, upto + 1):
            self.store.pop(seq, None)
        self.released = max(self.released, upto)


def merge_ranges(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The union of two lists of ranges, ascending and disjoint, at most RTR_RANGES_MAX (the lowest ones)."""
    if not a:
        return b
    if not b:
        return a
    out: list[tuple[int, int]] = []
    for first, last in sorted(a + b):
        if out and first <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(out[-1][1], last))
        else:
            out.append((first, last))
    return out[:RTR_RANGES_MAX]


def subtract(ranges: list[tuple[int, int]], served: set[int]) -> list[tuple[int, int]]:
    """``ranges`` without the frames in ``served``."""
    out: list[tuple[int, int]] = []
    for first, last in ranges:
        start = first
        for seq in range(first, last + 1):
            if seq in served:
                if start < seq:
                    out.append((start, seq - 1))
                start = seq + 1
        if start <= last:
            out.append((start, last))
    return out[:RTR_RANGES_MAX]
