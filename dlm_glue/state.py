# SPDX-License-Identifier: GPL-2.0-only
"""What dlm_glue knows, what it hears and what it does: the values of the plan. Pure: no I/O, no clock.

The state is node-wide on purpose. comms/N belongs to the node, not to a lockspace: dropping it closes the connection and throws away
what is queued on it, so it may go only when every lockspace that has N as a member is stopped (SAFETY S2).
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from vcs.model import Group, Phase, View

OWNER = "dlm_glue"
"Owner tag of our groups: only a successor with the same tag may take them over."
GROUP_PREFIX = "dlm:"
CLAIM = "dlm"
"fs/dlm exists once per kernel, so there is one claim for it."
RECORD_MAX = 4096
"Bytes that a claim holds."
RECORD_ENTRIES_MAX = 200
"Lockspaces times members that are certain to fit into the claim; a join above it is refused (ENOSPC)."

ONLINE = "online"
OFFLINE = "offline"


def group_name(lockspace: str) -> str:
    return GROUP_PREFIX + lockspace


def global_id(lockspace: str) -> int:
    """The lockspace's id on the wire: the same number as dlm_controld's, whose checksum covers the terminating NUL. Never 0."""
    return zlib.crc32(f"dlm:ls:{lockspace}\0".encode()) or 1


class Run(Enum):
    """What the kernel does with a lockspace."""

    UNKNOWN = "unknown"
    "Left over by a predecessor, or a start failed half-way: it may be running, so it counts as running."
    STOPPED = "stopped"
    RECOVERING = "recovering"
    "control=1 is written; locking starts when recovery is done."
    RUNNING = "running"


@dataclass(frozen=True, slots=True)
class Who:
    """For whom nodes/N was made: a node that died and came back, or left and came back, is somebody else (SAFETY S2)."""

    incarnation: int
    join_id: int


@dataclass(frozen=True, slots=True)
class Pending:
    """A journalled uevent whose sender still sleeps in the kernel until event_done is written, exactly once (SAFETY S17)."""

    seq: int
    action: str
    lockspace: str


@dataclass(frozen=True, slots=True)
class Space:
    """One lockspace on this node."""

    name: str
    present: bool = True
    "The kernel has it (/sys/kernel/dlm/<name>)."
    made: bool = False
    "configfs has it (spaces/<name>)."
    run: Run = Run.STOPPED
    event: int = 0
    "The event whose start was last begun; set before it is carried out."
    doubt: bool = False
    "A predecessor began the start of ``event`` and died: a recover_status or the next Tick tells whether control=1 was written."
    nodes: Mapping[int, Who] = field(default_factory=dict)
    "nodes/N as applied; a directory that is not in here must be removed before the next start."
    config: str = ""
    "nodir and weights, as all members have agreed on at the join (LockspaceConfig.text); fixed until it is left."
    joined: int = 0
    "Number of the last Seen when we joined or took over its group; 0: not yet. Absence counts only in a later Seen."
    refused: int = 0
    "errno (positive) with which the switch refused the join."
    leaving: bool = False
    acked: tuple[int, Phase] = (0, Phase.NONE)
    "What we acknowledged last, before the switch shows it."
    failed: int = 0
    "Event whose start failed here; tried again after the next Tick."
    hold: bool = False
    "A step failed: wait for the next Tick before trying again."
    lost: bool = False
    "ls_lost was noted."
    busy: bool = False
    "A step of this lockspace is being carried out."


@dataclass(frozen=True, slots=True)
class State:
    nodeid: int
    configured: frozenset[int] = frozenset()
    "Nodes whose addresses are known."
    comms: Mapping[int, int] = field(default_factory=dict)
    "comms/N -> incarnation it was made for; 0: nobody knows, so it must be made anew. Without the local node."
    comms_busy: bool = False
    comms_failed: bool = False
    "Adding or dropping failed; tried again after the next Tick."
    configs: Mapping[str, str] = field(default_factory=dict)
    "What the configuration says of lockspaces that are not run by the defaults."
    spaces: Mapping[str, Space] = field(default_factory=dict)
    pending: tuple[Pending, ...] = ()
    "Unanswered uevents, oldest first."
    groups: Mapping[str, Group] = field(default_factory=dict)
    "Our groups as the switch last showed them, by lockspace name."
    view: View | None = None
    reads: int = 0
    "How many Seen there were."
    strangers: frozenset[int] = frozenset()
    "Members of the view that the configuration does not know (noted once)."


# --- inputs ---------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """The switch's whole state. The groups must have been read before the view, so that the view is at least as new (S5)."""

    groups: tuple[Group, ...]
    view: View


@dataclass(frozen=True, slots=True)
class Uevent:
    pending: Pending


@dataclass(frozen=True, slots=True)
class Done:
    """An effect was carried out; ``error`` is a positive errno, 0 for success."""

    effect: Effect
    error: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """recover_status of a lockspace that recovers."""

    lockspace: str
    value: int


@dataclass(frozen=True, slots=True)
class Tick:
    """The slow timer: what failed may be tried again."""


# --- effects --------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Join:
    """Join the group, or take over an orphaned one."""

    lockspace: str


@dataclass(frozen=True, slots=True)
class Leave:
    lockspace: str


@dataclass(frozen=True, slots=True)
class Ack:
    lockspace: str
    event: int
    phase: Phase


@dataclass(frozen=True, slots=True)
class Stop:
    """control=0. Returns when locking has stopped, which can take as long as a thread is inside the DLM."""

    lockspace: str


@dataclass(frozen=True, slots=True)
class Clear:
    """rmdir nodes/N of those that left, failed, or came back as somebody else."""

    lockspace: str
    nodes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Start:
    """Set id, nodir, spaces/x and nodes/N for exactly ``members``, read all of it back, then control=1. ``keep`` stay untouched."""

    lockspace: str
    event: int
    members: tuple[int, ...]
    keep: tuple[int, ...]
    config: str = ""


@dataclass(frozen=True, slots=True)
class Teardown:
    """control=0, then remove nodes/* and spaces/x."""

    lockspace: str


@dataclass(frozen=True, slots=True)
class Answer:
    """event_done of one journalled uevent: 0, or a negative errno that the caller of the kernel gets."""

    lockspace: str
    pending: Pending
    result: int


@dataclass(frozen=True, slots=True)
class AskRefusal:
    """The switch has no group of a join that was asked for: find out why. Its Done carries the errno and the words."""

    lockspace: str


@dataclass(frozen=True, slots=True)
class DropComms:
    nodes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AddComms:
    nodes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Note:
    """For the event log."""

    event: str
    fields: Mapping[str, object] = field(default_factory=dict)


Input = Seen | Uevent | Done | Status | Tick
Effect = Join | Leave | Ack | Stop | Clear | Start | Teardown | Answer | AskRefusal | DropComms | AddComms | Note


# --- the record that outlives us ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Applied:
    """A lockspace in the record."""

    event: int = 0
    nodes: Mapping[int, Who] = field(default_factory=dict)
    config: str = ""


Record = tuple[dict[int, int], dict[str, Applied]]
"comms, and lockspaces by name."


def encode_record(state: State) -> bytes:
    """What was applied, for the claim. It is written *before* effects that make something and shrinks only after they removed it, so
    that a successor finds either a directory that the record explains, or a directory without a record: that one is made anew.

    A node's incarnation is left out where it is the one of its comms/N, and the text is compressed when it grows.
    """
    comms = {str(n): f"{i:x}" for n, i in sorted(state.comms.items()) if i}
    spaces = {
        space.name: [
            f"{space.event:x}",
            {
                str(n): f"{'' if state.comms.get(n) == who.incarnation else format(who.incarnation, 'x')}.{who.join_id:x}"
                for n, who in sorted(space.nodes.items())
            },
            *([space.config] if space.config else []),
        ]
        for _, space in sorted(state.spaces.items())
        if space.nodes
    }
    text = json.dumps({"v": 1, "comms": comms, "spaces": spaces}, separators=(",", ":")).encode()
    if len(text) <= RECORD_MAX // 2:
        return text
    packed = base64.b85encode(zlib.compress(text, 9)).decode()
    return json.dumps({"v": 1, "z": packed}, separators=(",", ":")).encode()


def decode_record(data: bytes) -> Record:
    """The record of a predecessor; empty when there was none. Raises ValueError when it is no record of ours."""
    if not data:
        return {}, {}
    try:
        tree = json.loads(data)
        if tree["v"] != 1:
            raise ValueError(f"record version {tree['v']}")
        if "z" in tree:
            tree = json.loads(zlib.decompress(base64.b85decode(tree["z"])))
        comms = {int(n): int(i, 16) for n, i in tree["comms"].items()}
        spaces: dict[str, Applied] = {}
        for name, (event, texts, *config) in tree["spaces"].items():
            nodes: dict[int, Who] = {}
            for n, text in texts.items():
                incarnation, _, join_id = text.partition(".")
                nodes[int(n)] = Who(int(incarnation, 16) if incarnation else comms[int(n)], int(join_id, 16))
            spaces[name] = Applied(int(event, 16), nodes, *map(str, config[:1]))
    except (KeyError, TypeError, AttributeError, zlib.error) as error:
        raise ValueError(f"not a record of dlm_glue: {error!r}") from None
    return comms, spaces
