# SPDX-License-Identifier: GPL-2.0-only
"""What must never happen above the engine, judged by physical truth. Each rule has a name; a broken one raises Violation with it.

=====================  ====================================================================================================
two_quorate_sides      two disjoint configurations decide at one time, although quorum is exclusive
split_start            a group is started in two disjoint configurations that both decide
vote_withdrawn         a vote was taken from a machine that is alive and has not left (SAFETY S12)
fenced_in_maintenance  a fence call was begun in a maintenance (SAFETY S24)
start_before_fence     a consumer recovers without an incarnation that is alive and may hold its locks
obligation_lost        the same, when the machine that recovers has itself been rebooted or restarted since it shared the group
start_before_stop      a start although a member has not acknowledged the stop of that very event
stale_acknowledgement  the barrier counted an acknowledgement that belongs to another event
finish_before_start    a finish although a member has not recovered
event_reused           one event id with two meanings
order                  the switch refused an order as stale or out of place
decided_in_transition  a start, fence, finish or lease order between a transitional configuration and the next merged one
dead_writer            a write by an incarnation that others have recovered without
double_lock            a lock that two living machines hold
restarted_admitted     a daemon that was restarted over live groups is in a quorate view
inquorate_start        a start in a view without quorum
needless_reset         a machine resets itself though no group that needs fencing has begun there
diverged               two members of one configuration hold different states at the same version
=====================  ====================================================================================================
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from bridge.coordinator import api as co
from bridge.coordinator.feed import LOCAL_COUNTER
from bridge.coordinator.quorum import exclusive
from bridge.coordinator.state import LATE_COUNTER, NO_RING
from tests.sim.world import Violation
from vcs.errors import SwitchError
from vcs.model import EVENT_COUNTER_BITS, GroupFlags, event_text

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster
    from tests.sim.node import Daemon, Machine

Incarnation = tuple[int, int]


class GroupCheckers:
    """Sees every effect, every observation of every switch, every write."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        cluster.checkers = self
        self.exclusive = exclusive(cluster.config)
        self.fenced_groups = {n for n, _, f in cluster.groups if f & GroupFlags.NEEDS_FENCE}
        self.started: dict[str, list[tuple[int, Daemon, frozenset[int]]]] = {}
        "group -> (event, daemon that ordered its start, members of its configuration)."
        self.exposed: dict[str, dict[Incarnation, int]] = {}
        "group -> incarnations that were told to recover it and have not left, with the time."
        self.newest: dict[str, tuple[int, frozenset[Incarnation]]] = {}
        "group -> (event, members) of the newest event that anybody recovered for."
        self.acked: dict[tuple[str, int, str], set[Incarnation]] = {}
        "(group, event, phase) -> who acknowledged."
        self.meaning: dict[tuple[str, int], tuple[tuple[int, int, int], ...]] = {}
        self.digests: dict[tuple[object, int], tuple[str, int]] = {}
        self.poison = False
        "A message is meant to be rejected."
        self.seen: set[str] = set()
        "Marks: what this run has exercised."

    def fail(self, name: str, text: str) -> None:
        raise Violation(name, text)

    # --- orders -----------------------------------------------------------------------------------------------------------
    def effect(self, daemon: Daemon, effect: co.Effect) -> None:
        if isinstance(effect, co.StartGroup):
            self._start(daemon, effect)
        elif isinstance(effect, co.FinishGroup):
            self._finish(daemon, effect)
        elif isinstance(effect, co.InstallView) and effect.quorate:
            self._view(daemon, effect)
        elif isinstance(effect, co.LaunchFence) and daemon.coordinator.state.maintenance is not None:
            self.fail("fenced_in_maintenance", f"node {daemon.machine.nodeid}: {effect}")
        elif isinstance(effect, co.Notice):
            self.seen.add(effect.event)
            if effect.event == "node_joined":
                self.seen.add(str(effect.fields["how"]))
            if effect.event == "votes_changed":
                self._withdrawn(effect)
            if effect.event == "rejected" and not self.poison:
                self.fail("rejected", f"node {daemon.machine.nodeid}: {effect.fields}")

    def _withdrawn(self, notice: co.Notice) -> None:
        given = notice.fields
        withdrawn = given["withdrawn"]
        assert isinstance(withdrawn, list)
        if withdrawn:
            self.seen.add("vote_withdrawn")
        for nodeid in withdrawn:
            machine = self.cluster.machines[nodeid]
            if machine.on and not machine.doomed and machine.daemon is not None and machine.daemon.coordinator.state.primary != NO_RING:
                self.fail("vote_withdrawn", f"node {nodeid} is alive, incarnation {machine.boot}")

    def _start(self, daemon: Daemon, e: co.StartGroup) -> None:
        me = daemon.machine.nodeid
        members = tuple((m.nodeid, m.incarnation, m.join_id) for m in e.members)
        known = self.meaning.setdefault((e.name, e.event), members)
        if known != members:
            self.fail("event_reused", f"{e.name} {event_text(e.event)} names {members} on node {me}, elsewhere {known}")
        for nodeid, boot, _ in members:
            machine = self.cluster.machines[nodeid]
            if (nodeid, boot) in self.acked.get((e.name, e.event, "STOP"), set()) or machine.boot != boot or not machine.on:
                continue
            counted = any((nodeid, boot) in who for (g, _, p), who in self.acked.items() if g == e.name and p == "STOP")
            name = "stale_acknowledgement" if counted and self._counted(daemon, e.name, nodeid) else "start_before_stop"
            self.fail(name, f"{e.name} {event_text(e.event)} starts on node {me}, node {nodeid} has not stopped for it")
        self._split(daemon, e)
        quorate = daemon.port.view("c").quorate
        if not quorate:
            self.fail("inquorate_start", f"{e.name} {event_text(e.event)} on node {me}")

    def _split(self, daemon: Daemon, e: co.StartGroup) -> None:
        """Nobody who still decides elsewhere has started the group there."""
        here = frozenset(m.nodeid for m in daemon.coordinator.members)
        held = self.started.setdefault(e.name, [])
        for event, other, there in held:
            machine = other.machine
            theirs = other.coordinator
            if other.dead or not machine.on or machine.paused or not self._decides(other) or theirs.ring == daemon.coordinator.ring:
                continue
            now_there = {m.nodeid for m in theirs.members}
            if now_there.isdisjoint(here) and there == now_there:
                self.fail("split_start", f"{e.name}: {event_text(e.event)} among {sorted(here)}, {event_text(event)} among {sorted(there)}")
        held.append((e.event, daemon, here))

    def _decides(self, daemon: Daemon) -> bool:
        """Whoever is given an input now acts by the clock of now: what a grant allowed before its end is not what counts."""
        c = daemon.coordinator
        return c.deciding and c.witness.holds(self.cluster.now)

    def _counted(self, daemon: Daemon, group: str, nodeid: int) -> bool:
        """Did the coordinator count an acknowledgement of ``nodeid`` (rather than do without)?"""
        record = daemon.coordinator.state.groups.get(group)
        return record is not None and nodeid in record.stop_acks

    def _finish(self, daemon: Daemon, e: co.FinishGroup) -> None:
        for nodeid, boot, _ in self.meaning.get((e.name, e.event), ()):
            machine = self.cluster.machines[nodeid]
            if (nodeid, boot) not in self.acked.get((e.name, e.event, "START"), set()) and machine.on and machine.boot == boot:
                self.fail("finish_before_start", f"{e.name} {event_text(e.event)}: node {nodeid} has not recovered")

    def _view(self, daemon: Daemon, e: co.InstallView) -> None:
        engines = {p.nodeid: p.engine for p in daemon.coordinator.members}
        for member in e.members:
            machine = self.cluster.machines[member.nodeid]
            other = machine.daemon
            if other is None or machine.boot != member.incarnation or other.who.engine != engines.get(member.nodeid):
                continue
            lost = [g.name for g in machine.lost_groups() if g.started and g.flags & GroupFlags.NEEDS_FENCE]
            if other.born_with_lost and lost:
                where = f"the view {e.ring} of node {daemon.machine.nodeid}"
                self.fail("restarted_admitted", f"node {member.nodeid} is in {where}, with {lost}")

    def refused(self, daemon: Daemon, effect: co.Effect, error: SwitchError) -> None:
        """ENOENT: the group went meanwhile. A lease that ran out shows as a start refused or as a lost seat. The rest is our fault."""
        if error.errno in (errno.ENOENT,) or not daemon._attached() or "lease" in error.message:
            return
        if isinstance(effect, co.StopGroup | co.StartGroup | co.FinishGroup | co.InstallView):
            self.fail("order", f"node {daemon.machine.nodeid}: {effect}: {error.message}")

    # --- after every input -------------------------------------------------------------------------------------------------
    def handled(self, daemon: Daemon, effects: list[co.Effect]) -> None:
        c = daemon.coordinator
        decided = co.StartGroup | co.FinishGroup | co.LaunchFence | co.RenewLease
        orders = [e for e in effects if isinstance(e, decided)]
        if orders and daemon.transitional:
            self.fail("decided_in_transition", f"node {daemon.machine.nodeid}: {orders[0]}")
        if not c.deciding:
            return
        for other in self.cluster.machines.values():
            if other.daemon is None or other.daemon is daemon or not self._decides(other.daemon):
                continue
            theirs = other.daemon.coordinator
            if other.paused or theirs.ring == c.ring:
                continue
            if self.exclusive and {m.nodeid for m in theirs.members}.isdisjoint(m.nodeid for m in c.members):
                self.fail("two_quorate_sides", f"{c.ring} {c.state.ring_members} and {theirs.ring} {theirs.state.ring_members}")
        self._same(daemon)

    def _same(self, daemon: Daemon) -> None:
        """Members of one configuration that have applied as much hold the same state."""
        c = daemon.coordinator
        key = (c.ring, c.state.version)
        if daemon.compared == key:
            return
        daemon.compared = key
        held = self.digests.get(key)
        digest = c.state.digest()
        if held is None:
            self.digests[key] = (digest, daemon.machine.nodeid)
        elif held[0] != digest:
            self.fail("diverged", f"{c.ring} version {c.state.version}: nodes {held[1]} and {daemon.machine.nodeid}")

    # --- the switches -----------------------------------------------------------------------------------------------------
    def observed(self, machine: Machine, what: str, group: str, number: int) -> None:
        if what == "group_ack":
            held = machine.switch.group("c", group)
            self.acked.setdefault((group, number, held.acked_phase.name), set()).add(machine.incarnation)

    # --- locks and the disk -----------------------------------------------------------------------------------------------
    def recovered(self, machine: Machine, group: str, event: int, members: frozenset[Incarnation]) -> None:
        exposed = self.exposed.setdefault(group, {})
        if group in self.fenced_groups:
            for who, since in sorted(exposed.items()):
                other = self.cluster.machines[who[0]]
                if who in members or who == machine.incarnation or not other.on or other.boot != who[1] or other.doomed:
                    continue
                born = machine.daemon_born if machine.daemon_born > machine.booted_ns else machine.booted_ns
                name = "obligation_lost" if born > since else "start_before_fence"
                self.fail(name, f"node {machine.nodeid} recovers {group} {event_text(event)} for {sorted(members)}; {who} is alive")
        exposed[machine.incarnation] = self.cluster.now
        newest, theirs = self.newest.get(group, (0, frozenset()))
        # An event that runs nowhere any more does not bind the next: a node whose newer peer an administrator declared off numbers on
        # from what it knows itself.
        if event > newest or exposed.keys().isdisjoint(theirs):
            self.newest[group] = (event, members)
        counter = event & ((1 << EVENT_COUNTER_BITS) - 1)
        if LOCAL_COUNTER <= counter < LATE_COUNTER:
            self.fail("start_before_stop", f"{group} {event_text(event)}: a local stop was started")

    def left(self, machine: Machine, group: str) -> None:
        self.exposed.get(group, {}).pop(machine.incarnation, None)

    def reset(self, machine: Machine) -> None:
        self.seen.add("reset")
        held = machine.switch.groups("c")
        if not any(g.event and g.name in self.fenced_groups for g in held):
            self.fail("needless_reset", f"node {machine.nodeid} has {[(g.name, g.event) for g in held]}")

    def machine_off(self, machine: Machine) -> None:
        for table in self.exposed.values():
            table.pop(machine.incarnation, None)

    def wrote(self, machine: Machine, group: str, lock: int) -> None:
        if group not in self.fenced_groups:
            return
        event, members = self.newest.get(group, (0, frozenset()))
        if event and machine.incarnation not in members:
            self.fail("dead_writer", f"node {machine.nodeid} writes under lock {lock} of {group}; {event_text(event)} runs without it")

    def locked(self, machine: Machine, group: str, lock: int) -> None:
        machines = self.cluster.machines
        holders = {who for who in self.cluster.disk.believed.get((group, lock), set()) if not machines[who[0]].doomed}
        if group in self.fenced_groups and len(holders) > 1:
            self.fail("double_lock", f"lock {lock} of {group} is held by {sorted(holders)}")
