# SPDX-License-Identifier: GPL-2.0-only
"""Groups and their events, as pure functions on the replicated state.

Facts (joins, leaves, acknowledgements, failures) may arrive at any time and only mark the group as changed. Decisions are made by
:func:`decide` alone, which the core calls in regular, merged, quorate configurations (SAFETY S5): it makes one new event for all
changes since the last, and moves events through their barriers::

    changed --> STOP --(everybody alive stopped, failed members fenced, lower levels finished)--> START --(all recovered)--> FINISH

A consumer may hold locks from the moment that a start naming it *could* have been ordered at some node, so ``exposed`` grows when the
last stop acknowledgement is known, not when this node orders the start.
"""

from __future__ import annotations

from bridge.coordinator.api import Notice
from bridge.coordinator.state import DETACHED, GroupRec, Obligation, State
from vcs.model import Phase, event_text

EINVAL, ENOSPC, ENAMETOOLONG = 22, 28, 36
GROUPS_MAX = 4096
NAME_BYTES_MAX = 64


def refusal(state: State, name: str, config: str) -> tuple[int, str] | None:
    """Why nobody can join group ``name`` with ``config``: (errno, words)."""
    group = state.groups.get(name)
    if group is None:
        if not 0 < len(name.encode()) <= NAME_BYTES_MAX:
            return ENAMETOOLONG, f"a group's name has 1 to {NAME_BYTES_MAX} bytes"
        return (ENOSPC, f"there are {GROUPS_MAX} groups already") if len(state.groups) >= GROUPS_MAX else None
    if config and group.config and config != group.config:
        return EINVAL, f"its node has {config!r} configured, the members have {group.config!r}: make cluster.toml alike on all nodes"
    return None


def join(state: State, nodeid: int, boot: int, name: str, level: int, flags: int, config: str = "") -> bool:
    """A node asks to join. Idempotent; a leaver's new wish waits until it has left. Returns whether anything changed."""
    if refusal(state, name, config) is not None:
        return False
    group = state.groups.get(name)
    if group is None:
        group = state.groups[name] = GroupRec(name, level, flags)
    if group.has(nodeid):
        return False
    group.config = group.config or config
    group.joins[nodeid] = boot
    group.flags |= flags
    group.changed = True
    return True


def leave(state: State, nodeid: int, boot: int, name: str, gone: bool) -> bool:
    """A node asks to leave; with ``gone`` its kernel no longer holds the group and there is nothing to stop."""
    group = state.groups.get(name)
    if group is None or not group.has(nodeid):
        return False
    if gone:
        drop(group, nodeid)
        return True
    if nodeid in group.leavers:
        return False
    if nodeid in group.joins:
        del group.joins[nodeid]
    else:
        del group.members[nodeid]
        group.leavers[nodeid] = boot
    group.changed = True
    return True


def drop(group: GroupRec, nodeid: int) -> None:
    """The node is no longer in the group and holds nothing of it."""
    if group.has(nodeid) or nodeid in group.exposed:
        group.changed = True
    for table in (group.members, group.leavers, group.joins, group.exposed):
        table.pop(nodeid, None)


def fail(state: State, nodeid: int, boot: int, obligation: Obligation) -> None:
    """Take a failed incarnation out of every group; what it may still hold goes into ``obligation`` (SAFETY S8)."""
    for group in state.groups.values():
        if group.exposed.get(nodeid) == boot and group.needs_fence:
            join_id = group.members.get(nodeid) or group.finished_members.get(nodeid) or (boot, 0)
            obligation.groups[group.name] = join_id[1]
        drop(group, nodeid)


def acknowledge(state: State, nodeid: int, boot: int, name: str, event: int, phase: int) -> bool:
    """Record an acknowledgement. A stale one (another event, phase or incarnation) changes nothing and returns False."""
    group = state.groups.get(name)
    if group is None or event != group.event or phase != group.phase or group.stoppers.get(nodeid) != boot:
        return False
    if phase == Phase.STOP:
        if not group.has(nodeid) or nodeid in group.stop_acks:
            return False
        group.stop_acks.add(nodeid)
        if group.leavers.pop(nodeid, None) is not None:
            group.exposed.pop(nodeid, None)
        if stopped(group):
            group.exposed.update({n: b for n, (b, _) in group.members.items()})
        return True
    if phase == Phase.START and nodeid in group.members and nodeid not in group.start_acks:
        group.start_acks.add(nodeid)
        return True
    return False


def stopped(group: GroupRec) -> bool:
    """Barrier one: everybody alive has acknowledged the stop of the current event."""
    return set(group.stoppers) <= group.stop_acks


def recovered(group: GroupRec) -> bool:
    """Barrier two: every member has acknowledged the start."""
    return set(group.members) <= group.start_acks


def lower_unfinished(state: State, group: GroupRec) -> list[GroupRec]:
    """Groups of a lower level that concern a node of ``group`` and are not finished (SAFETY S23)."""
    return [
        other for other in state.groups.values()
        if other.level < group.level and (other.changed or other.phase != Phase.FINISH)
        and not other.empty and not set(other.members).isdisjoint(group.members)
    ]


def decide(state: State, notes: list[Notice]) -> None:
    """Everything that can be decided now. Lower levels first, so that one pass settles what one message made possible."""
    for name in [g.name for g in sorted(state.groups.values(), key=lambda g: (g.level, g.name))]:
        group = state.groups[name]
        if group.changed:
            if group.empty:
                del state.groups[name]
                continue
            _new_event(state, group)
        if group.phase == Phase.STOP and stopped(group):
            if not group.members:
                del state.groups[name]
                continue
            if may_start(state, group):
                _start(group)
        if group.phase == Phase.START and recovered(group):
            group.phase = Phase.FINISH
            group.finished = group.event
            group.finished_members = dict(group.members)


def may_start(state: State, group: GroupRec) -> bool:
    """The gate of a start beside its own barrier: fences owed for it (SAFETY S8), members in the view, lower levels."""
    return (
        not state.blocking(group.name)
        and not (state.by_witness and any(node.status == DETACHED for node in state.nodes.values()))
        and not unknown_elsewhere(state, group)
        and all(state.admitted(n) for n in group.members)
        and not lower_unfinished(state, group)
    )


def unknown_elsewhere(state: State, group: GroupRec) -> bool:
    """May a kernel whose daemon is away hold this group, though nobody here knows of it? After all daemons died, the others' kernels tell
    of the groups that they are in; one that it held alone at the end is known to it only (SAFETY S19). Where it is known to be a member,
    the barrier waits for it; otherwise the gate does, until it is back or has been fenced."""
    return group.needs_fence and any(
        absence.everything and state.nodes[nodeid].status == DETACHED and not group.has(nodeid)
        for nodeid, absence in state.absences.items())


def _start(group: GroupRec) -> None:
    group.phase = Phase.START
    group.start_acks.clear()
    group.exposed = {n: b for n, (b, _) in group.members.items()}


def _new_event(state: State, group: GroupRec) -> None:
    group.event = state.next_event()
    group.phase = Phase.STOP
    for nodeid, boot in group.joins.items():
        group.members[nodeid] = (boot, group.event)
    group.joins.clear()
    group.stoppers = {n: b for n, (b, _) in group.members.items()} | group.leavers
    group.stop_acks.clear()
    group.start_acks.clear()
    group.changed = False


def describe(group: GroupRec) -> dict[str, object]:
    """For `vcs groups`: JSON-able."""
    return {
        "name": group.name, "level": int(group.level), "flags": int(group.flags), "event": group.event,
        "event_text": event_text(group.event), "phase": Phase(group.phase).name.lower(), "changing": group.changed,
        "members": [{"nodeid": n, "incarnation": b, "join_id": j} for n, (b, j) in sorted(group.members.items())],
        "joining": sorted(group.joins), "leaving": sorted(group.leavers),
        "stopped": sorted(group.stop_acks), "started": sorted(group.start_acks), "finished_event": group.finished,
    }
