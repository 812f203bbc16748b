# SPDX-License-Identifier: GPL-2.0-only
"""The ordered messages between coordinators: canonical JSON, each with protocol version and feature level (SAFETY S3).

Who speaks is never in the text: it is the engine's authenticated :class:`~membership.api.Processor`. A message that is not
understood is the same nonsense for everybody, so everybody drops it alike. One larger than the engine carries travels in parts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Any, Final

from bridge.coordinator.state import canonical
from bridge.coordinator.witness_words import OPTIONAL, WITNESS_TYPES, WitnessWord
from vcs.errors import RemoteError
from vcs.model import RingId

PROTOCOL: Final = 1
"A different protocol cannot be understood at all."
FEATURE: Final = 3
"How messages are applied; the lowest of all members is in force, switched by the ordered merge."
PARTS_MAX: Final = 4096
TEXT_MAX: Final = 4 << 20
"Longest message in bytes, all parts together."
BUNDLE_MAX: Final = 1024
"Words in one bundle."
PART_OVERHEAD: Final = 64
MESSAGE_MIN: Final = 256


@dataclass(frozen=True, slots=True)
class GroupReport:
    """One group as the sender's switch holds it."""

    name: str
    level: int
    flags: int
    state: int
    event: int
    phase: int
    started: int = 0
    "The last event whose START was ordered there."
    members: tuple[int, ...] = ()
    "Its members: nodeid, boot incarnation, join id, one after the other."


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a member brings into a new regular configuration."""

    ring: RingId
    has_state: bool
    primary: RingId
    version: int
    digest: str
    can_fence: bool
    leaving: bool
    groups: tuple[GroupReport, ...]
    record: dict[str, Any] | None
    "The durable record (persist.py) of a member without state."
    acked: tuple[int, ...] = ()
    "Nodes that an administrator declared off while this member waited for all."
    feature: int = FEATURE
    self_fence: tuple[int, ...] = ()
    "Of the sender's lease: lease, grace, watchdog (ms; lease.py)."
    gasps: tuple[int, ...] = ()
    "Processes whose last gasp this member heard: nodeid, engine incarnation, one after the other (SAFETY S16)."
    fences: tuple[int, ...] = ()
    "Nodeids that the sender has a fence device for."
    term: int = 0
    "Of the newest grant of a witness that the state knows of."
    inquorate: bool = False  #: the sender was in a configuration without a quorum since its state was last carried on


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The authoritative state, adopted by all at its place in the order."""

    ring: RingId
    state: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Join:
    name: str
    level: int
    flags: int
    config: str = ""
    "What all members of the group must have alike in their configuration; empty: nothing."


@dataclass(frozen=True, slots=True)
class Leave:
    name: str
    gone: bool = False
    "The sender's switch no longer holds the group at all: there is nothing left to stop."


@dataclass(frozen=True, slots=True)
class Ack:
    name: str
    event: int
    phase: int


@dataclass(frozen=True, slots=True)
class NodeLeave:
    """The sender leaves the cluster cleanly."""


@dataclass(frozen=True, slots=True)
class FenceResult:
    nodeid: int
    boot: int
    attempt: int
    ok: bool
    detail: str
    method: str = ""
    cut: bool = False  #: it failed because the node has power again (or still): it may be booting


@dataclass(frozen=True, slots=True)
class FenceNode:
    """An administrator wants the node fenced, whether it has failed or not. ``action``: off or reboot; empty: as configured."""

    nodeid: int
    action: str


@dataclass(frozen=True, slots=True)
class FenceRetry:
    """The back-off after ``attempt`` failed calls is over."""

    nodeid: int
    boot: int
    attempt: int


@dataclass(frozen=True, slots=True)
class NodeOff:
    """An administrator stated that the node is off."""

    nodeid: int


@dataclass(frozen=True, slots=True)
class Overdue:
    """The sender's clock says that ``nodeid`` has not answered ``phase`` of ``event`` within the limit (SAFETY S22)."""

    name: str
    event: int
    phase: int
    nodeid: int


@dataclass(frozen=True, slots=True)
class VoteAgree:
    """The sender's disk holds the primary configuration of proposal ``serial`` (ballot.py)."""

    serial: int


@dataclass(frozen=True, slots=True)
class VoteDrop:
    """The sender's clock says that the incarnation has been missing for the window of last_man_standing."""

    nodeid: int
    boot: int


@dataclass(frozen=True, slots=True)
class Expect:
    """An administrator wants so many votes to be expected."""

    votes: int


@dataclass(frozen=True, slots=True)
class MaintenanceOn:
    """Fencing and resets are frozen for so long from the delivery."""

    for_ms: int
    reason: str
    renews: int = 0
    "Serial of the one that goes on for newcomers; 0: a new one."


@dataclass(frozen=True, slots=True)
class MaintenanceOff:
    serial: int
    "Of the maintenance whose time is over by the sender's clock; 0: an administrator ends it, whichever it is."


@dataclass(frozen=True, slots=True)
class Thawed:
    """The sender's kernel has been told that the maintenance is over: its lease resets again."""

    serial: int


@dataclass(frozen=True, slots=True)
class ShutDown:
    """Everybody leaves in order."""


@dataclass(frozen=True, slots=True)
class Orphaned:
    """A persistent group of the sender has had no owner for the limit (SAFETY S22)."""

    name: str


@dataclass(frozen=True, slots=True)
class Restarting:
    """The sender's daemon is about to be restarted and will be back within ``planned_ms``."""

    planned_ms: int


@dataclass(frozen=True, slots=True)
class AbsenceOver:
    """By the sender's clock the daemon of ``nodeid`` has been away for too long."""

    nodeid: int
    boot: int
    times: int


@dataclass(frozen=True, slots=True)
class Forgiven:
    """By the sender's clock the daemon of ``nodeid`` has not died again for a long time."""

    nodeid: int
    boot: int
    crashes: int


GroupWord = Join | Leave | Ack


@dataclass(frozen=True, slots=True)
class Bundle:
    """Words of one sender about groups, in this order (bundle.py)."""

    words: tuple[GroupWord, ...]


Body = (
    Exchange | Snapshot | GroupWord | NodeLeave | FenceResult | FenceNode | FenceRetry | NodeOff | Overdue | VoteAgree | VoteDrop
    | Expect | MaintenanceOn | MaintenanceOff | Thawed | ShutDown | Orphaned | Restarting | AbsenceOver | Forgiven | Bundle | WitnessWord
)
_TYPES: Final[dict[str, type[Any]]] = {
    "exchange": Exchange, "snapshot": Snapshot, "join": Join, "leave": Leave, "ack": Ack, "node_leave": NodeLeave,
    "fence_result": FenceResult, "fence_retry": FenceRetry, "fence_node": FenceNode, "node_off": NodeOff, "overdue": Overdue,
    "vote_agree": VoteAgree, "vote_drop": VoteDrop, "expect": Expect,
    "maintenance_on": MaintenanceOn, "maintenance_off": MaintenanceOff, "thawed": Thawed, "shut_down": ShutDown, "orphaned": Orphaned,
    "restarting": Restarting, "absence_over": AbsenceOver, "forgiven": Forgiven, "bundle": Bundle, **WITNESS_TYPES,
}
_NAMES: Final = {cls: name for name, cls in _TYPES.items()}
_WORDS: Final = ("join", "leave", "ack")


def _plain(value: Any) -> Any:
    if isinstance(value, RingId):
        return [value.seq, value.rep]
    if isinstance(value, GroupReport):
        return [value.name, value.level, value.flags, value.state, value.event, value.phase, value.started, list(value.members)]
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if isinstance(value, GroupWord):
        return [_NAMES[type(value)], _text(value)]
    return value


def _text(body: Body) -> dict[str, Any]:
    values = {f.name: _plain(getattr(body, f.name)) for f in fields(body)}
    return {name: value for name, value in values.items() if value or name not in OPTIONAL}


def encode(body: Body) -> bytes:
    return canonical({"p": PROTOCOL, "f": FEATURE, "t": _NAMES[type(body)], "b": _text(body)})


def _number(value: Any, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 64:
        raise RemoteError(f"{what} is not a number of 64 bits")
    return value


def _ring(value: Any, what: str) -> RingId:
    if not isinstance(value, list) or len(value) != 2:
        raise RemoteError(f"{what} is not a ring id")
    return RingId(_number(value[0], what), _number(value[1], what))


def _report(value: Any) -> GroupReport:
    if not isinstance(value, list) or len(value) != 8 or not isinstance(value[0], str) or not isinstance(value[7], list):
        raise RemoteError("a group report is malformed")
    level, flags, state, event, phase = (_number(v, "group report") for v in value[1:6])
    if len(value[7]) % 3:
        raise RemoteError("the members of a group report are not whole")
    return GroupReport(value[0], level, flags, state, event, phase, _number(value[6], "group report"),
                       tuple(_number(v, "group report") for v in value[7]))


def _field(kind: str, value: Any, what: str) -> Any:
    """One value by its annotation; raises RemoteError."""
    if kind == "int":
        return _number(value, what)
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind == "str" and isinstance(value, str):
        return value
    if kind == "RingId":
        return _ring(value, what)
    if kind.startswith("tuple[GroupReport") and isinstance(value, list):
        return tuple(_report(v) for v in value)
    if kind.startswith("tuple[GroupWord") and isinstance(value, list) and len(value) <= BUNDLE_MAX:
        return tuple(_word(v) for v in value)
    if kind.startswith("tuple[int") and isinstance(value, list):
        return tuple(_number(v, what) for v in value)
    if kind.startswith("dict") and (isinstance(value, dict) or (value is None and kind.endswith("None"))):
        return value
    raise RemoteError(f"{what} is malformed")


def _envelope(payload: bytes) -> dict[str, Any]:
    if len(payload) > TEXT_MAX:
        raise RemoteError("message too long")
    try:
        value = json.loads(payload.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise RemoteError(f"not a message: {error}") from error
    if not isinstance(value, dict):
        raise RemoteError("not a message")
    if value.get("p") != PROTOCOL:
        raise RemoteError(f"protocol version {value.get('p')!r} is not understood", f"this node speaks {PROTOCOL}")
    return value


def decode(payload: bytes) -> Body:
    """Raises RemoteError, and nothing else, whatever arrives."""
    value = _envelope(payload)
    return _body(value.get("t"), value.get("b"))


def _body(kind: Any, text: Any) -> Body:
    cls = _TYPES.get(kind) if isinstance(kind, str) else None
    if cls is None or not isinstance(text, dict):
        raise RemoteError(f"message type {kind!r} is not known")
    known = {f.name: str(f.type) for f in fields(cls)}
    if set(text) ^ set(known) - (OPTIONAL - set(text)):
        raise RemoteError(f"{kind}: fields {sorted(set(text) ^ set(known))} are missing or unknown")
    body: Body = cls(**{name: _field(what, text.get(name, 0), f"{kind}.{name}") for name, what in known.items()})
    return body


def _word(value: Any) -> Body:
    if not isinstance(value, list) or len(value) != 2 or value[0] not in _WORDS:
        raise RemoteError("a bundle holds something else than words about groups")
    return _body(*value)


def split(payload: bytes, limit: int) -> list[bytes]:
    """The payload, or parts of it, none longer than ``limit`` bytes."""
    if len(payload) <= limit:
        return [payload]
    # The text is ASCII JSON: worst case every character is a quote or backslash and doubles inside the part's own string.
    size = (max(limit, MESSAGE_MIN) - PART_OVERHEAD) // 2
    texts = [payload[i:i + size].decode("ascii") for i in range(0, len(payload), size)]
    return [canonical({"p": PROTOCOL, "t": "part", "k": k, "n": len(texts), "d": text}) for k, text in enumerate(texts)]


@dataclass(slots=True)
class Assembler:
    """Puts parts together, per sender. Parts never cross a regular configuration: everybody starts empty there."""

    waiting: dict[object, list[str]] = field(default_factory=dict)

    def clear(self) -> None:
        self.waiting.clear()

    def feed(self, sender: object, payload: bytes) -> bytes | None:
        """A whole message, or None while parts are missing. Raises RemoteError for a part out of sequence."""
        if not payload.endswith(b'"t":"part"}'):
            self.waiting.pop(sender, None)
            return payload
        value = _envelope(payload)
        index, count, text = value.get("k"), value.get("n"), value.get("d")
        held = self.waiting.pop(sender, [])
        if not isinstance(index, int) or not isinstance(count, int) or not isinstance(text, str) or not 1 < count <= PARTS_MAX:
            raise RemoteError("malformed part")
        if index != len(held):
            raise RemoteError(f"part {index} where {len(held)} was expected")
        held.append(text)
        if index + 1 < count:
            self.waiting[sender] = held
            return None
        return "".join(held).encode("ascii", "replace")
