# SPDX-License-Identifier: GPL-2.0-only
"""What goes into the coordinator and what comes out: the whole contract between the pure part and the driver.

The driver calls ``Coordinator.handle(input, now_ns)`` and carries out the effects *in the order given, each completely before the
next*: a Persist is on disk (fsync) before the effects behind it run. Feeding is level-triggered on both sides: LocalGroups is the
switch's whole state, not a change, and the coordinator orders again whatever the switch does not yet show.
"""

from __future__ import annotations

from dataclasses import dataclass

from bridge.coordinator.messages import Body
from membership.api import Configuration, Health, Message, Order, Rotation
from vcs.model import Group, Member, RingId


@dataclass(frozen=True, slots=True)
class LocalGroups:
    """Every group that the local switch holds, read after a hint or after a refused call."""

    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True)
class FenceDone:
    """The local fence executor finished a LaunchFence."""

    nodeid: int
    incarnation: int
    ok: bool
    detail: str
    method: str = ""
    cut: bool = False
    "The device says that it has cut the node off, and also that it has power: it may be booting."


@dataclass(frozen=True, slots=True)
class Tick:
    """The time asked for by WakeAt has come (may be early or repeated: harmless)."""


@dataclass(frozen=True, slots=True)
class LeaveCluster:
    """An administrator wants this node to leave cleanly. Refused (Notice leave_refused) while it is in groups."""


@dataclass(frozen=True, slots=True)
class FenceAck:
    """An administrator states that the node is off (`vcs fence ack`)."""

    nodeid: int


@dataclass(frozen=True, slots=True)
class Command:
    """A person's wish that goes to everybody by an ordered message. Exactly one Notice ``command_done`` with the ticket answers: ``ok``,
    and ``why`` if not."""

    ticket: int
    body: Body


@dataclass(frozen=True, slots=True)
class PlannedRestart:
    """This daemon is about to be stopped, and one will be here again within ``planned_ms``, over the same groups. Answered by
    RestartReady, or by the Notice restart_refused."""

    planned_ms: int


@dataclass(frozen=True, slots=True)
class WitnessAnswer:
    """The witness has answered an AskWitness, late or twice as it may be."""

    number: int
    "Of the question."
    verdict: str
    "granted, held, wait, starting, noted, or why it will not talk to us."
    term: int = 0
    "Of the grant."
    holder: str = ""
    "The ring that holds the grant; empty: none."
    left_ms: int = 0
    "held, wait, starting: for how long."


Input = (
    Configuration | Message | Rotation | Health | LocalGroups | FenceDone | Tick | LeaveCluster | FenceAck | Command | PlannedRestart
    | WitnessAnswer
)


@dataclass(frozen=True, slots=True)
class Submit:
    payload: bytes
    order: Order


@dataclass(frozen=True, slots=True)
class InstallView:
    ring: RingId
    quorate: bool
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class StopGroup:
    name: str
    event: int


@dataclass(frozen=True, slots=True)
class StartGroup:
    name: str
    event: int
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class FinishGroup:
    name: str
    event: int


@dataclass(frozen=True, slots=True)
class LeftGroup:
    name: str
    error: int = 0


@dataclass(frozen=True, slots=True)
class LaunchFence:
    """Fence (nodeid, boot incarnation) now, by that one of its configured methods. Exactly one FenceDone answers."""

    nodeid: int
    incarnation: int
    method: int = 0
    "Index into the methods of the node."
    action: str = ""
    "off or reboot; empty: what is configured."


@dataclass(frozen=True, slots=True)
class CancelFence:
    """Nobody owes that incarnation a fence any more: a call that runs is called off (SAFETY S1)."""

    nodeid: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class Fenced:
    """The ordered result of a fence: goes to the switch (its fencing marks)."""

    nodeid: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class RenewLease:
    valid_from_ns: int


@dataclass(frozen=True, slots=True)
class Freeze:
    """Maintenance (SAFETY S24): until this time (CLOCK_BOOTTIME) the end of the lease resets nothing here. 0: it is over."""

    until_ns: int


@dataclass(frozen=True, slots=True)
class Persist:
    """Write the record durably before going on (SAFETY S6). JSON-able bytes, opaque to the driver."""

    record: bytes


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Deliver a Tick at this time (the same clock as ``now_ns``). The newest one counts."""

    at_ns: int


@dataclass(frozen=True, slots=True)
class AskWitness:
    """Ask the witness; nobody waits for the answer."""

    number: int
    wanted: bool
    "False: its grant is not needed here. Whatever an earlier configuration of these very members still holds may go."
    ring: RingId
    members: tuple[int, ...]
    others: tuple[int, ...]
    "Configured nodes that are not here."
    term: int
    "The newest that the members know of."


@dataclass(frozen=True, slots=True)
class LeaveDone:
    """The node's clean leave is ordered and persisted: the driver leaves the engine and detaches."""


@dataclass(frozen=True, slots=True)
class RestartReady:
    """The restart is announced in the order: the process may end. Nothing is done here any more."""


@dataclass(frozen=True, slots=True)
class Notice:
    """For the event log, the timeline and `vcs why`: a name and JSON-able fields."""

    event: str
    fields: dict[str, object]


Effect = (
    Submit | InstallView | StopGroup | StartGroup | FinishGroup | LeftGroup | LaunchFence
    | CancelFence | Fenced | RenewLease | Freeze | Persist | AskWitness
    | WakeAt | LeaveDone | RestartReady | Notice
)
