# SPDX-License-Identifier: GPL-2.0-only
"""What `vcs` shows, as JSON-able values: the shapes of the control socket and of ``--json``, whose version is in
vcs/cli/render.py.

vcsd fills them from what it knows, vcs/sysfs.py from the kernel alone; both come out of the same functions here, so a reader cannot tell
the difference but for ``source`` and for what is absent. Shapes grow by keys; a key is never given another meaning. Incarnations are hex
strings, since many JSON readers cannot hold a u64.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NotRequired, TypedDict

from vcs.model import Group, GroupFlags, Member, Phase, View, event_text


class ProviderReport(TypedDict):
    type: str
    state: str
    "none, attached, orphan or lost."


class ViewReport(TypedDict):
    generation: int
    ring: str
    quorate: bool
    members: list[int]


class WitnessReport(TypedDict):
    address: str
    port: int
    timeout_ms: int
    answers: bool
    "Something was heard of it lately."
    verdict: str
    "Of its last answer: granted, held, wait, starting, noted, or what is wrong."
    refuses: bool
    "It answers, and will not talk to us."
    needed: bool
    "Exactly half of the votes are here."
    granted: bool
    left_ms: int
    "So long this node believes in the grant without another."
    holder: str
    "The ring that holds the grant, by its last answer; empty: none."


class QuorumReport(TypedDict):
    votes: int
    expected: int
    needed: int
    quorate: bool
    flags: list[str]
    "Of two_node, wait_for_all, last_man_standing, auto_tie_breaker: what is set."
    exclusive: bool
    "At most one side of a split can be quorate: false with two_node alone."
    voters: list[int]
    "Nodes whose votes are expected."
    missing: list[int]
    "Those of them that are not here."
    tie_breaker: int
    "Nodeid; 0: none."
    witness: NotRequired[WitnessReport]
    "Only where one is configured."


class MaintenanceReport(TypedDict):
    reason: str
    by: int
    "Nodeid of who was asked for it."
    for_ms: int
    left_ms: int
    "By this node's clock."


class LeaseReport(TypedDict):
    lease_ms: int
    remaining_ms: int


class FencingReport(TypedDict):
    """One obligation: a failed node that nobody has made sure of yet."""

    nodeid: int
    name: str
    incarnation: str
    state: str
    "waiting (for quorum or another fencer), running, failed (will be tried again) or manual (needs `vcs fence ack`)."
    detail: str
    groups: list[str]
    "Groups that wait for it."


class FenceAttempt(TypedDict):
    """One method, tried once."""

    by: int
    "Nodeid of who tried."
    began_ns: int
    "CLOCK_REALTIME of the node that is asked, as all times of these reports."
    ms: float | None
    "None: it runs."
    ok: bool
    method: str
    detail: str
    steps: list[dict[str, object]]
    "What each device did; known to the node that tried."


class FenceReport(TypedDict):
    """One fence, from the moment that it was owed: `vcs fence history`."""

    nodeid: int
    incarnation: str
    owed_ns: int
    ended_ns: int
    "0: it is still owed."
    ms: float
    why: str
    groups: list[str]
    result: str
    "owed, fenced (by a device or its own lease), or ended (it is back as another incarnation, or a person said that it is off)."
    by: int
    method: str
    how: str
    attempts: list[FenceAttempt]


class DeviceReport(TypedDict):
    """What the last check of a fence device said, at this node."""

    device: str
    agent: str
    nodeid: int
    "For which node it was asked; where devices differ by options of the nodes."
    ok: bool
    detail: str
    action: str
    checked_ns: int
    "CLOCK_BOOTTIME."
    took_ms: float
    since_ns: int
    "Since when it has answered like this (CLOCK_BOOTTIME)."


class MethodReport(TypedDict):
    """One way to fence a node: `vcs fence list`."""

    nodeid: int
    priority: int
    devices: list[str]
    parallel: bool
    actions: list[str]
    agents: list[str]


class DaemonReport(TypedDict):
    pid: int
    version: str
    uptime_ms: int


class StatusReport(TypedDict):
    source: str
    "vcsd, or kernel when vcsd was not asked."
    handle: str
    cluster: str
    nodeid: int
    node: str
    "Name of this node; empty when only the kernel was asked (it knows ids only)."
    provider: ProviderReport
    view: ViewReport
    groups: int
    daemon: NotRequired[DaemonReport]
    quorum: NotRequired[QuorumReport]
    maintenance: NotRequired[MaintenanceReport]
    "Absent when there is none."
    lease: NotRequired[LeaseReport]
    engine: NotRequired[dict[str, object]]
    "What the engine says of itself."
    fencing: NotRequired[list[FencingReport]]
    notes: NotRequired[list[str]]
    "Sentences that a person should read."


class NodeReport(TypedDict):
    nodeid: int
    name: str
    state: str
    "member, joining (here, not merged yet), down, left (cleanly), failed (to be fenced) or fenced."
    local: bool
    votes: int
    incarnation: str
    "Empty when unknown."
    addresses: list[str]


class GroupReport(TypedDict):
    name: str
    level: str
    flags: list[str]
    state: str
    "joining, member, leaving or lost."
    event: str
    "ring.counter; empty when there was none."
    phase: str
    "none, stop, start or finish: what the provider has ordered of ``event``."
    acked: bool
    "The local consumer has acknowledged that phase; finish needs none."
    members: list[int]
    "Whom the group runs on (last finished event), or will (once started)."
    nr_members: NotRequired[int]
    "Where only the number of members is known."
    owner: str
    orphan_since_ms: int
    age_ms: NotRequired[int]


class WhyReport(TypedDict):
    """One thing that waits."""

    subject: str
    "The cluster, `node NAME` or `group NAME`."
    what: str
    "What is waited for."
    on: list[str]
    "Whom it waits for: nodes, a person, a process."
    remedy: str
    "What to do, empty when waiting is all there is to do."
    condition: NotRequired[str]
    "When the remedy may be used."
    since_ms: NotRequired[int]
    "How long it has waited."
    limit_ms: NotRequired[int]
    "When it ends by itself, from now."


class LinkReport(TypedDict):
    """One peer over one link (a network that all nodes are on)."""

    link: int
    state: str
    "up, silent (asks unanswered), down here (our own end), or unused."
    rtt_us: float | None
    "Smoothed round trip; None when none was measured."
    loss_percent: float | None
    "Asks without an answer, lately; None when nothing was answered."
    asked: int
    answered: int
    unanswered: int
    "Asks since the last answer."
    heard_ms_ago: float | None
    datagram_max: int
    "Largest datagram that passes, in bytes of UDP payload."


class PeerReport(TypedDict):
    """Another configured node, as the engine of this one sees it."""

    nodeid: int
    name: str
    member: bool
    known: bool
    "Its engine process has been heard and has proved to be there."
    heard_ms_ago: float | None
    answered_ms_ago: float | None
    owes_ms: float
    "For how long it has owed an answer."
    asks: int
    "Asks that it has not answered."
    kept_outside: bool
    "This node has no steady round trip with it: they are in no ring together until they have."
    link: int
    "The one in use."
    links: list[LinkReport]


class TokenReport(TypedDict):
    resting_here: bool
    rests_at: int
    "Nodeid."
    rotation_us: float | None
    "Smoothed time of a rotation of the busy ring."
    visits: int
    "Of all members, in this ring."
    retransmits: int
    copies: int


class TrafficReport(TypedDict):
    """Frames, in this ring, unless the key says otherwise."""

    ordered: int
    received: int
    "Without a hole."
    delivered: int
    safe: int
    "Known to be everywhere."
    stored: int
    queued: int
    "Messages that wait for the token here."
    repaired: int
    "Sent again for others since the start."
    frame_copies: int
    frame_max: int
    "Largest payload of a frame in bytes, adapted to what gets through."
    window: int
    "In units of 1,400 bytes: what all members may send in one rotation."


class RingChangeReport(TypedDict):
    t: int
    "CLOCK_BOOTTIME in ns."
    time: str
    "The same as a time of day."
    age_ms: float
    ring: str
    members: list[int]
    came: list[int]
    went: list[int]
    took_ms: float
    "From the first doubt about the members to the configuration."
    why: list[str]
    "Sentences."


class RingReport(TypedDict):
    """What the engine knows of its ring: `vcs ring`. Engines other than totem fill what they know."""

    engine: str
    state: str
    local: int
    ring: str
    members: list[int]
    forming: NotRequired[str]
    peers: NotRequired[list[PeerReport]]
    claims: NotRequired[list[tuple[int, int]]]
    "(a, b): a says that it has no round trip with b; what members say of nodes outside."
    links_down: NotRequired[list[int]]
    "Links whose end at this node is down."
    link_moves: NotRequired[int]
    token: NotRequired[TokenReport]
    traffic: NotRequired[TrafficReport]
    drops: NotRequired[dict[str, int]]
    "What arrived and was not used, by reason."
    counters: NotRequired[dict[str, int]]
    configurations: NotRequired[int]
    "Regular ones, since the start."
    changes: NotRequired[list[RingChangeReport]]
    "Oldest first."
    why: NotRequired[list[str]]
    "Of the newest change."
    channels: NotRequired[dict[str, int]]
    "Counters of the batch channels."


def incarnation_text(incarnation: int) -> str:
    return f"{incarnation:016x}" if incarnation else ""


def view_report(view: View) -> ViewReport:
    return {
        "generation": view.generation,
        "ring": str(view.ring),
        "quorate": view.quorate,
        "members": [m.nodeid for m in view.members],
    }


def group_report(group: Group) -> GroupReport:
    """A group as the switch holds it (for vcsd)."""
    members: Iterable[Member] = group.members or group.finished_members
    return {
        "name": group.name,
        "level": group.level.name.lower(),
        "flags": [f.name.lower() for f in GroupFlags if f & group.flags and f.name],
        "state": group.state.name.lower(),
        "event": event_text(group.event) if group.event else "",
        "phase": group.phase.name.lower(),
        # Nobody waits for an acknowledgement of finish.
        "acked": group.acked_event == group.event and group.acked_phase >= min(group.phase, Phase.START),
        "members": [m.nodeid for m in members],
        "owner": group.owner,
        "orphan_since_ms": group.orphan_since_ms,
    }
