# SPDX-License-Identifier: GPL-2.0-only
"""What is known of the configured nodes: which incarnation speaks, when it was heard, which of its frames came before.

A processor is believed when it proves to be there *now*: its Join or beacon names this processor, whose engine incarnation did not
exist before this process. So neither frames recorded in a former life nor a one-way link can disturb a ring. An incarnation that
was replaced is retired: its late frames are refused.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from membership.api import Processor
from membership.totem.limits import CLAIM_NS, GREET_INTERVAL_NS, REPLAY_WINDOW, RETIRED_MAX

_MASK = (1 << REPLAY_WINDOW) - 1


class ReplayWindow:
    """Accepts every counter once, and none that is REPLAY_WINDOW or more behind the highest."""

    __slots__ = ("_bits", "_high")

    def __init__(self) -> None:
        self._high = 0
        self._bits = 0

    def accept(self, counter: int) -> bool:
        ahead = counter - self._high
        if ahead > 0:
            self._bits = (self._bits << ahead | 1) & _MASK if ahead < REPLAY_WINDOW else 1
            self._high = counter
            return True
        if counter <= 0 or -ahead >= REPLAY_WINDOW:
            return False
        bit = 1 << -ahead
        if self._bits & bit:
            return False
        self._bits |= bit
        return True

    def close(self) -> None:
        """Nothing below the highest is accepted any more."""
        self._bits = _MASK


@dataclass(slots=True)
class Peer:
    nodeid: int
    current: Processor | None = None
    heard_ns: int = -(1 << 62)
    window: ReplayWindow = field(default_factory=ReplayWindow)
    candidate: Processor | None = None
    "An incarnation that speaks but has not yet named us."
    candidate_ns: int = -(1 << 62)
    candidate_window: ReplayWindow = field(default_factory=ReplayWindow)
    contested_ns: int = -(1 << 62)
    "Since when another incarnation claims the seat, and the current one has not answered."
    claimed_ns: int = -(1 << 62)
    named_ns: int = -(1 << 62)
    "When the candidate named us."
    retired: deque[Processor] = field(default_factory=lambda: deque(maxlen=RETIRED_MAX))
    greeted_ns: int = -(1 << 62)
    configured: bool = True
    "False: it was taken out of the configuration while we run; its frames are refused."

    def contest(self, answered_ns: int, now: int) -> int:
        """Another incarnation claims the seat. For how long the current one, which last proved a round trip at ``answered_ns``, has
        owed an answer since (ns)."""
        if answered_ns >= self.contested_ns or now - self.claimed_ns > CLAIM_NS:
            self.contested_ns = now
        self.claimed_ns = now
        return now - self.contested_ns

    def promote(self, now: int) -> None:
        """The candidate has proved to be there: it takes the seat. What it sent before this proof may have been meant for a former
        life of this node, and be sent again by anybody: it is refused."""
        if self.current is not None:
            self.retired.append(self.current)
        self.candidate_window.close()
        self.current, self.window, self.heard_ns = self.candidate, self.candidate_window, now
        self.candidate, self.candidate_window = None, ReplayWindow()

    def retire(self) -> None:
        """The current incarnation has ended (it said so)."""
        if self.current is not None:
            self.retired.append(self.current)
            self.current = None

    def may_greet(self, now: int) -> bool:
        if now - self.greeted_ns < GREET_INTERVAL_NS:
            return False
        self.greeted_ns = now
        return True
