# SPDX-License-Identifier: GPL-2.0-only
"""The channels of one node, between programs and the engine's ordered stream.

A program's packets go out as bundles, one after the other in its order; every bundle comes back in the total order, to its sender too,
and goes to the local channels of its group. Whoever feeds the hub says what the order brings: rings, merges, events of groups, what was
processed here (groups.py by the coordinator, engine.py by an engine alone).

Memory is bounded on both sides. From a program nothing is read while its *window* is used up, that is, while so many of its bytes have not
come back yet, so its own socket fills and it waits. Towards a program a bounded queue waits; when it grows, the hub tells the group
to pause (an ordered message), and a program that then does not read is cut off. What is not delivered when a ring ends is
repeated in the next one, in order.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterable

from bridge.channel.limits import RETRY_S, SWEEP_S, Limits
from bridge.channel.order import GroupOrder
from bridge.channel.port import Port
from vcs import batch
from vcs.batch import Bundle, What
from vcs.errors import RemoteError, VcsError

MISSED = "this node was cut off from other members and has missed messages of the group; open a new channel"

Note = Callable[[str, dict[str, object]], None]


class Hub:
    """``submit`` gives one payload to the engine (VcsError: not now). All calls are made on one event loop."""

    def __init__(self, nodeid: int, submit: Callable[[bytes], None], note: Note, limits: Limits | None = None) -> None:
        self._nodeid, self._engine, self._note = nodeid, submit, note
        self._limits = limits or Limits()
        self._loop = asyncio.get_running_loop()
        self.orders: dict[str, GroupOrder] = {}
        "The groups that this node is in."
        self._ports: dict[int, Port] = {}
        self._of: dict[str, list[Port]] = {}
        self._last_channel = 0
        self._ring_seq = 0
        self._open = False
        "The ring is merged: bundles count in it."
        self._outstanding: deque[tuple[Port, bytes]] = deque()
        "Packets whose bundles have not counted yet, in the order of their submission."
        self._inflight = 0
        self._waiting: deque[bytes] = deque()
        "Payloads that the engine did not take yet."
        self._announced: set[str] = set()
        "Groups that were told to pause by this node, in this ring."
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self.counters: Counter[str] = Counter()

    # --- channels -----------------------------------------------------------------------------------------------------

    def open(self, group: str, explicit: bool) -> socket.socket:
        """A new channel; the program's end of it. Raises VcsError when there are too many."""
        self.check_room()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self.add(ours, group, explicit)
        return theirs

    def check_room(self) -> None:
        if len(self._ports) >= self._limits.channels:
            raise VcsError(f"{len(self._ports)} channels are open on this node (limit {self._limits.channels})", "close one")

    def add(self, sock: socket.socket, group: str, explicit: bool) -> Port:
        """The same with a socket that is connected already."""
        self._last_channel += 1
        port = Port(self, sock, self._last_channel, group, explicit, self._limits)
        self._ports[port.number] = port
        self._of.setdefault(group, []).append(port)
        self._note("channel_open", {"group": group, "channel": port.number, "explicit": explicit})
        order = self.orders.get(group)
        if order is not None and order.event:
            self._tell(port, order)
        if "sweep" not in self._timers:
            self._timers["sweep"] = self._loop.call_later(SWEEP_S, self._sweep)
        return port

    @property
    def total(self) -> int:
        """Channels open here."""
        return len(self._ports)

    def waiting(self) -> list[str]:
        """Groups with channels here that have not begun: this node has asked to join them."""
        return [name for name in self._of if name not in self.orders]

    def close(self, reason: str) -> None:
        """End every channel."""
        for port in list(self._ports.values()):
            port.close(reason)
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._open = False

    # --- what the order brings ----------------------------------------------------------------------------------------

    def new_ring(self, ring_seq: int, companions: frozenset[int]) -> None:
        """A regular configuration begins; ``companions`` came along with this node. Nothing counts in it before :meth:`merged`."""
        self._ring_seq, self._open = ring_seq, False
        self._waiting.clear()  # all of it is outstanding
        self._announced.clear()
        for order in self.orders.values():
            order.new_ring(companions)
        for port in self._ports.values():
            port.read(False)

    def merged(self) -> None:
        """Everybody in the ring knows the same: say where this node stands, repeat what did not count, and go on."""
        self._open = True
        for order in self.orders.values():
            if order.mark is not None:
                self._say(What.SYNC, order.name, batch.pack_position(order.mark))
                order.synced()
        for port, packet in tuple(self._outstanding):
            self._submit(What.MESSAGES, port.group, port.number, packet)
        for port in list(self._ports.values()):
            if port.backlog > self._limits.behind:
                self.behind(port)
            self._update(port)

    def start(self, group: str, event: int, members: Iterable[int], over: bool = False) -> None:
        """The group's event was started: this node is in it. ``over``: the others have finished it already."""
        order, known = self.orders.get(group), frozenset(members)
        if order is None:
            order = self.orders[group] = GroupOrder(group)
        if over and not order.event:
            order.enter(event, known, self._nodeid, self._ring_seq)
        elif not order.start(event, known):
            return
        for port in list(self._of.get(group, ())):
            self._tell(port, order)

    def processed(self, group: str, event: int) -> None:
        """The local consumer of the group has processed the event."""
        for port in list(self._of.get(group, ())):
            if not port.explicit and event > port.gate:
                port.release(event)

    def end(self, group: str, reason: str) -> None:
        """This node is not in the group any more."""
        self.orders.pop(group, None)
        for port in list(self._of.get(group, ())):
            port.close(reason)

    def payload(self, payload: bytes, sender: int, ring_seq: int, seq: int) -> None:
        """A bundle was delivered: ``ring_seq`` is the ring it was sent in, ``seq`` its place there. Never raises for what a peer sent."""
        try:
            bundle = batch.read_bundle(payload)
            if bundle.ring_seq != ring_seq:
                self.counters["void"] += 1
            elif bundle.what is What.MESSAGES:
                self._messages(bundle, sender, seq, len(payload))
            elif bundle.what is What.SYNC:
                self._sync(bundle, sender)
            else:
                self._pause(bundle, sender)
        except RemoteError:
            self.counters["garbage"] += 1

    def _messages(self, bundle: Bundle, sender: int, seq: int, size: int) -> None:
        if sender == self._nodeid:
            self._came_back()
        order = self.orders.get(bundle.group)
        if order is None:
            return
        body = bundle.body
        first = order.accept(sender, bundle.ring_seq, seq, batch.count_of(body))
        if not first:
            self.counters["not_a_member"] += 1
            return
        self.counters["bundles"] += 1
        self.counters["bytes"] += size
        ports = self._of.get(bundle.group)
        if ports:
            event = order.event
            head = batch.delivery_head(sender, event, first)
            for port in tuple(ports):
                port.deliver(event, head, body)

    def _came_back(self) -> None:
        if not self._outstanding:
            self.counters["garbage"] += 1
            return
        port, packet = self._outstanding.popleft()
        self._inflight -= len(packet)
        port.inflight -= len(packet)
        if self._waiting:
            self._retry()
        if not port.reading:
            self._update(port)

    def _sync(self, bundle: Bundle, sender: int) -> None:
        order = self.orders.get(bundle.group)
        if order is None or sender == self._nodeid:
            return
        theirs = batch.read_position(bundle.body)
        if order.missed(theirs):
            self.counters["missed"] += 1
            self._note("channel_missed", {"group": order.name, "sender": sender, "event": theirs.event, "seq": theirs.seq})
            order.adopt(theirs)
            for port in list(self._of.get(order.name, ())):
                port.close(MISSED)

    def _pause(self, bundle: Bundle, sender: int) -> None:
        order = self.orders.get(bundle.group)
        if order is None:
            return
        if bytes(bundle.body) == b"\1":
            order.paused.add(sender)
        else:
            order.paused.discard(sender)
        for port in list(self._of.get(order.name, ())):
            self._update(port)

    # --- what ports say (port.Owner) ----------------------------------------------------------------------------------

    def packet(self, port: Port, packet: bytes) -> None:
        self._outstanding.append((port, packet))
        self._inflight += len(packet)
        port.inflight += len(packet)
        self._submit(What.MESSAGES, port.group, port.number, packet)
        if port.inflight >= self._limits.window or self._inflight >= self._limits.node_window:
            self._update(port)

    def told(self, port: Port) -> None:
        self._update(port)

    def behind(self, port: Port) -> None:
        if self._open and port.group in self.orders and port.group not in self._announced:
            self._announced.add(port.group)
            self.counters["pauses"] += 1
            self._say(What.PAUSE, port.group, b"\1")
        if sum(p.backlog for p in self._ports.values()) > self._limits.node_backlog:
            worst = max(self._ports.values(), key=lambda p: p.backlog)
            worst.close("this program is too slow, and all programs of this node together have too much waiting for them")

    def caught_up(self, port: Port) -> None:
        if port.group in self._announced and all(p.backlog <= self._limits.caught_up for p in self._of.get(port.group, ())):
            self._announced.discard(port.group)
            if self._open:
                self._say(What.PAUSE, port.group, b"\0")

    def gone(self, port: Port, why: str) -> None:
        if self._ports.pop(port.number, None) is None:
            return
        there = self._of[port.group]
        there.remove(port)
        if not there:
            del self._of[port.group]
        self.counters["closed"] += 1
        self._note("channel_closed", {"group": port.group, "channel": port.number, "why": why})
        self.caught_up(port)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _tell(self, port: Port, order: GroupOrder) -> None:
        """Tell a program of the event in force; an explicit one at once, since it processes it itself."""
        port.deliver(0 if port.explicit else order.event, batch.pack_event(order.event, sorted(order.members)), b"", order.event)

    def _update(self, port: Port) -> None:
        """Read from the program exactly while what it sends may go out."""
        order = self.orders.get(port.group)
        room = port.inflight < self._limits.window and self._inflight < self._limits.node_window
        wanted = self._open and room and order is not None and port.told_event == order.event != 0
        if wanted and order is not None and order.paused:
            # A program that has yet to say that it has processed an event must be heard: what is held for it may be why all pause.
            wanted = port.explicit and port.gate < order.event
        if wanted != port.reading and not port.closed:
            port.read(wanted)

    def _say(self, what: What, group: str, body: bytes) -> None:
        self._submit(what, group, 0, body)

    def _submit(self, what: What, group: str, channel: int, body: bytes) -> None:
        payload = batch.bundle_head(what, group.encode(), channel, self._ring_seq) + body
        if not self._waiting:
            try:
                self._engine(payload)
                return
            except VcsError:
                self.counters["engine_full"] += 1
        self._waiting.append(payload)
        self._retry_later()

    def _retry_later(self) -> None:
        if "retry" not in self._timers:
            self._timers["retry"] = self._loop.call_later(RETRY_S, self._retry_timer)

    def _retry_timer(self) -> None:
        self._timers.pop("retry", None)
        self._retry()

    def _retry(self) -> None:
        while self._waiting:
            payload = self._waiting.popleft()  # first: what the engine delivers from within may lead here again
            try:
                self._engine(payload)
            except VcsError:
                self._waiting.appendleft(payload)
                self._retry_later()
                return

    def _sweep(self) -> None:
        """Once a second: who is behind and takes nothing, who is dead and not being read from, who may be read from again."""
        self._timers.pop("sweep", None)
        now = self._loop.time()
        watch = select.poll()
        idle = {p.fileno(): p for p in self._ports.values() if not p.reading}
        for fd in idle:
            watch.register(fd, 0)
        for fd, found in watch.poll(0) if idle else ():
            if found & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
                idle[fd].hung_up()
        for port in list(self._ports.values()):
            if port.backlog and not port.held() and now - port.progress > self._limits.slow_s:
                port.close(f"this program is too slow: it has read nothing for {self._limits.slow_s:g} s")
            else:
                self._update(port)
        if self._ports:
            self._timers["sweep"] = self._loop.call_later(SWEEP_S, self._sweep)
