# SPDX-License-Identifier: GPL-2.0-only
"""The replicated state: what every member of a primary component knows alike.

It changes by two things only: ordered messages, and the merge at the beginning of a quorate configuration. Everything in it is a
fact (who asked, who acknowledged, who is owed a fence) or a decision that was taken on such facts in a regular quorate
configuration (an event, its phase, who fences). Its canonical JSON is its digest, its snapshot and, in part, its record on disk.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import astuple, dataclass, field, replace
from typing import Any, Final

from bridge.coordinator.lease import UNARMED, SelfFence, announced
from vcs.errors import RemoteError
from vcs.model import GroupFlags, Phase, RingId, event_id

NO_RING: Final = RingId(0, 0)
DISCHARGED_MAX: Final = 64
"How many ended obligations are remembered, so that a node which missed the result still marks it in its switch."
LATE_COUNTER: Final = 1 << 19
"First event counter of a ring that becomes primary only after it was installed without quorum (local stops used lower ids)."

MEMBER: Final = "member"
FAILED: Final = "failed"
LEAVING: Final = "leaving"
"Its leave was delivered in a transitional configuration: it no longer votes, and is still expected."
LEFT: Final = "left"
DETACHED: Final = "detached"
"Its daemon is away, its host and groups live on (SAFETY S16, detached.py): member of its groups, without a vote, not in the view."
UNSEEN: Final = "unseen"


@dataclass(slots=True)
class Node:
    """What is known of one configured node."""

    status: str = UNSEEN
    boot: int = 0
    engine: int = 0
    can_fence: bool = False
    votes: int = 1
    "What the configuration gives it."
    voter: bool = True
    "Counts among the expected votes. Withdrawn by a clean leave or by the ballot (ballot.py), given back by the ballot alone."
    dead: bool = False
    "This boot incarnation is known to be dead: fenced, declared off, or replaced by a new one."
    frozen: int = 0
    "Serial of the maintenance under which its lease may still reset nothing; 0: it resets."
    frozen_ms: int = 0
    self_fence: SelfFence = UNARMED
    "What this boot announced of its lease."
    fences: tuple[int, ...] = ()
    "Whom it has a device for, as it said itself."

    def copy(self) -> Node:
        return replace(self)


@dataclass(frozen=True, slots=True)
class Maintenance:
    """Fencing and resets are frozen (SAFETY S24). It ends by everybody's own clock, whichever is first."""

    serial: int
    for_ms: int
    reason: str
    by: int
    "Nodeid of who was asked for it."


@dataclass(slots=True)
class Ballot:
    """Who is going to have a vote, and what else the count of expected votes knows (ballot.py)."""

    extra: int = -1
    "Expected votes that no node holds, as ordered at run time; -1: what the configuration says."
    serial: int = 0
    "Number of the newest proposal."
    add: tuple[int, ...] = ()
    drop: tuple[int, ...] = ()
    agreed: set[int] = field(default_factory=set)
    "Members whose disk holds the configuration in which this was proposed."

    def copy(self) -> Ballot:
        return Ballot(self.extra, self.serial, self.add, self.drop, set(self.agreed))


@dataclass(slots=True)
class Absence:
    """What is remembered of a node whose daemon is away, or was."""

    engine: int = 0
    "The daemon that announced its restart."
    planned_ms: int = 0
    "How long it said that it would be away; 0: nothing was announced."
    crashes: int = 0
    "Deaths that were not announced, since the last quiet time."
    times: int = 0
    "How often it went: tells one absence from the next."
    everything: bool = False
    "Nobody knows all its groups."

    def copy(self) -> Absence:
        return Absence(self.engine, self.planned_ms, self.crashes, self.times, self.everything)


PENDING: Final = "pending"
LAUNCHED: Final = "launched"
RETRY: Final = "retry"
"A call failed; ``fencer`` waits out the back-off and then says so in an ordered message."


@dataclass(slots=True)
class Obligation:
    """(nodeid, boot) must be fenced before the groups concerned may start (SAFETY S6, S8)."""

    nodeid: int
    boot: int
    "0: unknown, any incarnation of the node."
    groups: dict[str, int] = field(default_factory=dict)
    "Name -> join id that the failed member had."
    everything: bool = False
    "Nobody remembers which groups the node was in: all groups wait."
    phase: str = PENDING
    attempt: int = 0
    "Calls that have failed so far."
    fencer: int = 0
    fencer_engine: int = 0
    launched: bool = False
    "A call was launched at least once: the node can no longer be readmitted (SAFETY S7)."
    detail: str = ""
    "What the last failed call said."
    frozen: int = 0
    "The node failed under this maintenance, so for ``frozen_ms`` from then on its lease proves nothing."
    frozen_ms: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    "Method -> how often it has failed."
    method: str = ""
    "The one that ``detail`` is about."
    action: str = ""
    "off or reboot, when an administrator has ordered this fence; empty: what is configured."
    by: int = 0
    "Nodeid of where it was ordered."
    cut: bool = False
    "By its device's word the last failed call has cut the node off, yet it has power: it may be booting."
    patient: bool = False
    "It was missed when a quorum came back: it may be on its way, too, and the first call waits for that (SAFETY S7)."

    @property
    def key(self) -> tuple[int, int]:
        return (self.nodeid, self.boot)

    def concerns(self, group: str) -> bool:
        return self.everything or group in self.groups

    def copy(self) -> Obligation:
        return Obligation(self.nodeid, self.boot, dict(self.groups), self.everything, self.phase, self.attempt, self.fencer,
                          self.fencer_engine, self.launched, self.detail, self.frozen, self.frozen_ms,
                          dict(self.failed), self.method, self.action, self.by, self.cut,
                          self.patient)


@dataclass(slots=True)
class GroupRec:
    """One group. ``members`` is what the current event leads to; leavers are no longer in it, joiners already are."""

    name: str
    level: int
    flags: int
    event: int = 0
    phase: int = Phase.NONE
    members: dict[int, tuple[int, int]] = field(default_factory=dict)
    "nodeid -> (boot, join id)"
    stoppers: dict[int, int] = field(default_factory=dict)
    "nodeid -> boot of everybody alive who must acknowledge the stop of ``event``: members, joiners and leavers."
    leavers: dict[int, int] = field(default_factory=dict)
    joins: dict[int, int] = field(default_factory=dict)
    "Asked for, not in an event yet."
    stop_acks: set[int] = field(default_factory=set)
    start_acks: set[int] = field(default_factory=set)
    exposed: dict[int, int] = field(default_factory=dict)
    "nodeid -> boot of everybody who may hold the group's locks: a start that named it may have been ordered somewhere."
    changed: bool = False
    "Membership changed since ``event`` was made: the next decision makes a new event, which covers all changes."
    finished: int = 0
    finished_members: dict[int, tuple[int, int]] = field(default_factory=dict)
    config: str = ""
    "What the first member had in its configuration about the group: others must have it alike. Empty: unknown."

    @property
    def needs_fence(self) -> bool:
        return bool(self.flags & GroupFlags.NEEDS_FENCE)

    @property
    def empty(self) -> bool:
        return not (self.members or self.leavers or self.joins)

    def has(self, nodeid: int) -> bool:
        return nodeid in self.members or nodeid in self.leavers or nodeid in self.joins

    def copy(self) -> GroupRec:
        return GroupRec(self.name, self.level, self.flags, self.event, self.phase, dict(self.members), dict(self.stoppers),
                        dict(self.leavers), dict(self.joins), set(self.stop_acks), set(self.start_acks), dict(self.exposed),
                        self.changed, self.finished, dict(self.finished_members), self.config)


@dataclass(slots=True)
class State:
    """The whole picture. ``primary`` names the last quorate configuration it belongs to; with ``version`` it orders histories."""

    primary: RingId = NO_RING
    version: int = 0
    counter: int = 0
    "Event counter within the ring ``primary``."
    feature: int = 1
    "Feature level in force: the lowest of the members at the last merge (SAFETY S3)."
    ring_members: tuple[int, ...] = ()
    nodes: dict[int, Node] = field(default_factory=dict)
    groups: dict[str, GroupRec] = field(default_factory=dict)
    obligations: dict[tuple[int, int], Obligation] = field(default_factory=dict)
    discharged: list[tuple[int, int, str]] = field(default_factory=list)
    rejected: int = 0
    ballot: Ballot = field(default_factory=Ballot)
    slow_fencer: int = 0
    "With two nodes: who waits before it fences, so that the two do not kill each other (SAFETY S12); 0: nobody."
    maintenance: Maintenance | None = None
    serial: int = 0
    "Of the newest maintenance."
    shutdown: int = 0
    "Nodeid of who asked for an ordered shutdown of the cluster; 0: nobody."
    absences: dict[int, Absence] = field(default_factory=dict)
    term: int = 0
    "Of the newest grant of a witness: it orders histories before ``primary`` does (witness.py)."
    by_witness: bool = False
    "``primary`` has half of the votes, and the witness's word."

    def copy(self) -> State:
        return State(self.primary, self.version, self.counter, self.feature, self.ring_members,
                     {n: r.copy() for n, r in self.nodes.items()}, {k: g.copy() for k, g in self.groups.items()},
                     {k: o.copy() for k, o in self.obligations.items()}, list(self.discharged), self.rejected,
                     self.ballot.copy(), self.slow_fencer, self.maintenance, self.serial, self.shutdown,
                     {n: a.copy() for n, a in self.absences.items()}, self.term, self.by_witness)

    def next_event(self) -> int:
        """A fresh event id. Only a decision in the regular configuration ``primary`` may ask for one."""
        self.counter += 1
        return event_id(self.primary.seq, self.counter)

    def admitted(self, nodeid: int) -> bool:
        node = self.nodes.get(nodeid)
        return node is not None and node.status == MEMBER and nodeid in self.ring_members

    def blocking(self, group: str) -> list[Obligation]:
        """The obligations that ``group`` waits for."""
        return [o for o in self.obligations.values() if o.concerns(group)]

    def digest(self) -> str:
        return hashlib.sha256(canonical(to_json(self))).hexdigest()[:32]


def canonical(value: object) -> bytes:
    """One value, one text: what is hashed, sent and written."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def _pairs(table: dict[int, Any]) -> list[list[Any]]:
    return [[n, *(v if isinstance(v, tuple) else (v,))] for n, v in sorted(table.items())]


def _members(rows: list[list[int]]) -> dict[int, tuple[int, int]]:
    return {int(n): (int(b), int(j)) for n, b, j in rows}


def _boots(rows: list[list[int]]) -> dict[int, int]:
    return {int(n): int(b) for n, b in rows}


def node_to_json(node: Node) -> list[Any]:
    return [node.status, node.boot, node.engine, node.can_fence, node.votes, node.voter, node.dead,
            node.frozen, node.frozen_ms, list(node.self_fence.row), list(node.fences)]


def node_from_json(row: list[Any]) -> Node:
    """Of this version, or of one that knew less: it wrote a shorter row."""
    votes, voter, dead, frozen, frozen_ms = row[4:9] if len(row) > 8 else (1, row[0] != LEFT, False, 0, 0)
    self_fence = announced(row[9]) if len(row) > 9 else UNARMED
    return Node(str(row[0]), int(row[1]), int(row[2]), bool(row[3]), int(votes), bool(voter), bool(dead), int(frozen), int(frozen_ms),
                self_fence, tuple(int(n) for n in row[10]) if len(row) > 10 else ())


def ballot_to_json(ballot: Ballot) -> list[Any]:
    return [ballot.extra, ballot.serial, list(ballot.add), list(ballot.drop), sorted(ballot.agreed)]


def ballot_from_json(row: Any) -> Ballot:
    return Ballot(int(row[0]), int(row[1]), tuple(map(int, row[2])), tuple(map(int, row[3])), set(map(int, row[4])))


def obligation_to_json(o: Obligation) -> list[Any]:
    return [o.nodeid, o.boot, dict(sorted(o.groups.items())), o.everything, o.phase, o.attempt, o.fencer, o.fencer_engine,
            o.launched, o.detail, o.frozen, o.frozen_ms, dict(sorted(o.failed.items())), o.method, o.action, o.by,
            o.cut, o.patient]


def obligation_from_json(row: list[Any]) -> Obligation:
    failed, method, action, by = row[12:16] if len(row) > 15 else ({}, "", "", 0)
    return Obligation(int(row[0]), int(row[1]), {str(k): int(v) for k, v in row[2].items()}, bool(row[3]), str(row[4]), int(row[5]),
                      int(row[6]), int(row[7]), bool(row[8]), str(row[9]),
                      int(row[10]) if len(row) > 11 else 0, int(row[11]) if len(row) > 11 else 0,
                      {str(k): int(v) for k, v in failed.items()}, str(method), str(action), int(by),
                      bool(row[16]) if len(row) > 16 else False, bool(row[17]) if len(row) > 17 else False)


def _group_to_json(g: GroupRec) -> dict[str, Any]:
    return {
        "name": g.name, "level": int(g.level), "flags": int(g.flags), "event": g.event, "phase": int(g.phase),
        "members": _pairs(g.members), "stoppers": _pairs(g.stoppers), "leavers": _pairs(g.leavers), "joins": _pairs(g.joins),
        "stop_acks": sorted(g.stop_acks), "start_acks": sorted(g.start_acks), "exposed": _pairs(g.exposed), "changed": g.changed,
        "finished": g.finished, "finished_members": _pairs(g.finished_members), "config": g.config,
    }


def _group_from_json(v: dict[str, Any]) -> GroupRec:
    return GroupRec(
        str(v["name"]), int(v["level"]), int(v["flags"]), int(v["event"]), int(v["phase"]), _members(v["members"]),
        _boots(v["stoppers"]), _boots(v["leavers"]), _boots(v["joins"]), set(map(int, v["stop_acks"])),
        set(map(int, v["start_acks"])), _boots(v["exposed"]), bool(v["changed"]), int(v["finished"]),
        _members(v["finished_members"]), str(v.get("config", "")),
    )


def _maintenance(row: Any) -> Maintenance | None:
    return Maintenance(int(row[0]), int(row[1]), str(row[2]), int(row[3])) if row else None


def to_json(state: State) -> dict[str, Any]:
    """The state as JSON-able values; :func:`from_json` is its inverse."""
    return {
        "primary": [state.primary.seq, state.primary.rep], "version": state.version, "counter": state.counter,
        "feature": state.feature, "ring_members": list(state.ring_members),
        "nodes": [[n, *node_to_json(r)] for n, r in sorted(state.nodes.items())],
        "groups": [_group_to_json(g) for _, g in sorted(state.groups.items())],
        "obligations": [obligation_to_json(o) for _, o in sorted(state.obligations.items())],
        "discharged": [list(d) for d in state.discharged], "rejected": state.rejected,
        "ballot": ballot_to_json(state.ballot), "slow_fencer": state.slow_fencer,
        "maintenance": astuple(state.maintenance) if state.maintenance else None, "serial": state.serial, "shutdown": state.shutdown,
        "absences": [[n, a.engine, a.planned_ms, a.crashes, a.times, a.everything] for n, a in sorted(state.absences.items())],
        **({"term": state.term, "by_witness": state.by_witness} if state.term else {}),
    }


def from_json(value: Any) -> State:
    """Raises RemoteError when ``value`` is no state of ours."""
    try:
        return State(
            RingId(int(value["primary"][0]), int(value["primary"][1])), int(value["version"]), int(value["counter"]),
            int(value["feature"]), tuple(int(n) for n in value["ring_members"]),
            {int(r[0]): node_from_json(r[1:]) for r in value["nodes"]},
            {str(g["name"]): _group_from_json(g) for g in value["groups"]},
            {o.key: o for o in map(obligation_from_json, value["obligations"])},
            [(int(n), int(b), str(h)) for n, b, h in value["discharged"]], int(value["rejected"]),
            ballot_from_json(value["ballot"]) if "ballot" in value else Ballot(), int(value.get("slow_fencer", 0)),
            _maintenance(value.get("maintenance")), int(value.get("serial", 0)), int(value.get("shutdown", 0)),
            {int(n): Absence(int(e), int(p), int(c), int(t), bool(v)) for n, e, p, c, t, v in value.get("absences", [])},
            int(value.get("term", 0)), bool(value.get("by_witness", False)),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise RemoteError(f"not a state: {error!r}") from error
