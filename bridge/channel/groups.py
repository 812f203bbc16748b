# SPDX-License-Identifier: GPL-2.0-only
"""The channels of a whole node: groups and their events come from the coordinator, at their place in the order.

Channel bundles and the coordinator's messages go through the driver's one queue. After each input of the coordinator its picture is
compared with what the hub was told; so a bundle always finds what holds at its place.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from bridge.channel.hub import Hub, Note
from bridge.channel.limits import Limits
from bridge.coordinator.api import Input
from bridge.coordinator.core import Coordinator
from bridge.coordinator.state import State
from membership.api import Configuration, Kind, Message
from vcs import batch
from vcs.errors import VcsError
from vcs.model import Group, GroupState, Phase

LEFT = "this node has left the group"
FAILED = "to the others this node has failed"
LOST = "the provider was lost: this node waits to be fenced"


class NotAMember(VcsError):
    """This node is not in the group."""

    exit_code = 3


class GroupChannels:
    """Between driver, coordinator and hub."""

    def __init__(
        self, coordinator: Coordinator, submit: Callable[[bytes], None], note: Note, limits: Limits | None = None
    ) -> None:
        self._coordinator = coordinator
        self._nodeid = coordinator.local.nodeid
        self.hub = Hub(self._nodeid, submit, note, limits)
        self._companions = frozenset({self._nodeid})
        self._merged = False
        self._broken = False
        self._note = note
        self._state: State | None = None
        self._switch: dict[str, Group] | None = None

    def open(self, group: str, explicit: bool) -> socket.socket:
        """A channel of a group that this node is in or joins; the program's end. Raises VcsError."""
        if self._broken:
            raise VcsError("channels have failed in this vcsd", "see its journal; restart it when no group is live")
        held = (self._coordinator.feed.switch or {}).get(group)
        if held is None or held.state not in (GroupState.JOINING, GroupState.MEMBER):
            state = f"is {held.state.name.lower()} in" if held is not None else "is not in"
            raise NotAMember(f"this node {state} group {group!r}", "join the group first; `vcs groups` shows those that it is in")
        end = self.hub.open(group, explicit)
        self._processed(held)
        return end

    def counters(self) -> dict[str, int]:
        return {"open": self.hub.total, **self.hub.counters}

    def close(self) -> None:
        self.hub.close("vcsd ends")

    # --- driver.Channels ----------------------------------------------------------------------------------------------

    def take(self, what: Input) -> bool:
        """A bundle is taken here; anything else is the coordinator's."""
        if not isinstance(what, Message) or not batch.is_bundle(what.payload):
            return False
        if not self._broken:
            try:
                self.hub.payload(what.payload, what.sender.nodeid, what.ring.seq, what.seq)
            except Exception as error:
                self._break(error)
        return True

    def look(self, what: Input) -> None:
        """The coordinator has handled ``what``."""
        if not self._broken:
            try:
                self._look(what)
            except Exception as error:
                self._break(error)

    def _break(self, error: Exception) -> None:
        """A fault of ours in here ends the channels, not the node."""
        self._broken = True
        self._note("channels_failed", {"error": f"{type(error).__name__}: {error}"})
        self.hub.close("channels have failed in this vcsd")

    def _look(self, what: Input) -> None:
        c = self._coordinator
        if isinstance(what, Configuration):
            self._configuration(what)
        if c.state is not self._state and c.deciding:
            self._state = c.state
            self._compare(c.state)
        if c.feed.switch is not self._switch:
            self._switch = c.feed.switch
            self._local()
        if c.deciding and not self._merged:
            self._merged = True
            self.hub.merged()

    def _configuration(self, what: Configuration) -> None:
        if what.kind is Kind.TRANSITIONAL:
            self._companions = frozenset(m.nodeid for m in what.members)
        else:
            self._merged = False
            self._state = None
            self.hub.new_ring(what.ring.seq, self._companions)

    def _compare(self, state: State) -> None:
        me = self._nodeid
        for name in [n for n in self.hub.orders if n not in state.groups]:
            self.hub.end(name, LEFT)
        if not state.admitted(me):
            for name in list(self.hub.orders):
                self.hub.end(name, FAILED)
            return
        for name, group in state.groups.items():
            if group.phase < Phase.START:
                continue  # the event before is in force until this one starts
            if me in group.members:
                # A start is seen here before its finish, unless it came before this daemon did (SAFETY S16).
                self.hub.start(name, group.event, group.members, over=group.phase == Phase.FINISH)
            elif name in self.hub.orders:
                self.hub.end(name, LEFT)

    def _local(self) -> None:
        """What the local consumers have processed, and what the switch does not hold any more."""
        for name in [*self.hub.orders]:
            held = (self._switch or {}).get(name)
            if held is not None and held.state is GroupState.LOST:
                self.hub.end(name, LOST)
            elif held is not None:
                self._processed(held)
        for name in self.hub.waiting():
            if name not in (self._switch or {}):
                self.hub.end(name, LEFT)

    def _processed(self, held: Group) -> None:
        acked = held.acked_event if held.acked_phase >= Phase.START else 0
        self.hub.processed(held.name, max(acked, held.finished_event))
