# SPDX-License-Identifier: GPL-2.0-only
"""Self-fencing by the kernel's lease: what a node announces of it, and how long the others wait (SAFETY S9 to S14). Pure.

A node whose lease runs out resets itself, at an absolute deadline of its own kernel. Evidence for a renewal ends when the others have
formed a quorate configuration without it, so whoever counts from there, for as long as that node *announced*, outwaits it::

    victim:    last evidence ---- lease ----> groups lost -- grace --> reset     (hardware watchdog: lease + its time-out)
    survivors:       configuration without it -- lease + max(grace, watchdog) + margin --> it counts as fenced

The margin is for the drift of two clocks, the time that a reset takes, and what the machine's storage has already been told to write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vcs.config.model import ClusterConfig

MS: Final = 1_000_000
HOUR_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class SelfFence:
    """What a node said of its lease in an ordered message. All zero: unarmed (or a dry run), and there is nothing to wait for."""

    lease_ms: int = 0
    grace_ms: int = 0
    watchdog_ms: int = 0

    @property
    def usable(self) -> bool:
        return self.lease_ms > 0 and self.grace_ms > 0

    @property
    def row(self) -> tuple[int, int, int]:
        """As it stands in messages and records."""
        return (self.lease_ms, self.grace_ms, self.watchdog_ms)

    def wait_ms(self, margin_ms: int) -> int:
        return self.lease_ms + max(self.grace_ms, self.watchdog_ms) + margin_ms


UNARMED: Final = SelfFence()


def announce(config: ClusterConfig, can_reset: bool) -> SelfFence:
    """What this node says of itself. ``can_reset``: its kernel resets the machine, and was asked to."""
    if not config.self_fencing or not can_reset:
        return UNARMED
    return SelfFence(config.lease.lease_ms, config.lease.grace_ms, config.watchdog.seconds * 1000)


def announced(row: Sequence[int]) -> SelfFence:
    """What a message or record says; nonsense counts as nothing announced."""
    if len(row) != 3 or not all(0 <= int(n) <= HOUR_MS for n in row):
        return UNARMED
    return SelfFence(*(int(n) for n in row))


def ready_ns(victim: SelfFence, margin_ms: int, since_ns: int) -> int | None:
    """When a node that was owed its fence since ``since_ns`` (this node's clock: a quorate configuration does without it) has surely
    reset itself; None when it announced nothing."""
    return since_ns + victim.wait_ms(margin_ms) * MS if victim.usable else None
