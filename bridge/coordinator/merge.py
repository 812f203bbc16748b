# SPDX-License-Identifier: GPL-2.0-only
"""Merging histories at the beginning of a regular configuration. Pure, and the same at every member: its input is the set of Exchanges
that all of them delivered.

The carrier of the authoritative state is the member with the highest (term of the last witness's grant, last primary ring, version).
A *record* on some member's disk with a later term and ring than any living state means that the living states are stale: that, and no
living state at all, is a cold start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridge.coordinator import ballot, detached, groups, persist, quorum
from bridge.coordinator.api import Notice
from bridge.coordinator.fencing import discharge, fail_node, owe
from bridge.coordinator.lease import announced
from bridge.coordinator.messages import Exchange
from bridge.coordinator.persist import Record
from bridge.coordinator.state import (
    DETACHED,
    FAILED,
    LATE_COUNTER,
    LEAVING,
    LEFT,
    MEMBER,
    NO_RING,
    UNSEEN,
    Node,
    Obligation,
    State,
)
from membership.api import Processor
from vcs.config.model import ClusterConfig
from vcs.errors import RemoteError
from vcs.model import GroupFlags, GroupState, RingId

if TYPE_CHECKING:
    from bridge.coordinator.core import Coordinator


@dataclass(frozen=True, slots=True)
class Present:
    """One member of the configuration and what it brought."""

    who: Processor
    said: Exchange


Presents = Mapping[int, Present]


def exchange(c: Coordinator, record: bytes | None) -> Exchange:
    """What this node brings."""
    has_state = c.state.primary != NO_RING
    reports = tuple(map(detached.report, sorted((c.feed.switch or {}).values(), key=lambda g: g.name)))
    return Exchange(
        ring=c.ring, has_state=has_state, primary=c.state.primary, version=c.state.version, digest=c.state.digest() if has_state else "",
        leaving=c.feed.leave_wanted, groups=reports, can_fence=c.config.fences,
        fences=tuple(n.id for n in c.config.nodes if c.config.fence_methods(n.id)),
        record=None if has_state or record is None else persist.value(record), acked=tuple(sorted(c.acked)),
        self_fence=c.self_fence.row, gasps=tuple(v for pair in sorted(c.gasps.items()) for v in pair), term=c.state.term,
        inquorate=c.inquorate,
    )


def records(present: Presents) -> list[Record]:
    """The readable records. An unreadable one counts as none: its owner is then a node without memory."""
    found = []
    for member in present.values():
        if member.said.record is not None:
            try:
                found.append(persist.parse(member.said.record))
            except RemoteError:
                continue
    return found


def carrier(present: Presents) -> int | None:
    """Nodeid of the carrier of the authoritative living state, or None at a cold start."""
    living = [((p.said.term, p.said.primary), p.said.version, -n) for n, p in present.items() if p.said.has_state]
    if not living:
        return None
    best = max(living)
    newest = max(((r.term, r.primary) for r in records(present)), default=(0, NO_RING))
    return -best[2] if best[0] >= newest else None


def differing(present: Presents) -> bool:
    """Does anybody have to adopt the carrier's state?"""
    return len({(p.said.has_state, p.said.digest) for p in present.values()}) > 1


def cold_state(config: ClusterConfig, present: Presents) -> State:
    """What a cold start knows: the newest record, or nothing but the configuration."""
    newest = max(records(present), key=lambda r: r.age, default=None)
    state = State()
    if newest is not None:
        state.primary, state.version, state.term = newest.primary, newest.version, newest.term
        state.nodes = {n: r.copy() for n, r in newest.nodes.items()}
        state.obligations = {o.key: o.copy() for o in newest.obligations}
        state.ballot.extra = newest.extra
    for node in config.nodes:
        state.nodes.setdefault(node.id, Node())
    return state


def declared_off(present: Presents) -> frozenset[int]:
    """Nodes that an administrator declared off to any member while it waited."""
    return frozenset(n for p in present.values() for n in p.said.acked)


def missing(config: ClusterConfig, present: Presents, acked: frozenset[int]) -> list[int]:
    """Configured nodes that a cold start still waits for."""
    return sorted(n.id for n in config.nodes if n.id not in present and n.id not in acked)


def cold_votes(config: ClusterConfig, state: State, present: Presents) -> quorum.Votes:
    """Votes at a cold start without wait-for-all: by the newest record, in which who left has none, but for the very last."""
    return quorum.count(config, state.nodes, present, state.ballot)


def dangerous(said: Exchange) -> dict[str, int]:
    """Groups of the reporting kernel that ask for fencing and were started there: somebody may hold their locks."""
    return {g.name: 0 for g in said.groups if g.flags & GroupFlags.NEEDS_FENCE and g.started}


def lost(said: Exchange) -> bool:
    """Did the reporting kernel lose its provider while groups were live?"""
    return any(g.state == GroupState.LOST and g.event for g in said.groups)


@dataclass(frozen=True, slots=True)
class Circumstances:
    cold: bool
    late: bool
    "The ring was installed without quorum before."
    acked: frozenset[int]
    "Nodes that an administrator declared off."
    rebuilt: bool = False
    "Cold, and the groups were read from the kernels that go on (SAFETY S19)."
    term: int = 0
    "Of the witness's grant that half of the votes go on by; 0: there is a majority."


def transition(
    state: State, ring: RingId, present: Presents, config: ClusterConfig, how: Circumstances, notes: list[Notice]
) -> None:
    """Carry ``state`` into the primary configuration ``ring``."""
    forgotten = state.primary == NO_RING
    # Who was quorate all the time knows whom it misses. Where a quorum is only just back, others may be on their way, too (SAFETY S7).
    carriers = [p.said.inquorate for p in present.values() if p.said.has_state and p.said.primary == state.primary]
    owed = set(state.obligations)
    for nodeid in sorted(state.nodes.keys() | present.keys() | {n.id for n in config.nodes}):
        node = state.nodes.setdefault(nodeid, Node())
        member = present.get(nodeid)
        if member is not None:
            _meet(state, nodeid, node, member, config, how, notes)
        elif how.rebuilt and node.status in (MEMBER, DETACHED) and nodeid not in how.acked:
            detached.detach(state, nodeid, notes, everything=True)  # its daemon may have died with all others'
        elif how.cold:
            _miss_cold(state, nodeid, node, forgotten, nodeid in how.acked, notes)
        elif node.status == MEMBER:
            detached.leave_out(state, nodeid, present, config, notes)
        elif node.status == LEAVING:
            _left(state, nodeid, node, notes)
    for key in state.obligations.keys() - owed:
        state.obligations[key].patient = key[0] not in present and bool(carriers) and all(carriers) and not how.cold
    state.primary = ring
    state.counter = LATE_COUNTER if how.late else 0
    state.feature = min(p.said.feature for p in present.values())
    state.ring_members = tuple(sorted(present))
    state.version += 1
    state.by_witness = how.term > 0
    state.term = max(how.term, state.term + 1) if how.term else state.term
    _count(state, config, notes)


def _count(state: State, config: ClusterConfig, notes: list[Notice]) -> None:
    """What follows from the rules of quorum in a new primary configuration."""
    for node in config.nodes:
        state.nodes[node.id].votes = node.votes
    ballot.open_ring(state)
    state.slow_fencer = 0
    if not quorum.exclusive(config):
        # Both of two may be quorate: they do not fence each other at once.
        state.slow_fencer = config.quorum.fence_delay_node or max(n.id for n in config.nodes)
    elif not state.by_witness:
        return
    # The others may be quorate too, or have been: a witness's two halves share no node that could tell. So nothing starts before they are
    # known to be dead.
    for nodeid, record in sorted(state.nodes.items()):
        if record.status == DETACHED:
            state.absences[nodeid].everything = True  # its daemon may live, and be what the other half goes on with (groups.may_start)
        if record.status == FAILED and not record.dead and nodeid not in state.ring_members:
            held = state.obligations.get((nodeid, record.boot))
            if held is None or not held.everything:
                doubt = Obligation(nodeid, record.boot, everything=True, frozen=record.frozen, frozen_ms=record.frozen_ms)
                why = "of two halves only one may go on (witness)" if state.by_witness else "of two nodes only one may go on (two_node)"
                owe(state, doubt, notes, why)


def _left(state: State, nodeid: int, node: Node, notes: list[Notice]) -> None:
    for group in state.groups.values():
        groups.drop(group, nodeid)
    ballot.leave(state, nodeid)
    notes.append(Notice("node_left", {"nodeid": nodeid, "incarnation": node.boot}))


def _miss_cold(state: State, nodeid: int, node: Node, forgotten: bool, acked: bool, notes: list[Notice]) -> None:
    """A cold start without ``nodeid``: whatever it may be doing must be ended first (SAFETY S6)."""
    if acked:
        for key in [k for k in state.obligations if k[0] == nodeid]:
            discharge(state, key, "acknowledged by an administrator", notes)
        if node.status != LEFT:
            node.status, node.dead = FAILED, True
        return
    if node.status == LEAVING:
        ballot.leave(state, nodeid)
    if node.status in (MEMBER, DETACHED) or (forgotten and node.status == UNSEEN):
        was = "was a member of the last primary view" if node.status != UNSEEN else "has not been seen since the cold start"
        node.status = FAILED
        notes.append(Notice("node_failed", {"nodeid": nodeid, "incarnation": node.boot, "why": was}))
        owe(state, Obligation(nodeid, node.boot, everything=True), notes, was)


def _meet(
    state: State, nodeid: int, node: Node, member: Present, config: ClusterConfig, how: Circumstances, notes: list[Notice]
) -> None:
    """``nodeid`` is here: continuing, back, new, or a survivor of itself."""
    who, said = member.who, member.said
    _settle_old(state, nodeid, node, member, notes)
    same = node.boot == who.boot
    same_process = same and node.engine == who.engine and said.has_state and not lost(said) and not how.cold
    obligation = state.obligations.get((nodeid, who.boot))
    threat = dangerous(said)
    if same_process and node.status == LEAVING:
        _left(state, nodeid, node, notes)
    elif same_process and node.status == LEFT and said.leaving:
        pass
    elif same_process and node.status == MEMBER:
        _reconcile(state, nodeid, said)
    elif same and node.status in (MEMBER, DETACHED) and not lost(said) and (how.rebuilt or not how.cold):
        if not detached.back(state, nodeid, said, config, notes):
            _refuse(state, nodeid, node, who, threat, notes)
    elif same_process and node.status == FAILED and obligation is not None and not obligation.launched:
        _readmit(state, nodeid, who, said, obligation, notes)
    elif threat or (obligation is not None and obligation.launched):
        _refuse(state, nodeid, node, who, threat, notes)
    else:
        _admit(state, nodeid, node, who, obligation, notes)
    node.boot, node.engine, node.can_fence, node.dead = who.boot, who.engine, said.can_fence, False
    node.self_fence = announced(said.self_fence)
    node.fences = said.fences


def _settle_old(state: State, nodeid: int, node: Node, member: Present, notes: list[Notice]) -> None:
    """A new, authenticated boot incarnation proves the old one dead (SAFETY S1)."""
    boot = member.who.boot
    if node.boot and node.boot != boot:
        if node.status in (MEMBER, LEAVING, DETACHED):
            detached.fail(state, nodeid, notes, "is back with a new boot incarnation")
        state.absences.pop(nodeid, None)
        node.status = UNSEEN
        node.frozen = node.frozen_ms = 0
    for key in [k for k in state.obligations if k[0] == nodeid and k[1] != boot]:
        if key[1] == 0 and dangerous(member.said):
            held = state.obligations.pop(key)
            held.boot = boot
            state.obligations[held.key] = held
        else:
            discharge(state, key, "back with a new boot incarnation", notes)


def _reconcile(state: State, nodeid: int, said: Exchange) -> None:
    """A continuing member: the kernel's word on what it is still in, and whether its events went their own way meanwhile."""
    reported = {g.name: g for g in said.groups}
    for group in state.groups.values():
        if not group.has(nodeid):
            continue
        report = reported.get(group.name)
        if report is None or (report.event < group.event and nodeid in group.stop_acks):
            groups.drop(group, nodeid)  # left while nobody could be told; what is reported is a new wish to join
        elif group.event and nodeid not in group.joins:
            ahead = report.event > group.event or (report.event == group.event and report.phase > group.phase)
            group.changed = group.changed or ahead


def _readmit(
    state: State, nodeid: int, who: Processor, said: Exchange, obligation: Obligation, notes: list[Notice]
) -> None:
    """SAFETY S7: nothing was started without it and no fence was launched. Stop, then start with all."""
    reported = {g.name: g for g in said.groups}
    for name, join_id in obligation.groups.items():
        group = state.groups.get(name)
        report = reported.get(name)
        if report is None:
            continue
        if group is None:
            groups.join(state, nodeid, who.boot, name, report.level, report.flags)
            group = state.groups[name]
            group.joins.pop(nodeid)
        group.members[nodeid] = (who.boot, join_id)
        group.exposed[nodeid] = who.boot
        group.changed = True
    del state.obligations[obligation.key]
    state.nodes[nodeid].status = MEMBER
    notes.append(Notice("node_joined", {"nodeid": nodeid, "incarnation": who.boot, "how": "readmitted"}))


def _refuse(
    state: State, nodeid: int, node: Node, who: Processor, threat: dict[str, int], notes: list[Notice]
) -> None:
    """SAFETY S1, S15: its kernel still runs what a failed membership left behind. No newcomer: its fence goes on."""
    why = "its groups outlived its membership"
    if node.status in (MEMBER, DETACHED) and node.boot == who.boot:
        fail_node(state, nodeid, notes, why, threat)
    node.boot, node.status = who.boot, FAILED
    if (nodeid, who.boot) not in state.obligations:
        owe(state, Obligation(nodeid, who.boot, dict(threat), frozen=node.frozen, frozen_ms=node.frozen_ms), notes, why)
    else:
        state.obligations[nodeid, who.boot].groups.update(
            {n: j for n, j in threat.items() if n not in state.obligations[nodeid, who.boot].groups})


def _admit(
    state: State, nodeid: int, node: Node, who: Processor, obligation: Obligation | None, notes: list[Notice]
) -> None:
    """A newcomer, or a restarted daemon on a host that holds nothing."""
    if obligation is not None:
        # Same boot, no fence launched, and its kernel holds no group that has seen an event: nothing is left to fence.
        discharge(state, obligation.key, "holds no group any more", notes, mark=False)
    for group in state.groups.values():
        groups.drop(group, nodeid)
    state.absences.pop(nodeid, None)
    known = node.status == MEMBER and node.boot == who.boot
    node.status = MEMBER
    if not known or node.engine != who.engine:
        notes.append(Notice("node_joined", {"nodeid": nodeid, "incarnation": who.boot, "how": "new"}))
