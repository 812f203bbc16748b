# SPDX-License-Identifier: GPL-2.0-only
"""Since when this node knows, without a break, that somebody is out: the count of self-fencing (SAFETY S10). Not replicated, pure.

It begins with the first quorate configuration of this process that owes the victim its fence (the victim is outside of it, or in it
without admission: either way nobody proves a quorum to it any more), and goes on over later ones, for primary configurations are a
chain. Who adopted its state from others was away: they may have had the victim back meanwhile, so everything begins anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from bridge.coordinator.lease import MS, ready_ns
from bridge.coordinator.messages import FenceResult
from bridge.coordinator.state import State

SELF_FENCED: Final = "its lease ran out: it has reset itself"
Key = tuple[int, int]
"(nodeid, boot incarnation)"


@dataclass(slots=True)
class LeaseClock:
    margin_ms: int
    since: dict[Key, int] = field(default_factory=dict)
    "Obligation -> when it began here (ns, local clock)."
    at: dict[Key, int] = field(default_factory=dict)
    "Obligation -> when the lease of its node is surely over, where it announced one."

    def forget(self) -> None:
        self.since.clear()

    def due(self, state: State, now_ns: int) -> list[FenceResult]:
        """Look at the clock; the obligations that have ended by it. Call it in primary configurations only."""
        self.since = {key: self.since.get(key, now_ns) for key in state.obligations}
        self.at.clear()
        for key, since in self.since.items():
            victim = state.nodes[key[0]]
            # Who failed under a maintenance may have frozen its lease for that long (SAFETY S24).
            at = ready_ns(victim.self_fence, self.margin_ms, since + state.obligations[key].frozen_ms * MS)
            if at is not None and victim.boot == key[1]:
                self.at[key] = at
        return [FenceResult(*key, state.obligations[key].attempt, True, SELF_FENCED) for key, at in self.at.items() if now_ns >= at]
