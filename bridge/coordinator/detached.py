# SPDX-License-Identifier: GPL-2.0-only
"""Nodes whose daemon is away while their host and its groups live on (SAFETY S15, S16, S19). Pure.

*Detached* is a verdict of the merge: a member is missing, and somebody has heard, under its key, that the process of that very
incarnation ended (the last gasp), or it had announced its restart in the order. Everything else is a failure. A detached node stays a
member of its groups and has no vote; no group that it is in can start, because it is not in the view. Its way back is a daemon on the
same boot that brings the groups in its kernel; its way out is the limit (an ordered message of the lowest member), or a new boot. Then
it has failed like any other and is fenced, so a wrong verdict costs time and never data. With two_node nobody is detached: both of two may
go on alone, and each must know the other dead before anything starts.

When all daemons died nobody has the state, and the kernels have the groups: ``rebuild`` makes the one from the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from bridge.coordinator import groups, quorum
from bridge.coordinator.api import Notice
from bridge.coordinator.fencing import fail_node
from bridge.coordinator.messages import AbsenceOver, Body, Exchange, Forgiven, GroupReport
from bridge.coordinator.state import DETACHED, MEMBER, Absence, GroupRec, Node, State
from vcs.config.model import ClusterConfig
from vcs.model import Group, GroupFlags, GroupState, Phase

if TYPE_CHECKING:
    from bridge.coordinator.merge import Present

LIMIT_MS: Final = 5000
"How long a daemon that died may be away where there is no lease."
PLANNED_MAX_MS: Final = 600_000
Presents = Mapping[int, "Present"]


def limit_ms(config: ClusterConfig) -> int:
    """After a crash: no longer than the lease, which nobody renews meanwhile."""
    return config.lease.lease_ms or LIMIT_MS


# --- going away ---------------------------------------------------------------------------------------------------------------


def announce(state: State, nodeid: int, planned_ms: int) -> bool:
    """A member says, in the order, that its daemon is about to be restarted."""
    absence = state.absences.setdefault(nodeid, Absence())
    absence.planned_ms = min(planned_ms, PLANNED_MAX_MS)
    absence.engine = state.nodes[nodeid].engine
    return True


def witnessed(state: State, nodeid: int, present: Presents) -> bool:
    """Is it known that the daemon of this member ended, and the host did not? Any doubt means no."""
    engine = state.nodes[nodeid].engine
    absence = state.absences.get(nodeid)
    if absence is not None and absence.planned_ms and absence.engine == engine:
        return True
    return any((nodeid, engine) in zip(p.said.gasps[::2], p.said.gasps[1::2], strict=False) for p in present.values())


def leave_out(state: State, nodeid: int, present: Presents, config: ClusterConfig, notes: list[Notice]) -> None:
    """A member is not in the new configuration: detached, or failed."""
    if not quorum.exclusive(config) or not witnessed(state, nodeid, present):
        fail_node(state, nodeid, notes, "not in the configuration")
    elif not _count(state, nodeid, config):
        fail_node(state, nodeid, notes, f"its daemon died {config.restart.crashes} times and more in a short time")
    else:
        detach(state, nodeid, notes)


def _count(state: State, nodeid: int, config: ClusterConfig) -> bool:
    """Note that the daemon went. False: too often by crashes (SAFETY S16)."""
    absence = state.absences.setdefault(nodeid, Absence())
    absence.times += 1
    if absence.planned_ms and absence.engine == state.nodes[nodeid].engine:
        return True
    absence.planned_ms = 0
    absence.crashes += 1
    return absence.crashes < config.restart.crashes


def detach(state: State, nodeid: int, notes: list[Notice], everything: bool = False) -> None:
    absence = state.absences.setdefault(nodeid, Absence())
    absence.everything = everything
    node = state.nodes[nodeid]
    node.status = DETACHED
    notes.append(Notice("node_detached", {
        "nodeid": nodeid, "incarnation": node.boot, "planned_ms": absence.planned_ms, "crashes": absence.crashes,
    }))


def over(state: State, body: AbsenceOver, notes: list[Notice]) -> bool:
    """The limit has passed: failed like any other, and fenced."""
    node, absence = state.nodes.get(body.nodeid), state.absences.get(body.nodeid)
    if node is None or absence is None or node.status != DETACHED or (node.boot, absence.times) != (body.boot, body.times):
        return False
    fail(state, body.nodeid, notes, "its daemon did not come back in time")
    return True


def fail(state: State, nodeid: int, notes: list[Notice], why: str) -> None:
    """A detached node has failed. Where nobody knows all its groups, all groups wait for its fence (SAFETY S6)."""
    absence = state.absences.pop(nodeid, Absence())
    fail_node(state, nodeid, notes, why, everything=absence.everything)


def forgive(state: State, body: Forgiven) -> bool:
    node, absence = state.nodes.get(body.nodeid), state.absences.get(body.nodeid)
    if node is None or absence is None or node.status != MEMBER or (node.boot, absence.crashes) != (body.boot, body.crashes):
        return False
    del state.absences[body.nodeid]
    return True


# --- coming back --------------------------------------------------------------------------------------------------------------


def unexplained(state: State, nodeid: int, said: Exchange) -> dict[str, int]:
    """Groups of which its kernel may hold locks, and of which the state does not know that the node is in them."""
    return {
        g.name: 0 for g in said.groups
        if g.flags & GroupFlags.NEEDS_FENCE and g.started and g.state != GroupState.LEAVING
        and not ((found := state.groups.get(g.name)) is not None and found.has(nodeid))
    }


def back(state: State, nodeid: int, said: Exchange, config: ClusterConfig, notes: list[Notice]) -> bool:
    """A new daemon on the boot of a member, with the groups in its kernel. Returns False when it must be failed instead.

    A group that went through all this at rest goes on, and nobody is stopped: its programs' channels ended with the former daemon, and
    who opens a new one asks for what it has missed. Any other group gets a new event; nobody else's directories change by it, because
    incarnation and join id stay.
    """
    node = state.nodes[nodeid]
    if unexplained(state, nodeid, said) or (node.status == MEMBER and not _count(state, nodeid, config)):
        return False
    reported = {g.name: g for g in said.groups}
    for group in state.groups.values():
        if not group.has(nodeid):
            continue
        if group.name not in reported:
            groups.drop(group, nodeid)  # left while there was no daemon: its kernel holds nothing of it
        elif nodeid not in group.joins and not at_rest(group, nodeid, reported[group.name]):
            group.changed = True
    node.status = MEMBER
    absence = state.absences.setdefault(nodeid, Absence())
    absence.planned_ms, absence.everything = 0, False
    notes.append(Notice("node_joined", {"nodeid": nodeid, "incarnation": node.boot, "how": "returned", "crashes": absence.crashes}))
    return True


def at_rest(group: GroupRec, nodeid: int, found: GroupReport) -> bool:
    """Is the group finished, for all and in this kernel, by one and the same event?

    What its kernel has not been told yet (the finish) is said as to anybody. A kernel with another event, be it a stop that its own
    former daemon made when it was alone, has to go through one with the others.
    """
    return (
        group.phase == Phase.FINISH and not group.changed and nodeid in group.members
        and found.state == GroupState.MEMBER and found.event == group.event and found.phase >= Phase.START
    )


def report(held: Group) -> GroupReport:
    """A group as this node's switch holds it, for the others."""
    members = tuple(v for m in held.started_members for v in (m.nodeid, m.incarnation, m.join_id))
    kind = (int(held.level), int(held.flags), int(held.state))
    return GroupReport(held.name, *kind, held.event, int(held.phase), held.started_event, members)


# --- when all daemons died ------------------------------------------------------------------------------------------------------


def continuing(nodes: Mapping[int, Node], present: Presents) -> list[int]:
    """Members of the last primary view by its record, on the same boot, whose groups were not lost."""
    found = []
    for nodeid, member in present.items():
        node = nodes.get(nodeid)
        lost = any(g.state == GroupState.LOST and g.event for g in member.said.groups)
        if node is not None and node.status in (MEMBER, DETACHED) and node.boot == member.who.boot and not lost:
            found.append(nodeid)
    return sorted(found)


def survives(config: ClusterConfig, state: State, present: Presents, absent: bool) -> quorum.Votes | None:
    """All daemons died over kernels that live on (SAFETY S19). Those that were a quorum of the last primary view, or everybody there is, go
    on from what their kernels hold: ``state``, which came from the newest record, gets their groups. None: a cold start like any other."""
    here = continuing(state.nodes, present)
    if not any(g.started for n in here for g in present[n].said.groups):
        return None
    votes = quorum.count(config, state.nodes, here, state.ballot)
    if absent and not (votes.quorate and quorum.exclusive(config)):
        return None
    rebuild(state, present)
    return votes


def rebuild(state: State, present: Presents) -> None:
    """Put the groups that the kernels of the continuing members hold into ``state``, which came from the newest record.

    Only what was *started* counts: a consumer holds nothing of an event that only stopped it, and will ask again. The last start that
    any kernel saw names the members with their join ids; a newer one, of an absent node alone, would have needed the stop of these.
    """
    here = continuing(state.nodes, present)
    reports: dict[str, dict[int, GroupReport]] = {}
    for nodeid in here:
        for report in present[nodeid].said.groups:
            if report.event:
                reports.setdefault(report.name, {})[nodeid] = report
    for name, by_node in sorted(reports.items()):
        joined = _join_ids(by_node)
        first = next(iter(by_node.values()))
        group = GroupRec(name, first.level, first.flags, max(r.event for r in by_node.values()), Phase.STOP, changed=True)
        for (nodeid, boot), join_id in sorted(joined.items()):
            report_here = by_node.get(nodeid)
            node = state.nodes.get(nodeid)
            if node is None or node.boot != boot or node.status not in (MEMBER, DETACHED):
                continue
            if nodeid in here and report_here is None:
                continue  # its kernel does not hold it (any more)
            if nodeid not in present and not _in_newest(by_node, nodeid, boot):
                continue
            group.members[nodeid] = (boot, join_id)
            group.exposed[nodeid] = boot
        if not group.empty:
            state.groups[name] = group


def _join_ids(by_node: Mapping[int, GroupReport]) -> dict[tuple[int, int], int]:
    """(nodeid, boot) -> join id, as the newest start told it that names the incarnation."""
    found: dict[tuple[int, int], tuple[int, int]] = {}
    for report in by_node.values():
        for nodeid, boot, join_id in zip(report.members[::3], report.members[1::3], report.members[2::3], strict=True):
            found[nodeid, boot] = max(found.get((nodeid, boot), (0, 0)), (report.started, join_id))
    return {who: join_id for who, (_event, join_id) in found.items()}


def _in_newest(by_node: Mapping[int, GroupReport], nodeid: int, boot: int) -> bool:
    newest = max(by_node.values(), key=lambda r: r.started)
    return (nodeid, boot) in zip(newest.members[::3], newest.members[1::3], strict=False)


# --- time: one node's clock, told in the order ------------------------------------------------------------------------------------


@dataclass(slots=True)
class AbsenceClock:
    """Since when this process has known what; the lowest member speaks for all. Not replicated."""

    config: ClusterConfig
    gone: dict[tuple[int, int, int], int] = field(default_factory=dict)
    quiet: dict[tuple[int, int, int], int] = field(default_factory=dict)
    times: list[int] = field(default_factory=list)
    "When ``due`` has something new."

    def due(self, state: State, now_ns: int) -> list[Body]:
        """What is to be said now."""
        gone: dict[tuple[int, int, int], int] = {}
        quiet: dict[tuple[int, int, int], int] = {}
        for nodeid, absence in state.absences.items():
            node = state.nodes[nodeid]
            if node.status == DETACHED:
                key = (nodeid, node.boot, absence.times)
                gone[key] = self.gone.get(key, now_ns)
            elif absence.crashes:
                key = (nodeid, node.boot, absence.crashes)
                quiet[key] = self.quiet.get(key, now_ns)
        self.gone, self.quiet = gone, quiet
        window_ns = self.config.restart.window_s * 1_000_000_000
        ends: list[tuple[int, Body]] = [(since + self._limit_ns(state, k[0]), AbsenceOver(*k)) for k, since in gone.items()]
        later: list[tuple[int, Body]] = [(since + window_ns, Forgiven(*k)) for k, since in quiet.items()]
        self.times = [at for at, _ in ends] + [at for at, _ in later]
        return [body for at, body in ends if now_ns >= at] + [body for at, body in later if now_ns >= at]

    def _limit_ns(self, state: State, nodeid: int) -> int:
        absence = state.absences.get(nodeid)
        planned = absence.planned_ms if absence is not None else 0
        return (planned or limit_ms(self.config)) * 1_000_000
