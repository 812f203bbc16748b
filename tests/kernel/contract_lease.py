# SPDX-License-Identifier: GPL-2.0-only
"""The lease's part of the switch's contract (SAFETY S9 to S13, S24), told once for kernel and fake; the machine runs dry."""

from __future__ import annotations

import errno

from tests.kernel.contract_world import Backend, World, refused
from vcs.model import GroupFlags, GroupState, Phase

LEASE_MS, GRACE_MS = 800, 300
NEEDS_FENCE = GroupFlags.NEEDS_FENCE


def test_old_and_future_evidence_is_refused(backend: Backend) -> None:
    """S9: a renewal is evidence with a date."""
    world = World(backend, lease_ms=60_000)
    backend.advance(50)
    evidence = backend.now_ns()
    world.provider.lease_renew(world.handle, world.session, evidence)
    world.provider.lease_renew(world.handle, world.session, evidence)
    with refused(errno.ESTALE, errno.EINVAL):
        world.provider.lease_renew(world.handle, world.session, evidence - 1_000_000)
    with refused(errno.EINVAL):
        world.provider.lease_renew(world.handle, world.session, backend.now_ns() + 10_000_000_000)
    with refused(errno.ESTALE):
        world.provider.lease_renew(world.handle, world.session + 1000, backend.now_ns())


def test_a_lease_runs_from_its_evidence(backend: Backend) -> None:
    """S9: valid_from + lease, never now + lease."""
    world = World(backend, lease_ms=60_000)
    backend.advance(50)
    evidence = backend.now_ns()
    backend.advance(400)
    world.provider.lease_renew(world.handle, world.session, evidence)
    (info,) = [c for c in world.reader.clusters() if c.handle == world.handle]
    assert info.lease_ms == 60_000
    assert 0 < info.lease_remaining_ms <= 60_000 - 400


def test_a_lease_with_a_grace_that_runs_out_loses_the_provider(backend: Backend) -> None:
    world = World(backend, lease_ms=LEASE_MS, grace_ms=60_000)
    world.view()
    evidence = world.renew()
    consumer = world.member(10, flags=NEEDS_FENCE)
    world.wait_state(GroupState.LOST)
    assert backend.now_ns() >= evidence + LEASE_MS * 1_000_000
    assert world.provider_state() == "LOST"
    with refused(errno.ESTALE):
        world.renew()
    with refused(errno.ESTALE):
        world.stop(11)
    with refused(errno.ESTALE, attribute="handle"):
        world.attach(LEASE_MS)
    consumer.leave()
    world.wait_gone()
    world.attach(LEASE_MS)
    assert world.resets() == 0


def test_the_end_of_the_grace_resets_the_machine(backend: Backend) -> None:
    """S11: at an absolute deadline; who comes afterwards is refused, and resets at once."""
    world = World(backend, lease_ms=LEASE_MS, grace_ms=GRACE_MS)
    world.view()
    evidence = world.renew()
    world.member(10, flags=NEEDS_FENCE)
    world.wait("the reset", lambda: world.resets() > 0)
    assert backend.now_ns() >= evidence + (LEASE_MS + GRACE_MS) * 1_000_000
    assert world.resets() == 1
    with refused(errno.ESTALE):
        world.attach(LEASE_MS, grace_ms=GRACE_MS)
    assert world.resets() == 2


def test_evidence_that_is_renewed_keeps_the_reset_away(backend: Backend) -> None:
    world = World(backend, lease_ms=LEASE_MS, grace_ms=GRACE_MS)
    world.view()
    world.renew()
    world.member(10, flags=NEEDS_FENCE)
    for _ in range(8):
        backend.advance(LEASE_MS // 4)
        world.renew()
    assert (world.resets(), world.provider_state()) == (0, "ATTACHED")


def test_an_armed_lease_outlives_its_provider(backend: Backend) -> None:
    """S9: to take over is no evidence; S14: nor does the death of the provider disarm."""
    world = World(backend, lease_ms=LEASE_MS, grace_ms=GRACE_MS)
    world.view()
    evidence = world.renew()
    world.member(10, flags=NEEDS_FENCE)
    world.die()
    backend.advance(LEASE_MS // 4)
    world.attach(60_000, grace_ms=60_000)
    (info,) = [c for c in world.reader.clusters() if c.handle == world.handle]
    assert info.lease_remaining_ms <= LEASE_MS - LEASE_MS // 4
    world.wait("the reset", lambda: world.resets() > 0)
    assert evidence + (LEASE_MS + GRACE_MS) * 1_000_000 <= backend.now_ns() < evidence + 60_000_000_000


def test_a_grace_that_a_successor_brings_holds_at_once(backend: Backend) -> None:
    """S10: it announces the reset before it can renew."""
    world = World(backend, lease_ms=LEASE_MS)
    world.view()
    world.renew()
    world.member(10, flags=NEEDS_FENCE)
    world.die()
    world.attach(LEASE_MS, grace_ms=GRACE_MS)
    world.wait("the reset", lambda: world.resets() > 0)


def test_a_successor_renews_with_evidence(backend: Backend) -> None:
    world = World(backend, lease_ms=LEASE_MS, grace_ms=GRACE_MS)
    world.view()
    world.renew()
    world.member(10, flags=NEEDS_FENCE)
    world.die()
    world.attach(60_000, grace_ms=60_000)
    world.renew()
    backend.advance(2 * (LEASE_MS + GRACE_MS))
    assert (world.resets(), world.provider_state()) == (0, "ATTACHED")


def test_to_leave_disarms_the_reset(backend: Backend) -> None:
    world = World(backend, lease_ms=LEASE_MS, grace_ms=GRACE_MS)
    world.view()
    world.renew()
    consumer = world.member(10, flags=NEEDS_FENCE)
    world.die()
    consumer.leave()
    world.wait_gone()
    backend.advance(2 * (LEASE_MS + GRACE_MS))
    assert world.resets() == 0


def test_a_lease_without_a_grace_loses_nobody(backend: Backend) -> None:
    """S7: nothing starts until there is evidence again, no more: somebody else fences this node, or it is readmitted."""
    world = World(backend, lease_ms=LEASE_MS)
    world.view()
    world.renew()
    consumer = world.member(10, flags=NEEDS_FENCE)
    backend.advance(LEASE_MS + 50)
    assert (world.provider_state(), world.group().state) == ("ATTACHED", GroupState.MEMBER)
    world.stop(11)
    consumer.ack(11, Phase.STOP)
    with refused(errno.EPROTO, attribute="event"):
        world.start(11)
    world.renew()
    world.start(11)
    assert world.resets() == 0


def test_one_cluster_resets_the_machine(backend: Backend) -> None:
    world = World(backend, lease_ms=60_000, grace_ms=GRACE_MS)
    other = World(backend, attach=False)
    with refused(errno.EBUSY, attribute="grace-ms"):
        other.attach(60_000, grace_ms=GRACE_MS)
    other.attach(60_000)
    world.provider.detach(world.handle, world.session)
    other.provider.detach(other.handle, other.session)
    other.attach(60_000, grace_ms=GRACE_MS)


def test_a_grace_follows_a_lease(backend: Backend) -> None:
    world = World(backend, attach=False)
    with refused(errno.EINVAL, attribute="grace-ms"):
        world.attach(0, grace_ms=GRACE_MS)
    with refused(errno.EINVAL, attribute="grace-ms"):
        world.attach(1000, grace_ms=3_600_001)


def test_maintenance_freezes_the_lease_for_a_limited_time(backend: Backend) -> None:
    """S24."""
    world = World(backend, lease_ms=LEASE_MS, grace_ms=GRACE_MS)
    world.view()
    world.renew()
    world.member(10, flags=NEEDS_FENCE)
    day_ns = 24 * 3600 * 1_000_000_000
    with refused(errno.ERANGE, attribute="freeze-until-ns"):
        world.provider.lease_freeze(world.handle, world.session, backend.now_ns() + day_ns + 10_000_000_000)
    with refused(errno.ESTALE):
        world.provider.lease_freeze(world.handle, world.session + 1000, 0)
    until = backend.now_ns() + 3 * LEASE_MS * 1_000_000
    world.provider.lease_freeze(world.handle, world.session, until)
    backend.advance(2 * LEASE_MS)
    assert (world.resets(), world.provider_state()) == (0, "ATTACHED")
    world.wait("the reset", lambda: world.resets() > 0)
    assert backend.now_ns() >= until + GRACE_MS * 1_000_000
    with refused(errno.ESTALE):
        world.provider.lease_freeze(world.handle, world.session, backend.now_ns() + day_ns // 2)


def test_a_freeze_that_is_over_leaves_the_evidence(backend: Backend) -> None:
    world = World(backend, lease_ms=LEASE_MS, grace_ms=60_000)
    world.view()
    world.renew()
    world.member(10, flags=NEEDS_FENCE)
    world.provider.lease_freeze(world.handle, world.session, backend.now_ns() + 3_600_000_000_000)
    backend.advance(2 * LEASE_MS)
    world.renew()
    world.provider.lease_freeze(world.handle, world.session, 0)
    (info,) = [c for c in world.reader.clusters() if c.handle == world.handle]
    assert 0 < info.lease_remaining_ms <= LEASE_MS
    world.wait_state(GroupState.LOST)


def test_who_was_declared_fenced_is_reset(backend: Backend) -> None:
    """S1: others do without this very boot, and took its locks."""
    world = World(backend, lease_ms=60_000, grace_ms=60_000)
    world.view()
    world.renew()
    tell = world.provider.fenced
    tell(world.handle, world.session, world.NODEID, world.incarnation)
    world.consumer(flags=NEEDS_FENCE)
    tell(world.handle, world.session, world.NODEID, world.incarnation)
    assert world.resets() == 0
    world.stop(10)
    tell(world.handle, world.session, world.NODEID, world.incarnation ^ 1)
    tell(world.handle, world.session, world.peer.nodeid, world.incarnation)
    tell(world.handle, world.session, world.NODEID, world.incarnation, errno.EIO)
    assert world.resets() == 0
    tell(world.handle, world.session, world.NODEID, world.incarnation)
    assert world.resets() == 1


def test_a_lease_stays_armed_while_the_group_is_stopped(backend: Backend) -> None:
    """S4, S13: a stop does not end writes."""
    world = World(backend, lease_ms=LEASE_MS, grace_ms=60_000)
    world.view()
    world.provider.lease_renew(world.handle, world.session, backend.now_ns())
    consumer = world.member(10, flags=NEEDS_FENCE)
    world.stop(11)
    consumer.ack(11, Phase.STOP)
    world.wait_state(GroupState.LOST)


def test_a_renewed_lease_lives_on(backend: Backend) -> None:
    world = World(backend, lease_ms=LEASE_MS)
    world.view()
    world.provider.lease_renew(world.handle, world.session, backend.now_ns())
    world.member(10, flags=NEEDS_FENCE)
    for _ in range(6):
        backend.advance(LEASE_MS // 4)
        world.provider.lease_renew(world.handle, world.session, backend.now_ns())
    assert world.group().state is GroupState.MEMBER
    assert world.provider_state() == "ATTACHED"


def test_a_lease_is_not_armed_by_a_group_that_needs_no_fence(backend: Backend) -> None:
    """S13: nor by one that has not started."""
    world = World(backend, lease_ms=300, grace_ms=100)
    world.view()
    world.member(10)
    world.consumer("waiting", NEEDS_FENCE)
    world.stop(11, "waiting")
    backend.advance(500)
    assert world.provider_state() == "ATTACHED"
    assert world.group().state is GroupState.MEMBER
    assert world.resets() == 0
