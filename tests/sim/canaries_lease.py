# SPDX-License-Identifier: GPL-2.0-only
"""The rules of the lease broken on purpose (SAFETY S9 to S13), in clusters that have nothing but the lease to fence with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from bridge.coordinator import api as co
from bridge.coordinator import lease_clock, merge
from bridge.coordinator.core import Coordinator
from bridge.coordinator.lease import MS, SelfFence
from membership.api import Rotation
from tests.fakes.switch import FakeSwitch
from tests.fakes.switch_state import FakeCluster

TWO_WRITERS = frozenset({"start_before_fence", "dead_writer", "double_lock", "obligation_lost"})
Broken = Callable[[], Any]


@contextmanager
def _swap(where: object, name: str, new: object) -> Iterator[None]:
    with patch.object(where, name, new):
        yield


def _renewal_as_ping() -> Any:
    """S9: a daemon that lives renews, with quorum or without."""

    def rotation(self: Coordinator, event: Rotation) -> None:
        self.feed.out.append(co.RenewLease(event.began_ns))

    return _swap(Coordinator, "_rotation", rotation)


def _counted_from_the_last_word() -> Any:
    """S10: as if the victim's last evidence were as old as the last thing that was heard of it: a lease before the new configuration."""

    def ready_ns(victim: SelfFence, margin_ms: int, since_ns: int) -> int | None:
        return since_ns + (max(victim.grace_ms, victim.watchdog_ms) + margin_ms) * MS if victim.usable else None

    return _swap(lease_clock, "ready_ns", ready_ns)


def _unarmed_counted() -> Any:
    """S10: what counts is what a node is configured for, and not what it announced."""
    return _swap(merge, "announced", lambda row: SelfFence(3000, 500))


def _taken_over_afresh() -> Any:
    """S9, S11: whoever attaches gets a lease from now, also after the deadline."""

    def attach(self: FakeSwitch, cluster: FakeCluster, lease_ms: int, grace_ms: int) -> None:
        cluster.lease.lease_ns, cluster.lease.grace_ns = lease_ms * MS, grace_ms * MS
        cluster.lease.prolong(self._now())

    return _swap(FakeSwitch, "_attach_lease", attach)


def _armed_at_boot() -> Any:
    """S13: a node that waits for quorum, and has nothing yet to lose, resets itself again and again."""
    return _swap(FakeCluster, "armed", property(lambda self: self.lease.end_ns > 0))


def _disarmed_by_death() -> Any:
    """S14, S15: the lease is the provider's, and dies with it."""
    right = FakeSwitch._vacate

    def vacate(self: FakeSwitch, cluster: FakeCluster, state: Any) -> None:
        right(self, cluster, state)
        cluster.lease.end_ns = cluster.lease.reset_ns = 0

    return _swap(FakeSwitch, "_vacate", vacate)


LEASE_CANARIES: tuple[tuple[str, frozenset[str], Broken, tuple[str, ...]], ...] = (
    ("a renewal as a ping", TWO_WRITERS, _renewal_as_ping, ("alone",)),
    ("the lease counted from the wrong event", TWO_WRITERS, _counted_from_the_last_word, ("alone",)),
    ("an unarmed victim counted as fenced", TWO_WRITERS | {"vote_withdrawn"}, _unarmed_counted, ("alone",)),
    ("a lease taken over afresh", TWO_WRITERS, _taken_over_afresh, ("alone",)),
    ("armed at boot", frozenset({"needless_reset"}), _armed_at_boot, ()),
    ("a lease that dies with its provider", TWO_WRITERS, _disarmed_by_death, ("alone",)),
)
"(name, checkers that may catch it, how it is broken, faults that it needs)"
