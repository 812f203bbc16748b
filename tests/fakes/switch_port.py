# SPDX-License-Identifier: GPL-2.0-only
"""One socket of the userland switch: implements Reader, ProviderPort and ConsumerPort of bridge/switch.py."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bridge.switch import Attachment, ClusterInfo, Hint, Joined, SwitchInfo
from vcs.errors import SwitchError
from vcs.model import Group, GroupFlags, Level, Member, Phase, RingId, View

if TYPE_CHECKING:
    from tests.fakes.switch import FakeSwitch

HINTS_MAX = 256
"Hints that one socket holds before it loses some, as a netlink receive buffer does."


class FakePort:
    """Every call is the switch's own, after what the socket decides: is it open, has its holder the right."""

    def __init__(self, switch: FakeSwitch, hints_max: int, privileged: bool) -> None:
        self._switch = switch
        self._privileged = privileged
        self._hints_max = hints_max
        self._hints: list[Hint] = []
        self._subscribed = False
        self._eventfd = -1
        self._open = True
        self.on_hints: Callable[[], None] | None = None
        """For a simulator: called when the first hint arrives in an empty queue, inside the call that caused it;
        it may only note the fact and schedule. Setting it does not subscribe: call hints() once."""

    # --- hints ---------------------------------------------------------------------------------------------

    def hints_fd(self) -> int:
        self._enter()
        self._subscribed = True
        if self._eventfd < 0:
            self._eventfd = os.eventfd(1 if self._hints else 0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        return self._eventfd

    def hints(self) -> list[Hint]:
        self._enter()
        self._subscribed = True
        hints, self._hints = self._hints, []
        if hints and self._eventfd >= 0:
            os.eventfd_read(self._eventfd)
        return hints

    def deliver(self, hint: Hint) -> None:
        """From the switch. A full queue drops everything until it is read, as a congested netlink socket does."""
        if not self._subscribed:
            return
        empty = not self._hints
        if len(self._hints) < self._hints_max:
            self._hints.append(hint)
        elif self._hints[-1].what != "lost":
            self._hints.append(Hint("lost"))
        if empty:
            if self._eventfd >= 0:
                os.eventfd_write(self._eventfd, 1)
            if self.on_hints is not None:
                self.on_hints()

    def close(self) -> None:
        """The socket's death: the holder exited, crashed or was killed."""
        if not self._open:
            return
        self._open = False
        self._subscribed = False
        if self._eventfd >= 0:
            os.close(self._eventfd)
            self._eventfd = -1
        self._switch.socket_died(self)

    # --- Reader --------------------------------------------------------------------------------------------

    def info(self) -> SwitchInfo:
        return self._enter().info()

    def clusters(self) -> list[ClusterInfo]:
        return self._enter().clusters()

    def view(self, handle: str) -> View:
        return self._enter().view(handle)

    def groups(self, handle: str) -> list[Group]:
        return self._enter().groups(handle)

    def group(self, handle: str, name: str) -> Group:
        return self._enter().group(handle, name)

    # --- ProviderPort --------------------------------------------------------------------------------------

    def cluster_add(self, handle: str, name: str, nodeid: int) -> None:
        self._change().cluster_add(handle, name, nodeid)

    def cluster_del(self, handle: str) -> None:
        self._change().cluster_del(handle)

    def attach(self, handle: str, lease_ms: int, grace_ms: int = 0) -> Attachment:
        return self._change().attach(self, handle, lease_ms, grace_ms)

    def detach(self, handle: str, session: int) -> None:
        self._change().detach(handle, session)

    def view_set(
        self, handle: str, session: int, ring: RingId, quorate: bool, members: Sequence[Member]
    ) -> int:
        return self._change().view_set(handle, session, ring, quorate, members)

    def lease_renew(self, handle: str, session: int, valid_from_ns: int) -> None:
        self._change().lease_renew(handle, session, valid_from_ns)

    def lease_freeze(self, handle: str, session: int, until_ns: int) -> None:
        self._change().lease_freeze(handle, session, until_ns)

    def group_stop(self, handle: str, session: int, group: str, event: int) -> None:
        self._change().group_stop(handle, session, group, event)

    def group_start(
        self, handle: str, session: int, group: str, event: int, members: Sequence[Member]
    ) -> None:
        self._change().group_start(handle, session, group, event, members)

    def group_finish(self, handle: str, session: int, group: str, event: int) -> None:
        self._change().group_finish(handle, session, group, event)

    def group_left(self, handle: str, session: int, group: str, error: int = 0) -> None:
        self._change().group_left(handle, session, group, error)

    def fenced(self, handle: str, session: int, nodeid: int, incarnation: int, error: int = 0) -> None:
        self._change().fenced(handle, session, nodeid, incarnation, error)

    # --- ConsumerPort --------------------------------------------------------------------------------------

    def join(self, handle: str, group: str, level: Level, flags: GroupFlags, owner: str) -> Joined:
        return self._change().join(self, handle, group, level, flags, owner)

    def ack(self, handle: str, session: int, group: str, event: int, phase: Phase) -> None:
        self._change().ack(handle, session, group, event, phase)

    def leave(self, handle: str, session: int, group: str) -> None:
        self._change().leave(handle, session, group)

    def claim(self, name: str, data: bytes | None = None) -> bytes:
        return self._change().claim(self, name, data)

    # --- inside --------------------------------------------------------------------------------------------

    def _enter(self) -> FakeSwitch:
        if not self._open:
            raise SwitchError(errno.EBADF, "the socket to the switch is closed")
        self._switch.tick()
        return self._switch

    def _change(self) -> FakeSwitch:
        switch = self._enter()
        if not self._privileged:
            raise SwitchError(errno.EPERM, "changes of the switch need CAP_SYS_ADMIN")
        return switch
