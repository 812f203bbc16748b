# SPDX-License-Identifier: GPL-2.0-only
"""The userland model of the switch: what vcs.ko does, without a kernel.

One :class:`FakeSwitch` is one kernel; a port made by ``provider()``, ``consumer()`` or ``reader()`` is one
netlink socket of it, and its ``close()`` is the death of that socket. Semantics and errors are the kernel's:
tests/kernel/contract.py runs against both. There is no thread and no clock: ``now`` gives CLOCK_BOOTTIME in
nanoseconds, and the lease is looked at on every call and by ``tick()`` (``next_deadline()`` says when that is
due). No descriptor is opened unless ``hints_fd()`` is called, so a simulation can hold thousands.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

from bridge.switch import Attachment, ClusterInfo, Hint, Joined, SwitchInfo
from tests.fakes.switch_port import HINTS_MAX, FakePort
from tests.fakes.switch_state import (
    CLAIM_DATA_MAX,
    U64_MAX,
    FakeCluster,
    FakeGroup,
    check_error,
    check_level,
    check_members,
    check_name,
    check_nodeid,
    check_not_lost,
    check_range,
    check_text,
    check_u64,
    refuse,
)
from vcs.model import (
    NODEID_MAX,
    Group,
    GroupFlags,
    GroupState,
    Level,
    Member,
    Phase,
    ProviderState,
    RingId,
    View,
)

API_VERSION = 1
RESERVED = ("providers", "api_version")
"Names beside the clusters' own in /sys/kernel/vcs."
CAPABILITIES = 0x7
"Groups, results of fencing, the lease."
CAPABILITY_RESET = 0x8
FREEZE_MAX_NS = 24 * 3600 * 1_000_000_000
ALL_FLAGS = GroupFlags.PERSISTENT | GroupFlags.NEEDS_FENCE

Observer = Callable[[str, str, str, int], None]
"Called on each change of state as (tracepoint name, handle, group or '', event or generation or session)."


class FakeSwitch:
    """One kernel with the module loaded. ``incarnation`` is its boot incarnation (u64 > 0)."""

    def __init__(
        self, incarnation: int, now: Callable[[], int] = lambda: 0, observer: Observer | None = None,
        reset: Callable[[], None] | None = None,
    ) -> None:
        """``reset``: what resets this machine; None: the module runs with dry_run=1, and counts (``resets``)."""
        assert 0 < incarnation <= U64_MAX
        self._reset_machine = reset
        self.resets = 0
        self.incarnation = incarnation
        self._now = now
        self._observer = observer
        self._clusters: dict[str, FakeCluster] = {}
        self._claims: dict[str, tuple[FakePort | None, bytes]] = {}
        self._ports: list[FakePort] = []
        self._last_session = incarnation & 0xFFFF_FFFF
        # Not 0: a test that passes a made-up small session must fail.

    # --- sockets -------------------------------------------------------------------------------------------

    def provider(self, hints_max: int = HINTS_MAX, privileged: bool = True) -> FakePort:
        """A new socket, to drive the provider's side with."""
        port = FakePort(self, hints_max, privileged)
        self._ports.append(port)
        return port

    def consumer(self, hints_max: int = HINTS_MAX, privileged: bool = True) -> FakePort:
        """A new socket, to consume with."""
        return self.provider(hints_max, privileged)

    def reader(self, hints_max: int = HINTS_MAX) -> FakePort:
        """A new socket of somebody without rights."""
        return self.provider(hints_max, privileged=False)

    def socket_died(self, port: FakePort) -> None:
        """What the kernel's release notifier leads to: groups first, as one socket may be provider and consumer."""
        self._ports = [p for p in self._ports if p is not port]
        self._claims = {n: (None if p is port else p, d) for n, (p, d) in self._claims.items()}
        for cluster in list(self._clusters.values()):
            for group in list(cluster.groups.values()):
                if group.owner_port is port:
                    self._consumer_died(cluster, group)
            if cluster.provider_port is port:
                self._orphan(cluster)

    # --- time ----------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Let leases run out, and reset the machine, where that is due."""
        now = self._now()
        for cluster in self._clusters.values():
            lease = cluster.lease
            if cluster.armed and now >= lease.end_ns and not lease.told:
                lease.told = True
                self._note("lease_expire", cluster.handle, "", cluster.session)
                if not cluster.over(now):
                    self._changed(cluster, "lease_hint", "provider", number=cluster.session)
                elif cluster.provider_state in (ProviderState.ATTACHED, ProviderState.ORPHAN):
                    self._lose(cluster)
            if cluster.due(now) and not lease.fired:
                lease.fired = True
                self._reset(cluster)

    def next_deadline(self) -> int | None:
        """When tick() has something to do (ns, CLOCK_BOOTTIME), or None."""
        armed = [c.lease for c in self._clusters.values() if c.armed]
        ends = [lease.end_ns for lease in armed if not lease.told]
        return min(ends + [lease.reset_ns for lease in armed if lease.reset_ns and not lease.fired], default=None)

    def _reset(self, cluster: FakeCluster) -> None:
        self._note("lease_reset", cluster.handle, "", cluster.session)
        if self._reset_machine is None:
            self.resets += 1
        else:
            self._reset_machine()

    # --- reading -------------------------------------------------------------------------------------------

    def info(self) -> SwitchInfo:
        capabilities = CAPABILITIES | (0 if self._reset_machine is None else CAPABILITY_RESET)
        return SwitchInfo(API_VERSION, capabilities, self.incarnation)

    def clusters(self) -> list[ClusterInfo]:
        return [self._cluster_info(c) for c in self._clusters.values()]

    def _cluster_info(self, c: FakeCluster) -> ClusterInfo:
        remaining = max(0, c.lease.end_ns - self._now()) // 1_000_000 if c.attached or c.armed else 0
        return ClusterInfo(
            c.handle, c.name, c.nodeid, c.provider, c.provider_state, c.change_seq,
            c.lease.lease_ns // 1_000_000, remaining, c.lease.grace_ns // 1_000_000,
        )

    def view(self, handle: str) -> View:
        return self._cluster(handle).view

    def groups(self, handle: str) -> list[Group]:
        return [g.snapshot() for g in self._cluster(handle).groups.values()]

    def group(self, handle: str, name: str) -> Group:
        return self._group(self._cluster(handle), name).snapshot()

    def fence_marks(self, handle: str) -> dict[tuple[int, int], int]:
        """For checkers: (nodeid, incarnation) -> error, as reported by ``fenced``."""
        return dict(self._cluster(handle).fence_marks)

    # --- clusters and the provider's seat ------------------------------------------------------------------

    def cluster_add(self, handle: str, name: str, nodeid: int) -> None:
        check_name(handle, "handle")
        check_text(name, "name")
        if not name or handle in RESERVED:
            raise refuse(errno.EINVAL, f"{handle} ({name}) cannot be a cluster", "handle")
        check_nodeid(nodeid)
        if handle in self._clusters:
            raise refuse(errno.EEXIST, f"cluster {handle} exists", "handle")
        self._clusters[handle] = FakeCluster(handle, name, nodeid)
        self._changed(self._clusters[handle], "cluster_add", "cluster")

    def cluster_del(self, handle: str) -> None:
        cluster = self._cluster(handle)
        if cluster.attached or cluster.groups:
            raise refuse(errno.EBUSY, f"cluster {handle} has a provider or groups", "handle")
        del self._clusters[handle]
        self._changed(cluster, "cluster_del", "cluster")

    def attach(self, port: FakePort, handle: str, lease_ms: int, grace_ms: int = 0) -> Attachment:
        cluster = self._cluster(handle)
        for value, name in ((lease_ms, "lease-ms"), (grace_ms, "grace-ms")):
            if not 0 <= value <= 3_600_000:
                raise refuse(errno.EINVAL, f"{name} of {value} out of range", name)
        if cluster.attached:
            raise refuse(errno.EBUSY, f"cluster {handle} has a provider", "handle")
        self._attach_lease(cluster, lease_ms, grace_ms)
        cluster.provider, cluster.provider_state, cluster.provider_port = "user", ProviderState.ATTACHED, port
        cluster.session, cluster.event_floor = self._new_session(), cluster.highest_event
        self._changed(cluster, "provider_attach", "provider", number=cluster.session)
        return Attachment(cluster.session, self.incarnation, cluster.highest_event)

    def _attach_lease(self, cluster: FakeCluster, lease_ms: int, grace_ms: int) -> None:
        """An armed lease goes on as it was: to take over is no evidence. Another runs from now: no evidence is older."""
        if grace_ms and not lease_ms:
            raise refuse(errno.EINVAL, "a grace without a lease", "grace-ms")
        if cluster.over(self._now()):
            self._reset_if_due(cluster)
            raise refuse(errno.ESTALE, "the lease has run out: this machine is about to be reset", "handle")
        if grace_ms and any(c is not cluster and c.lease.grace_ns and (c.attached or c.armed) for c in self._clusters.values()):
            raise refuse(errno.EBUSY, "the lease of another cluster resets this machine", "grace-ms")
        cluster.lease.lease_ns, cluster.lease.grace_ns = lease_ms * 1_000_000, grace_ms * 1_000_000
        if not cluster.armed:
            cluster.lease.freeze_ns = 0
            cluster.lease.prolong(self._now())
        elif grace_ms and not cluster.lease.reset_ns:  # it is announced from now on, so it must hold before a renewal, too
            cluster.lease.reset_ns = max(cluster.lease.end_ns, self._now()) + cluster.lease.grace_ns

    def _reset_if_due(self, cluster: FakeCluster) -> None:
        if cluster.due(self._now()):
            self._reset(cluster)

    def detach(self, handle: str, session: int) -> None:
        cluster = self._provided(handle, session)
        if cluster.groups:
            raise refuse(errno.EBUSY, f"cluster {handle} has groups", "handle")
        self._vacate(cluster, ProviderState.NONE)
        self._changed(cluster, "provider_detach", "provider", number=session)

    def view_set(
        self, handle: str, session: int, ring: RingId, quorate: bool, members: Sequence[Member]
    ) -> int:
        cluster = self._provided(handle, session)
        if not 0 < ring.seq <= U64_MAX or not 0 < ring.rep <= NODEID_MAX:
            raise refuse(errno.EINVAL, f"ring {ring} out of range", "ring-seq")
        check_members(members)
        me = (cluster.nodeid, self.incarnation)
        if quorate and all((m.nodeid, m.incarnation) != me for m in members):
            raise refuse(errno.EPROTO, "a quorate view holds this node with its boot incarnation", "member")
        view = View(cluster.view.generation + 1, ring, quorate, tuple(sorted(members)))
        cluster.view = view
        self._changed(cluster, "view_install", "view", number=view.generation)
        return view.generation

    def lease_renew(self, handle: str, session: int, valid_from_ns: int) -> None:
        cluster = self._provided(handle, session)
        lease, now = cluster.lease, self._now()
        if not lease.lease_ns:
            raise refuse(errno.EINVAL, f"cluster {handle} has no lease", "valid-from-ns")
        if valid_from_ns > now:
            raise refuse(errno.EINVAL, f"{valid_from_ns} lies in the future of {now}", "valid-from-ns")
        if valid_from_ns < lease.valid_from_ns:
            raise refuse(errno.ESTALE, f"{valid_from_ns} is older than {lease.valid_from_ns}", "valid-from-ns")
        if valid_from_ns + lease.lease_ns <= now or cluster.over(now):
            self._reset_if_due(cluster)
            raise refuse(errno.ESTALE, f"the lease of {valid_from_ns} has run out at {now}", "valid-from-ns")
        lease.prolong(valid_from_ns)
        self._note("lease_renew", handle, "", valid_from_ns)

    def lease_freeze(self, handle: str, session: int, until_ns: int) -> None:
        cluster = self._provided(handle, session)
        lease, now = cluster.lease, self._now()
        check_range(until_ns, 0, U64_MAX, "freeze-until-ns")
        if not lease.lease_ns:
            raise refuse(errno.EINVAL, f"cluster {handle} has no lease", "handle")
        if until_ns > now + FREEZE_MAX_NS:
            raise refuse(errno.ERANGE, "frozen for over a day", "freeze-until-ns")
        if cluster.over(now):
            raise refuse(errno.ESTALE, "the lease has run out", "handle")
        lease.freeze_ns = until_ns
        lease.prolong(lease.valid_from_ns)

    # --- the provider's orders -----------------------------------------------------------------------------

    def group_stop(self, handle: str, session: int, name: str, event: int) -> None:
        cluster = self._provided(handle, session)
        group = self._group(cluster, name)
        check_u64(event, "event")
        floor = max(group.event, cluster.event_floor)
        if event <= floor:
            raise refuse(errno.ESTALE, f"event {event} of group {name} does not exceed {floor}", "event")
        cluster.highest_event = max(cluster.highest_event, event)
        group.event, group.phase, group.members = event, Phase.STOP, ()
        group.view_generation = cluster.view.generation
        if group.abandoned:
            group.acknowledge(Phase.STOP)
        self._changed(cluster, "group_stop", "group", name, event)

    def group_start(
        self, handle: str, session: int, name: str, event: int, members: Sequence[Member]
    ) -> None:
        cluster = self._provided(handle, session)
        group = self._group(cluster, name)
        check_u64(event, "event")
        check_members(members)
        if event < group.event:
            raise refuse(errno.ESTALE, f"group {name} is at event {group.event}, not at {event}", "event")
        check_not_lost(group)
        if event != group.event or group.phase is not Phase.STOP or not group.acked(Phase.STOP):
            raise refuse(errno.EPROTO, f"group {name} did not acknowledge the stop of event {event}", "event")
        if not cluster.view.quorate:
            raise refuse(errno.EPROTO, "the current view is not quorate", "event")
        for m in members:
            if cluster.view.incarnation_of(m.nodeid) != m.incarnation:
                raise refuse(errno.EPROTO, f"{m.nodeid}/{m.incarnation:x} is not in the current view", "member")
        if all(m.nodeid != cluster.nodeid for m in members):
            raise refuse(errno.EPROTO, "a start names this node", "member")
        if GroupFlags.NEEDS_FENCE in group.flags and cluster.lease.end_ns and self._now() >= cluster.lease.end_ns:
            raise refuse(errno.EPROTO, "the lease has run out: renew it first", "event")
        group.phase, group.members, group.started = Phase.START, tuple(sorted(members)), True
        group.started_event, group.started_members = event, group.members
        group.view_generation = cluster.view.generation
        self._changed(cluster, "group_start", "group", name, event)

    def group_finish(self, handle: str, session: int, name: str, event: int) -> None:
        cluster = self._provided(handle, session)
        group = self._group(cluster, name)
        if event != group.event:
            raise refuse(errno.ESTALE, f"group {name} is at event {group.event}, not at {event}", "event")
        check_not_lost(group)
        if group.phase is not Phase.START or not group.acked(Phase.START):
            raise refuse(errno.EPROTO, f"group {name} did not acknowledge the start of event {event}", "event")
        group.phase = Phase.FINISH
        group.finished_event, group.finished_members = event, group.members
        if group.state is GroupState.JOINING:
            group.state = GroupState.MEMBER
        self._changed(cluster, "group_finish", "group", name, event)

    def group_left(self, handle: str, session: int, name: str, error: int) -> None:
        cluster = self._provided(handle, session)
        check_error(error)
        group = self._group(cluster, name)
        if not error and group.state is not GroupState.LEAVING:
            raise refuse(errno.EPROTO, f"group {name} does not leave", "group")
        self._remove(cluster, group)

    def fenced(self, handle: str, session: int, nodeid: int, incarnation: int, error: int) -> None:
        cluster = self._provided(handle, session)
        check_nodeid(nodeid)
        check_u64(incarnation, "incarnation")
        check_error(error)
        cluster.fence_marks[nodeid, incarnation] = error
        self._changed(cluster, "fence_result", "cluster", number=nodeid)
        endangered = any(GroupFlags.NEEDS_FENCE in g.flags and g.event for g in cluster.groups.values())
        if not error and (nodeid, incarnation) == (cluster.nodeid, self.incarnation) and cluster.lease.grace_ns and endangered:
            self._reset(cluster)  # others do without this boot, and took its locks

    # --- consumers -----------------------------------------------------------------------------------------

    def join(
        self, port: FakePort, handle: str, name: str, level: Level, flags: GroupFlags, owner: str
    ) -> Joined:
        cluster = self._cluster(handle)
        check_name(name, "group")
        check_text(owner, "owner")
        check_level(level)
        if int(flags) & ~int(ALL_FLAGS):
            raise refuse(errno.EINVAL, f"group flags {int(flags):#x} unknown", "group-flags")
        group = cluster.groups.get(name)
        if group is None:
            group = FakeGroup(name, level, flags, owner, port, self._new_session(), now=self._now)
            cluster.groups[name] = group
            self._changed(cluster, "group_join", "group", name, group.session)
            return Joined(group.session, 1, False)
        if group.owner_port is not None or group.abandoned or group.owner != owner:
            raise refuse(errno.EBUSY, f"group {name} is held by {group.owner}", "group")
        # The event, its phase and what was acknowledged stay: the successor reads them and goes on from there.
        group.owner_port, group.session, group.orphaned_ns = port, self._new_session(), None
        group.owner_epoch += 1
        self._changed(cluster, "group_takeover", "group", name, group.session)
        return Joined(group.session, group.owner_epoch, True)

    def ack(self, handle: str, session: int, name: str, event: int, phase: Phase) -> None:
        cluster = self._cluster(handle)
        group = self._owned(cluster, session, name)
        if phase not in (Phase.STOP, Phase.START):
            raise refuse(errno.EINVAL, f"phase {phase} is not acknowledged", "phase")
        if event != group.event:
            raise refuse(errno.ESTALE, f"group {name} is at event {group.event}, not at {event}", "event")
        acked = group.acked_phase if group.acked_event == event else Phase.NONE
        if phase > group.phase or phase < acked or phase > acked + 1:
            raise refuse(errno.EPROTO, f"phase {phase.name} of event {event} is not waited for", "phase")
        if phase == acked:
            return
        group.acknowledge(phase)
        self._changed(cluster, "group_ack", "group", name, event)

    def leave(self, handle: str, session: int, name: str) -> None:
        cluster = self._cluster(handle)
        self._leave(cluster, self._owned(cluster, session, name))

    def claim(self, port: FakePort, name: str, data: bytes | None) -> bytes:
        check_name(name, "claim")
        if data is not None and len(data) > CLAIM_DATA_MAX:
            raise refuse(errno.ERANGE, f"claim data above {CLAIM_DATA_MAX} bytes", "claim-data")
        holder, before = self._claims.get(name, (None, b""))
        if holder not in (None, port):
            raise refuse(errno.EBUSY, f"claim {name} is held", "claim")
        self._claims[name] = (port, before if data is None else data)
        return before

    # --- inside --------------------------------------------------------------------------------------------

    def _new_session(self) -> int:
        self._last_session += 1
        return self._last_session

    def _cluster(self, handle: str) -> FakeCluster:
        check_name(handle, "handle")
        cluster = self._clusters.get(handle)
        if cluster is None:
            raise refuse(errno.ENOENT, f"no cluster {handle}", "handle")
        return cluster

    def _group(self, cluster: FakeCluster, name: str) -> FakeGroup:
        check_name(name, "group")
        group = cluster.groups.get(name)
        if group is None:
            raise refuse(errno.ENOENT, f"no group {name}", "group")
        return group

    def _provided(self, handle: str, session: int) -> FakeCluster:
        """The session counts, not the socket that a command comes from (KERNEL-API rule 6)."""
        cluster = self._cluster(handle)
        if not cluster.attached or cluster.session != session:
            raise refuse(errno.ESTALE, f"session {session} does not hold the seat of {handle}", "session")
        return cluster

    def _owned(self, cluster: FakeCluster, session: int, name: str) -> FakeGroup:
        group = self._group(cluster, name)
        if group.session != session or group.owner_port is None:
            raise refuse(errno.ESTALE, f"session {session} does not hold group {name}", "session")
        return group

    def _leave(self, cluster: FakeCluster, group: FakeGroup) -> None:
        if group.state is GroupState.LOST or not cluster.attached:
            self._remove(cluster, group)
            return
        if group.state is not GroupState.LEAVING:
            group.state = GroupState.LEAVING
            self._changed(cluster, "group_leave", "group", group.name, group.event)

    def _consumer_died(self, cluster: FakeCluster, group: FakeGroup) -> None:
        group.owner_port = None
        group.session = 0
        if GroupFlags.PERSISTENT in group.flags:
            group.orphaned_ns = self._now()
            self._changed(cluster, "group_orphan", "group", group.name, group.event)
            return
        if group.phase is Phase.STOP and not group.acked(Phase.STOP):
            group.acknowledge(Phase.STOP)
        self._leave(cluster, group)

    def _orphan(self, cluster: FakeCluster) -> None:
        """The provider's process is gone: its groups stay as they are for the next one, and who was leaving, has left (S16, S21)."""
        session = cluster.session
        self._vacate(cluster, ProviderState.ORPHAN)
        self._changed(cluster, "provider_orphan", "provider", number=session)
        for group in [g for g in cluster.groups.values() if g.state is GroupState.LEAVING]:
            self._remove(cluster, group)

    def _lose(self, cluster: FakeCluster) -> None:
        """The provider is gone without a detach: every group stops until it is left, the leaving ones are left (S15, S21)."""
        session = cluster.session
        self._vacate(cluster, ProviderState.LOST)
        self._changed(cluster, "provider_lost", "provider", number=session)
        for group in list(cluster.groups.values()):
            if group.state is GroupState.LEAVING:
                self._remove(cluster, group)
            else:
                group.state = GroupState.LOST
                self._changed(cluster, "group_lost", "group", group.name, group.event)

    def _vacate(self, cluster: FakeCluster, state: ProviderState) -> None:
        """Empty the seat. The last view stays readable, but nobody vouches for its quorum: no start on its strength."""
        cluster.provider_state, cluster.provider_port, cluster.session = state, None, 0
        old = cluster.view
        if old.quorate:
            cluster.view = View(old.generation + 1, old.ring, False, old.members)
            self._changed(cluster, "view_install", "view", number=cluster.view.generation)

    def _remove(self, cluster: FakeCluster, group: FakeGroup) -> None:
        del cluster.groups[group.name]
        self._changed(cluster, "group_left", "group", group.name, group.event)

    def _changed(self, cluster: FakeCluster, what: str, hint: str, group: str = "", number: int = 0) -> None:
        cluster.change_seq += 1
        self._note(what, cluster.handle, group, number)
        message = Hint(hint, cluster.handle, group, cluster.view.generation)
        for port in self._ports:
            port.deliver(message)

    def _note(self, what: str, handle: str, group: str, number: int) -> None:
        if self._observer is not None:
            self._observer(what, handle, group, number)
