# SPDX-License-Identifier: GPL-2.0-only
"""What the userland switch holds (clusters and groups), and the checks of input that the kernel's netlink policies make."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vcs.errors import SwitchError
from vcs.model import (
    MEMBERS_MAX,
    NAME_MAX,
    NODEID_MAX,
    Group,
    GroupFlags,
    GroupState,
    Level,
    Member,
    Phase,
    ProviderState,
    RingId,
    View,
)

if TYPE_CHECKING:
    from tests.fakes.switch_port import FakePort

CLAIM_DATA_MAX = 4096
U64_MAX = (1 << 64) - 1


def refuse(code: int, message: str, attribute: str = "") -> SwitchError:
    """The error to raise: a positive errno, one line, and the attribute at fault."""
    return SwitchError(code, message, attribute)


@dataclass(slots=True)
class FakeGroup:
    """A group while it lives. ``owner_port`` is None for an orphan, and when the consumer of a leaving group died."""

    name: str
    level: Level
    flags: GroupFlags
    owner: str
    owner_port: FakePort | None
    session: int
    owner_epoch: int = 1
    state: GroupState = GroupState.JOINING
    event: int = 0
    phase: Phase = Phase.NONE
    acked_event: int = 0
    acked_phase: Phase = Phase.NONE
    members: tuple[Member, ...] = ()
    finished_event: int = 0
    finished_members: tuple[Member, ...] = ()
    started_event: int = 0
    started_members: tuple[Member, ...] = ()
    view_generation: int = 0
    now: Callable[[], int] = lambda: 0
    orphaned_ns: int | None = None
    started: bool = False
    "A start was ordered once: from then on the lease is armed for it, also while stopped (a stop is no fence)."

    @property
    def abandoned(self) -> bool:
        """Its consumer died and nobody can take it over: stops count as acknowledged."""
        return self.owner_port is None and not self.flags & GroupFlags.PERSISTENT

    def acked(self, phase: Phase) -> bool:
        return self.acked_event == self.event and self.acked_phase >= phase

    def acknowledge(self, phase: Phase) -> None:
        self.acked_event, self.acked_phase = self.event, phase

    @property
    def orphan_ms(self) -> int:
        return 0 if self.orphaned_ns is None else max(1, (self.now() - self.orphaned_ns) // 1_000_000)

    def snapshot(self) -> Group:
        return Group(
            name=self.name, level=self.level, flags=self.flags, state=self.state,
            event=self.event, phase=self.phase,
            acked_event=self.acked_event, acked_phase=self.acked_phase, members=self.members,
            finished_event=self.finished_event, finished_members=self.finished_members,
            view_generation=self.view_generation, owner=self.owner, owner_epoch=self.owner_epoch,
            orphan_since_ms=self.orphan_ms, started_event=self.started_event, started_members=self.started_members,
        )


@dataclass(slots=True)
class FakeLease:
    """struct vcs_lease: lengths for the next renewal, and the deadlines that the last one fixed (ns, CLOCK_BOOTTIME)."""

    lease_ns: int = 0
    grace_ns: int = 0
    "0: it resets nothing."
    valid_from_ns: int = 0
    freeze_ns: int = 0
    end_ns: int = 0
    "0: no lease."
    reset_ns: int = 0
    "0: none."
    told: bool = False
    fired: bool = False
    "The reset's timer has fired for this deadline."

    def prolong(self, valid_from_ns: int) -> None:
        self.valid_from_ns = valid_from_ns
        self.end_ns = max(valid_from_ns + self.lease_ns, self.freeze_ns) if self.lease_ns else 0
        self.reset_ns = self.end_ns + self.grace_ns if self.grace_ns else 0
        self.told = self.fired = False


@dataclass(slots=True)
class FakeCluster:
    handle: str
    name: str
    nodeid: int
    provider: str = ""
    provider_state: ProviderState = ProviderState.NONE
    provider_port: FakePort | None = None
    session: int = 0
    change_seq: int = 0
    highest_event: int = 0
    event_floor: int = 0
    "highest_event at the attach: what this provider orders must exceed it."
    lease: FakeLease = field(default_factory=FakeLease)
    view: View = field(default_factory=lambda: View(0, RingId(0, 0), False, ()))
    groups: dict[str, FakeGroup] = field(default_factory=dict)
    fence_marks: dict[tuple[int, int], int] = field(default_factory=dict)
    "(nodeid, incarnation) -> error of the last fence that the provider reported."

    @property
    def attached(self) -> bool:
        return self.provider_state is ProviderState.ATTACHED

    @property
    def armed(self) -> bool:
        """A group that needs fencing has started here and was not left, whoever holds the seat (SAFETY S13)."""
        return self.lease.end_ns > 0 and any(g.started and GroupFlags.NEEDS_FENCE in g.flags for g in self.groups.values())

    def over(self, now_ns: int) -> bool:
        """The armed lease has run out, and is to reset the machine: nothing but leaving stops that."""
        return self.armed and self.lease.reset_ns > 0 and now_ns >= self.lease.end_ns

    def due(self, now_ns: int) -> bool:
        return self.over(now_ns) and now_ns >= self.lease.reset_ns


# A value out of the range that the netlink policy states gives ERANGE, as the kernel's validation does; what is checked
# after it gives EINVAL.


def check_text(text: str, attribute: str) -> None:
    """What people are shown: UTF-8 without control characters."""
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raise refuse(errno.EINVAL, f"{attribute} is not UTF-8", attribute) from None
    if len(raw) > NAME_MAX:
        raise refuse(errno.ERANGE, f"{attribute} has more than {NAME_MAX} bytes", attribute)
    if any(c < " " or c == "\x7f" for c in text):
        raise refuse(errno.EINVAL, f"{attribute} holds a control character", attribute)


def check_name(name: str, attribute: str) -> None:
    """What becomes a folder in sysfs."""
    check_text(name, attribute)
    if name in ("", ".", "..") or "/" in name:
        raise refuse(errno.EINVAL, f"{attribute} {name!r} cannot be a name", attribute)


def check_level(level: int) -> None:
    if not min(Level) <= level <= max(Level):
        raise refuse(errno.ERANGE, f"level {level} unknown", "level")


def check_nodeid(nodeid: int) -> None:
    check_range(nodeid, 1, NODEID_MAX, "nodeid")


def check_u64(value: int, attribute: str) -> None:
    check_range(value, 1, U64_MAX, attribute)


def check_error(value: int) -> None:
    check_range(value, 0, 4095, "error")


def check_range(value: int, low: int, high: int, attribute: str) -> None:
    if not low <= value <= high:
        raise refuse(errno.ERANGE, f"{attribute} {value} out of range", attribute)


def check_not_lost(group: FakeGroup) -> None:
    if group.state is GroupState.LOST:
        raise refuse(errno.EPROTO, f"group {group.name} is lost: it goes on no more until it was left", "group")


def check_members(members: Sequence[Member]) -> None:
    if not members or len(members) > MEMBERS_MAX:
        raise refuse(errno.EINVAL, f"{len(members)} members, 1 to {MEMBERS_MAX} are possible", "member")
    for m in members:
        check_nodeid(m.nodeid)
        check_u64(m.incarnation, "incarnation")
    if len({m.nodeid for m in members}) != len(members):
        raise refuse(errno.EINVAL, "a nodeid is named twice", "member")
