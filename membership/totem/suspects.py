# SPDX-License-Identifier: GPL-2.0-only
"""What failure detection remembers: for each node since when it owes an answer, our claims, the token's last hop."""

from __future__ import annotations

from collections.abc import Iterable

from membership.api import Processor
from membership.totem.limits import HOLD_PROBE_MIN_NS
from vcs.model import RingId

NEVER = -(1 << 62)
NUMBER_STEP = 128
TO_ALL = NUMBER_STEP - 1
"""The low bits of a probe's number say who is asked (its nodeid modulo this; this: everybody). The high bits come from our engine's
incarnation. So an answer that was meant for another node, or for a former life of this one, answers no question of ours."""


class Clock:
    """One peer. ``asked_ns``: when the first ask went out that is not answered; 0: it owes nothing."""

    __slots__ = ("answered_ns", "asked_ns", "asks", "dev_ns", "first_ns", "last_ns", "mean_ns", "nonce", "nonce_first", "probe_ns",
                 "refused", "warned_ns")

    def __init__(self) -> None:
        self.asked_ns = 0
        self.asks = 0
        "Unanswered ones."
        self.last_ns = NEVER
        "The last ask."
        self.answered_ns = NEVER
        "The last proof of a round trip."
        self.nonce_first = 0
        "Number of the first probe whose answer counts, sent at ``first_ns``; 0: none is out."
        self.first_ns = 0
        self.nonce = 0
        "Number of the last probe, sent at ``probe_ns``."
        self.probe_ns = 0
        self.refused = 0
        "Times the kernel said, since ``asked_ns``, that nobody listens there."
        self.warned_ns = NEVER
        "When we raised the alarm about it."
        self.mean_ns = 0
        self.dev_ns = 0
        "Of the times it took to answer."

    def took(self, ns: int) -> None:
        """An answer came after ``ns`` (RFC 6298, section 2)."""
        if not self.mean_ns:
            self.mean_ns, self.dev_ns = ns, ns // 2
        else:
            self.dev_ns += (abs(self.mean_ns - ns) - self.dev_ns) // 4
            self.mean_ns += (ns - self.mean_ns) // 8


class Held:
    """A claim of ours: this processor and we have no round trip."""

    __slots__ = ("good_ns", "hold_ns", "next_ns", "pause_ns", "strikes")

    def __init__(self, hold_ns: int, strikes: int, next_ns: int) -> None:
        self.hold_ns = hold_ns
        "How long its answers must be steady before the claim is taken back."
        self.strikes = strikes
        "How often it came back and failed again."
        self.good_ns = 0
        "Since when they are steady; 0: they are not."
        self.next_ns = next_ns
        "When it is asked again."
        self.pause_ns = HOLD_PROBE_MIN_NS


class Watch:
    def __init__(self, nodeids: Iterable[int]) -> None:
        self.clocks = {n: Clock() for n in nodeids}
        self._last = 0
        self.alarmed: dict[int, int] = {}
        "Whom somebody else misses -> until when we ask them."
        self.contests: set[int] = set()
        "Nodes whose seat a second incarnation claims (seats.py)."
        self.alarm_ns = NEVER
        "When we last raised an alarm."
        self.verdicts: list[Processor] = []
        "New claims that the state machine has not seen yet."
        self.held: dict[Processor, Held] = {}
        self.strikes: dict[int, tuple[int, int]] = {}
        "nodeid -> (strikes, when the last claim ended)."
        self.told: dict[int, frozenset[int]] = {}
        "Member of our ring -> nodes outside that it claims not to reach."
        self.apart: dict[int, tuple[tuple[int, int], ...]] = {}
        "What the beacons of outsiders said last."
        self.changed_ns = NEVER
        "When claims between our ring and others changed."
        self.verified_ns = NEVER
        # the token's last hop, to be acknowledged
        self.hop_ring: RingId | None = None
        self.hop_seq = 0
        self.hop_ns = 0
        self.hop_open = False
        self.hop_again = False
        "It was sent more than once: nobody knows which copy an answer answers."
        self.rto_ns = 0
        self.rotation_ns = 0
        "Smoothed time of a rotation without rest."
        self.lap_ns = 0
        "Smoothed time between two tokens of an idle ring: a rest and a rotation."
        self.progress_ns = NEVER
        "When a token last came."
        # self doubt
        self.called_ns = NEVER
        "When the driver last called."
        self.forgiven_ns = NEVER
        self.doubt = 0
        self.doubt_ns = NEVER

    def forget(self, nodeid: int) -> None:
        """The node is configured no longer, and no ring names it."""
        self.alarmed.pop(nodeid, None)
        self.strikes.pop(nodeid, None)
        self.told.pop(nodeid, None)
        self.held = {p: h for p, h in self.held.items() if p.nodeid != nodeid}
        self.verdicts = [p for p in self.verdicts if p.nodeid != nodeid]

    def number(self, local: Processor, mark: int) -> int:
        """A fresh number for a probe (u64)."""
        if not self._last:
            self._last = (local.engine & 0xFFFFFFFF) << 31
        self._last += NUMBER_STEP
        return self._last | mark
