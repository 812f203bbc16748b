# SPDX-License-Identifier: GPL-2.0-only
"""The values that every part speaks in (the words of docs/architecture.md). No I/O, no import of ours.

Identities (SAFETY S1, S2): the *boot incarnation* belongs to the kernel and decides membership and fencing; the *engine
incarnation* belongs to a process and decides message identity only; a *join id* tells two memberships of one boot in one group
apart. All are u64 > 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag

NODEID_MAX = 0xFFFFFFFF
NAME_MAX = 64
"Longest name of a cluster or a group in bytes, the terminating NUL of the kernel not counted (DLM_LOCKSPACE_LEN)."
MEMBERS_MAX = 1024
"Views above this size are refused by version 1 of the netlink interface."


@dataclass(frozen=True, slots=True, order=True)
class RingId:
    """Names one configuration of the engine across nodes: ``seq`` rises strictly per node, ``rep`` is the lowest nodeid."""

    seq: int
    rep: int

    def __str__(self) -> str:
        return f"{self.seq}.{self.rep}"


@dataclass(frozen=True, slots=True, order=True)
class Member:
    """A node in a view, or in a group's event (then with the join id)."""

    nodeid: int
    incarnation: int
    "Boot incarnation (u64)."
    votes: int = 1
    join_id: int = 0
    "Of a group's member: the event id by which this incarnation joined the group; 0 in a view."


@dataclass(frozen=True, slots=True)
class View:
    """An immutable membership. ``generation`` is given by the switch (0: not installed yet)."""

    generation: int
    ring: RingId
    quorate: bool
    members: tuple[Member, ...]

    def incarnation_of(self, nodeid: int) -> int | None:
        """Boot incarnation of ``nodeid`` in this view, or None if it is no member."""
        return next((m.incarnation for m in self.members if m.nodeid == nodeid), None)


class Phase(IntEnum):
    """The phases of a group's event, in order. The values are the ones of the netlink interface."""

    NONE = 0
    STOP = 1
    START = 2
    FINISH = 3


class Level(IntEnum):
    """Recovery order of groups: lower levels finish before higher ones start. Decided by the bridge, stored by the kernel."""

    FENCING = 1
    LOCK_MANAGER = 2
    FILE_SYSTEM = 3
    USER = 4


class GroupFlags(IntFlag):
    NONE = 0
    PERSISTENT = 1
    "The group outlives its consumer's socket (KERNEL-API rule 7)."
    NEEDS_FENCE = 2
    "A member that fails must be fenced before the group starts again."


class GroupState(IntEnum):
    """What a local group is to the switch."""

    JOINING = 1
    "Asked for; no event has finished here yet."
    MEMBER = 2
    LEAVING = 3
    LOST = 4
    "The provider is lost: the group is stopped until this machine is fenced or the group is left (SAFETY S15)."


class ProviderState(IntEnum):
    NONE = 0
    ATTACHED = 1
    ORPHAN = 2
    LOST = 3


@dataclass(frozen=True, slots=True)
class Group:
    """One local group as the switch holds it: state, not history. Read again after every hint."""

    name: str
    level: Level
    flags: GroupFlags
    state: GroupState
    event: int
    "Id of the current event, 0 if there was none."
    phase: Phase
    "Phase that the provider has ordered for ``event``."
    acked_event: int
    acked_phase: Phase
    "Newest phase that the consumer has acknowledged, of ``acked_event``."
    members: tuple[Member, ...]
    "Of the current event; empty while it is in STOP."
    finished_event: int
    finished_members: tuple[Member, ...]
    "The last event that finished here, and whom it named: what the consumer runs on."
    view_generation: int
    owner: str
    owner_epoch: int
    orphan_since_ms: int
    "0 while a consumer holds it."
    started_event: int = 0
    "The last event whose START was ordered here: its members may hold what the group guards, also while a later one stops it."
    started_members: tuple[Member, ...] = ()

    @property
    def stopped(self) -> bool:
        """The consumer has acknowledged the stop of the current event and nothing later."""
        return self.acked_event == self.event and self.acked_phase == Phase.STOP


EVENT_COUNTER_BITS = 20


def event_id(ring_seq: int, counter: int) -> int:
    """A group event's id (SAFETY S3): (persisted ring sequence, counter), never reused, also when all daemons die at once."""
    if not 0 < counter < 1 << EVENT_COUNTER_BITS:
        raise ValueError(f"event counter {counter} out of range")
    if not 0 < ring_seq < 1 << (63 - EVENT_COUNTER_BITS):
        raise ValueError(f"ring sequence {ring_seq} out of range")
    return ring_seq << EVENT_COUNTER_BITS | counter


def event_text(event: int) -> str:
    """``ring.counter``: how people read an event id."""
    return f"{event >> EVENT_COUNTER_BITS}.{event & ((1 << EVENT_COUNTER_BITS) - 1)}"
