# SPDX-License-Identifier: GPL-2.0-only
"""The ports to the switch. Implemented by vcs/netlink.py (the kernel) and by tests/fakes/switch.py (the userland model); both pass
tests/kernel/contract.py. A switch holds state and gives hints: whoever loses a hint, reads again.

All calls return at once (KERNEL-API rule 5) and raise vcs.errors.SwitchError with a positive errno:
ENOENT no such cluster/group, EEXIST, EBUSY held by somebody alive, ESTALE an old id or session or epoch, EPROTO out of order (a start
without this node's stop acknowledgement; a start that names someone outside the current quorate view), EPERM, EINVAL, EOPNOTSUPP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from vcs.model import Group, GroupFlags, Level, Member, Phase, ProviderState, RingId, View


@dataclass(frozen=True, slots=True)
class SwitchInfo:
    api_version: int
    capabilities: int
    incarnation: int
    "Boot incarnation of this kernel (u64 > 0), drawn when the module was loaded."


@dataclass(frozen=True, slots=True)
class ClusterInfo:
    handle: str
    name: str
    nodeid: int
    provider: str
    "Type of the attached or last provider, empty if there was none."
    provider_state: ProviderState
    change_seq: int
    lease_ms: int
    lease_remaining_ms: int
    grace_ms: int = 0
    "From the end of the lease to the reset of the machine; 0: it resets nothing."


@dataclass(frozen=True, slots=True)
class Attachment:
    session: int
    incarnation: int
    highest_event: int
    "The highest event id that any group of the cluster holds: new ones must exceed it (KERNEL-API rule 4)."


@dataclass(frozen=True, slots=True)
class Joined:
    session: int
    owner_epoch: int
    taken_over: bool
    "True when an orphaned persistent group was taken over; read its state with group()."


@dataclass(frozen=True, slots=True)
class Hint:
    """Something changed: ``what`` is one of cluster, view, group, provider, lost (hints were dropped: read everything again)."""

    what: str
    handle: str = ""
    group: str = ""
    generation: int = 0


class Reader(Protocol):
    """What anybody may ask."""

    def info(self) -> SwitchInfo: ...
    def clusters(self) -> list[ClusterInfo]: ...
    def view(self, handle: str) -> View: ...
    "The current view; generation 0 and no members before the first."
    def groups(self, handle: str) -> list[Group]: ...
    def group(self, handle: str, name: str) -> Group: ...

    def hints_fd(self) -> int: ...
    "A descriptor that becomes readable when hints() has something; subscribe by calling it."
    def hints(self) -> list[Hint]: ...
    "What arrived since, without waiting; Hint('lost') after an overrun."
    def close(self) -> None: ...


class ProviderPort(Reader, Protocol):
    """The provider type `user`, as the bridge drives it. ``session`` comes from attach()."""

    def cluster_add(self, handle: str, name: str, nodeid: int) -> None: ...
    def cluster_del(self, handle: str) -> None: ...
    def attach(self, handle: str, lease_ms: int, grace_ms: int = 0) -> Attachment: ...
    """Take the provider's seat. EBUSY while another process holds it, or (with ``grace_ms``) another cluster's lease may reset this
    machine; ESTALE when a lease with a grace has run out. After a loss, groups stay LOST; an armed lease goes on as it was."""
    def detach(self, handle: str, session: int) -> None: ...
    "Clean end; EBUSY while there are groups."
    def view_set(
        self, handle: str, session: int, ring: RingId, quorate: bool, members: Sequence[Member]
    ) -> int: ...
    "Install a view; returns its generation."
    def lease_renew(self, handle: str, session: int, valid_from_ns: int) -> None: ...
    def lease_freeze(self, handle: str, session: int, until_ns: int) -> None: ...
    "Maintenance: the lease does not end before ``until_ns`` (CLOCK_BOOTTIME, at most a day ahead, else ERANGE); a past one ends it."
    def group_stop(self, handle: str, session: int, group: str, event: int) -> None: ...
    "Order STOP of ``event`` (replaces an unfinished event)."
    def group_start(self, handle: str, session: int, group: str, event: int, members: Sequence[Member]) -> None: ...
    def group_finish(self, handle: str, session: int, group: str, event: int) -> None: ...
    def group_left(self, handle: str, session: int, group: str, error: int = 0) -> None: ...
    "The group is left (or its join refused: error > 0); it disappears once its consumer has been told."
    def fenced(self, handle: str, session: int, nodeid: int, incarnation: int, error: int = 0) -> None: ...


class ConsumerPort(Reader, Protocol):
    """A userland consumer's calls."""

    def join(self, handle: str, group: str, level: Level, flags: GroupFlags, owner: str) -> Joined: ...
    "Join, or take over an orphaned persistent group of the same owner tag."
    def ack(self, handle: str, session: int, group: str, event: int, phase: Phase) -> None: ...
    def leave(self, handle: str, session: int, group: str) -> None: ...
    "Asynchronous: complete when group() raises ENOENT. The consumer acknowledges the stop first."
    def claim(self, name: str, data: bytes | None = None) -> bytes: ...
    """Take (or, holding it, update) an exclusive claim such as "dlm"; returns the data that the claim held before. The data (at most 4096
    bytes) outlives its holder, so a successor knows what was last applied (SAFETY S2). EBUSY while another live socket holds it."""
