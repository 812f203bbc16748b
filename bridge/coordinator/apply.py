# SPDX-License-Identifier: GPL-2.0-only
"""What one ordered message does to the replicated state of a primary component, and what is decided after it.

``apply`` records facts and runs in every configuration; ``decide`` runs only in a regular, merged, quorate one (SAFETY S5). Both work
on a copy that the core throws away when they raise, so one poisonous message cannot half-change anything (SAFETY S19).
"""

from __future__ import annotations

from bridge.coordinator import fencing, groups
from bridge.coordinator.api import Notice
from bridge.coordinator.messages import (
    Ack,
    Body,
    FenceResult,
    FenceRetry,
    Join,
    Leave,
    NodeLeave,
    NodeOff,
    Overdue,
)
from bridge.coordinator.state import LEAVING, LEFT, MEMBER, State
from membership.api import Processor
from vcs.model import Phase


def apply(state: State, sender: Processor, body: Body, regular: bool, notes: list[Notice]) -> bool:
    """Record ``body``. Returns False when it was stale, repeated or not its sender's to say: nothing has changed then."""
    node = state.nodes.get(sender.nodeid)
    if node is None or (node.boot, node.engine) != (sender.boot, sender.engine):
        return False
    if isinstance(body, FenceResult):
        return fencing.result(state, sender.nodeid, (body.nodeid, body.boot), body.attempt, body.ok, body.detail, notes)
    if isinstance(body, FenceRetry):
        return fencing.retry(state, sender.nodeid, (body.nodeid, body.boot), body.attempt, notes)
    if isinstance(body, NodeOff):
        return fencing.off(state, body.nodeid, notes)
    if node.status != MEMBER:
        return False
    if isinstance(body, Join):
        return groups.join(state, sender.nodeid, sender.boot, body.name, body.level, body.flags)
    if isinstance(body, Leave):
        return groups.leave(state, sender.nodeid, sender.boot, body.name, body.gone)
    if isinstance(body, Ack):
        return groups.acknowledge(state, sender.nodeid, sender.boot, body.name, body.event, body.phase)
    if isinstance(body, NodeLeave):
        return _node_leave(state, sender, regular, notes)
    if isinstance(body, Overdue):
        return _overdue(state, body, notes)
    return False


def _node_leave(state: State, sender: Processor, regular: bool, notes: list[Notice]) -> bool:
    """Refused while the node is in a group. In a transitional configuration the leave is not yet everybody's knowledge."""
    if any(g.has(sender.nodeid) for g in state.groups.values()):
        return False
    state.nodes[sender.nodeid].status = LEFT if regular else LEAVING
    if regular:
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
    if group.needs_fence:
        why = f"did not answer {Phase(group.phase).name.lower()} of group {group.name} in time"
        fencing.fail_node(state, body.nodeid, notes, why, {group.name: 0})
    else:
        groups.drop(group, body.nodeid)
    return True


def decide(state: State, notes: list[Notice]) -> None:
    """All decisions that the facts allow now."""
    fencing.decide(state, notes)
    groups.decide(state, notes)
