# SPDX-License-Identifier: GPL-2.0-only
"""What one ordered message does to the replicated state of a primary component, and what is decided after it.

``apply`` records facts and runs in every configuration; ``decide`` runs only in a regular, merged, quorate one (SAFETY S5). Both work
on a copy that the core throws away when they raise, so one poisonous message cannot half-change anything (SAFETY S19).
"""

from __future__ import annotations

from bridge.coordinator import ballot, detached, fencing, groups, orders
from bridge.coordinator.api import Notice
from bridge.coordinator.messages import (
    AbsenceOver,
    Ack,
    Body,
    Expect,
    FenceNode,
    FenceResult,
    FenceRetry,
    Forgiven,
    Join,
    Leave,
    MaintenanceOff,
    MaintenanceOn,
    NodeLeave,
    NodeOff,
    Orphaned,
    Overdue,
    Restarting,
    ShutDown,
    Thawed,
    VoteAgree,
    VoteDrop,
)
from bridge.coordinator.state import LEAVING, MEMBER, GroupRec, State
from membership.api import Processor
from vcs.model import Phase


def apply(state: State, sender: Processor, body: Body, regular: bool, notes: list[Notice]) -> bool:
    """Record ``body``. Returns False when it was stale, repeated or not its sender's to say: nothing has changed then."""
    node = state.nodes.get(sender.nodeid)
    if node is None or (node.boot, node.engine) != (sender.boot, sender.engine):
        return False
    if isinstance(body, FenceResult):
        return fencing.result(state, sender.nodeid, body, notes)
    if isinstance(body, FenceRetry):
        return fencing.retry(state, sender.nodeid, (body.nodeid, body.boot), body.attempt, notes)
    if isinstance(body, NodeOff):
        return fencing.off(state, body.nodeid, notes)
    if isinstance(body, VoteAgree):
        return ballot.agree(state, sender.nodeid, body.serial)
    if isinstance(body, Thawed):
        return orders.thawed(state, sender.nodeid, body.serial)
    if node.status != MEMBER:
        return False
    return _of_member(state, sender, body, regular, notes)


def _of_member(state: State, sender: Processor, body: Body, regular: bool, notes: list[Notice]) -> bool:
    """What only a sound member may say."""
    if isinstance(body, Join):
        return _join(state, sender, body, notes)
    if isinstance(body, Leave):
        return groups.leave(state, sender.nodeid, sender.boot, body.name, body.gone)
    if isinstance(body, Ack):
        return groups.acknowledge(state, sender.nodeid, sender.boot, body.name, body.event, body.phase)
    if isinstance(body, NodeLeave):
        return _node_leave(state, sender, regular, notes)
    if isinstance(body, Overdue):
        return _overdue(state, body, notes)
    if isinstance(body, Orphaned):
        return _orphaned(state, sender, body, notes)
    if isinstance(body, Restarting):
        return detached.announce(state, sender.nodeid, body.planned_ms)
    if isinstance(body, AbsenceOver):
        return detached.over(state, body, notes)
    if isinstance(body, Forgiven):
        return detached.forgive(state, body)
    return _ordered(state, sender, body, notes)


def _ordered(state: State, sender: Processor, body: Body, notes: list[Notice]) -> bool:
    """What an administrator wants, and what follows from it."""
    if isinstance(body, FenceNode):
        return fencing.order(state, sender.nodeid, body.nodeid, body.action, notes)
    if isinstance(body, VoteDrop):
        return ballot.withdraw(state, body.nodeid, body.boot, notes)
    if isinstance(body, Expect):
        return ballot.expect(state, body.votes, notes)
    if isinstance(body, MaintenanceOn):
        return orders.maintenance_on(state, sender.nodeid, body, notes)
    if isinstance(body, MaintenanceOff):
        return orders.maintenance_off(state, sender.nodeid, body.serial, notes)
    if isinstance(body, ShutDown):
        return orders.shut_down(state, sender.nodeid, notes)
    return False


def _join(state: State, sender: Processor, body: Join, notes: list[Notice]) -> bool:
    if state.shutdown:
        return False
    refusal = groups.refusal(state, body.name, body.config)
    if refusal is not None:
        code, why = refusal
        notes.append(Notice("join_refused", {"group": body.name, "nodeid": sender.nodeid, "error": code, "why": why}))
        return False
    return groups.join(state, sender.nodeid, sender.boot, body.name, body.level, body.flags, body.config)


def _node_leave(state: State, sender: Processor, regular: bool, notes: list[Notice]) -> bool:
    """Refused while the node is in a group. In a transitional configuration the leave is not yet everybody's knowledge."""
    if any(g.has(sender.nodeid) for g in state.groups.values()):
        return False
    if not regular:
        state.nodes[sender.nodeid].status = LEAVING
    else:
        ballot.leave(state, sender.nodeid)
        notes.append(Notice("node_left", {"nodeid": sender.nodeid, "incarnation": sender.boot}))
    return True


def _overdue(state: State, body: Overdue, notes: list[Notice]) -> bool:
    """SAFETY S22: a consumer that never answers does not hold the cluster. Only if the order agrees that it still owes the answer."""
    group = state.groups.get(body.name)
    node = state.nodes.get(body.nodeid)
    if group is None or node is None or body.event != group.event or body.phase != group.phase or not group.has(body.nodeid):
        return False
    owed = set(group.stoppers) - group.stop_acks if group.phase == Phase.STOP else set(group.members) - group.start_acks
    if body.nodeid not in owed or node.status != MEMBER:
        return False
    _expel(state, group, body.nodeid, f"did not answer {Phase(group.phase).name.lower()} of group {group.name} in time", notes)
    return True


def _orphaned(state: State, sender: Processor, body: Orphaned, notes: list[Notice]) -> bool:
    """SAFETY S22: nobody took the group over, so nobody will answer for it."""
    group = state.groups.get(body.name)
    if group is None or not group.has(sender.nodeid):
        return False
    _expel(state, group, sender.nodeid, f"nobody has acted for group {group.name} there for too long", notes)
    return True


def _expel(state: State, group: GroupRec, nodeid: int, why: str, notes: list[Notice]) -> None:
    if group.needs_fence:
        fencing.fail_node(state, nodeid, notes, why, {group.name: 0})
    else:
        groups.drop(group, nodeid)
        notes.append(Notice("group_expelled", {"group": group.name, "nodeid": nodeid, "why": why}))


def decide(state: State, notes: list[Notice]) -> None:
    """All decisions that the facts allow now."""
    ballot.decide(state, notes)
    fencing.decide(state, notes)
    groups.decide(state, notes)
