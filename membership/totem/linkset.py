# SPDX-License-Identifier: GPL-2.0-only
"""All links of this node on real sockets: frames to peers and from them, and what is learned on the way."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Callable

from membership.totem import linkwatch, segment
from membership.totem.core import Send
from membership.totem.limits import REMEASURE_S, SMALL_SEGMENT
from membership.totem.links import LinkTable
from membership.totem.sockets import Address, Handler, LinkSocket, path_payload, resolve, speaker
from vcs.config.model import ClusterConfig, NodeConfig

NEWS_PAUSE_S = 0.05
"The kernel's news about interfaces are looked at this often at most."

Hinted = Callable[[int, str, int, int], None]
"(nodeid, what, link, value): as TotemCore.hint takes it."


class LinkSet:
    """Made for one configuration; ``reconfigure`` takes another one with the same links."""

    def __init__(self, own: NodeConfig, config: ClusterConfig, table: LinkTable, readable: Callable[[], None], frame: Handler,
                 hinted: Hinted) -> None:
        """Opens the sockets. Raises VcsError if an address cannot be bound."""
        self._own = own
        self._table = table
        self._readable = readable
        self._frame = frame
        self._hinted = hinted
        self._loop = asyncio.get_running_loop()
        self._assembler = segment.Assembler()
        self._listening = False
        self._news: asyncio.TimerHandle | None = None
        self._again: asyncio.TimerHandle | None = None
        self._states = tuple(True for _ in own.addresses)
        self.counters: Counter[str] = Counter()
        self.addresses: list[dict[int, Address]] = []
        "Per link: the socket address of every other node."
        self.links: list[LinkSocket] = []
        self._watch = linkwatch.watch(own.addresses)
        port = config.totem.port
        try:
            for index, address in enumerate(own.addresses):
                self.links.append(LinkSocket(index, address, port, self._assembler, may_be_absent=len(own.addresses) > 1))
            for link, group in zip(self.links, config.totem.multicast, strict=False):
                link.join(group, port)
            self.reconfigure(config)
        except BaseException:
            self.close()
            raise
        if self._watch is not None:
            self._loop.add_reader(self._watch.fileno(), self._interfaces_changed)
            self._look()
        else:
            self.measure()

    def reconfigure(self, config: ClusterConfig) -> None:
        """Other peers, or other addresses of theirs. Raises VcsError."""
        others = [n for n in config.nodes if n.id != self._own.id]
        self.addresses = [
            {n.id: resolve(n.addresses[link.index], config.totem.port)[1] for n in others if link.index < len(n.addresses)}
            for link in self.links
        ]
        self._known = frozenset(n.id for n in others)
        self._names = [{address[0]: nodeid for nodeid, address in peers.items()} for peers in self.addresses]
        self._assembler.keep(self._known)

    def close(self) -> None:
        for timer in (self._news, self._again):
            if timer is not None:
                timer.cancel()
        self.listen(False)
        if self._watch is not None:
            self._loop.remove_reader(self._watch.fileno())
            self._watch.close()
        for link in self.links:
            self.counters += link.counters
            link.close()
        self.links.clear()

    def status(self) -> dict[str, int]:
        return dict(sorted(sum((link.counters for link in self.links), self.counters + self._assembler.counters).items()))

    def speakers(self) -> list[socket.socket]:
        """Sockets of their own for the guardian, one per link; the caller closes them."""
        return [speaker(link.address) for link in self.links]

    # --- in -----------------------------------------------------------------------------------------------------------------

    def listen(self, on: bool) -> None:
        """Be told, or not, of frames that wait."""
        if on == self._listening:
            return
        self._listening = on
        for link in self.links:
            for sock in link.readers:
                if on:
                    self._loop.add_reader(sock.fileno(), self._readable)
                else:
                    with contextlib.suppress(ValueError):
                        self._loop.remove_reader(sock.fileno())

    def drain(self) -> bool:
        """Hand over what waits, as long as ``listen`` is on. False: more may wait."""
        done = True
        for link in list(self.links):
            if not self._listening:
                return True
            done = link.receive(self._frame, self._known) and done
            if link.hints:
                self._tell(link)
        return done

    # --- out ----------------------------------------------------------------------------------------------------------------

    def send(self, effect: Send) -> None:
        """One frame to each of ``effect.to``. What cannot be sent is lost, as on the way."""
        if effect.link >= len(self.links):
            return
        link, data, to = self.links[effect.link], effect.data, effect.to
        addresses, paths = self.addresses[effect.link], self._table.paths
        length = cut_for = len(data)
        batches = [(data, length)]
        if link.group is not None and effect.spread and len(to) > 1:
            limit = min(length, *(paths[n][effect.link].limit for n in to))
            if link.send(batches if limit == length else segment.cut(data, limit), link.group):
                if not self._table.deaf:
                    return
                to = tuple(n for n in to if n in self._table.deaf)
        for nodeid in to:
            address = addresses.get(nodeid)
            if address is None:
                continue
            limit = paths[nodeid][effect.link].limit
            if not effect.spread and limit > SMALL_SEGMENT:
                limit = SMALL_SEGMENT if length > SMALL_SEGMENT else length
            elif limit > length:
                limit = length
            if limit != cut_for:
                batches, cut_for = segment.cut(data, limit), limit
            if not link.send(batches, address):
                self._send_smaller(link, nodeid, address, data)
        if link.hints:
            self._tell(link)

    def _send_smaller(self, link: LinkSocket, nodeid: int, address: Address, data: bytes) -> None:
        """The path has become smaller than we thought: the kernel knows by how much."""
        self._measure(nodeid, link)
        limit = self._table.paths[nodeid][link.index].limit
        if limit >= len(data) or not link.send(segment.cut(data, limit), address):
            link.counters["send_too_large"] += 1

    # --- what is learned ----------------------------------------------------------------------------------------------------

    def measure(self) -> None:
        """Ask the kernel for the MTU of every path, now and from time to time: that one has grown is not told."""
        if self._again is not None:
            self._again.cancel()
        self._again = self._loop.call_later(REMEASURE_S, self.measure)
        for link in self.links:
            for nodeid in self.addresses[link.index]:
                self._measure(nodeid, link)

    def _measure(self, nodeid: int, link: LinkSocket) -> None:
        size = path_payload(self.addresses[link.index][nodeid], link.family)
        if size:
            self._hinted(nodeid, "mtu", link.index, size)

    def _tell(self, link: LinkSocket) -> None:
        hints, link.hints = link.hints, []
        for hint in hints:
            nodeid = self._names[link.index].get(hint.address)
            if nodeid is None:
                continue
            if hint.what == "mtu":
                self._measure(nodeid, link)  # what the kernel made of the message, which may have been forged
            else:
                self._hinted(nodeid, hint.what, link.index, hint.value)

    def _interfaces_changed(self) -> None:
        assert self._watch is not None
        self._watch.drain()
        if self._news is None:
            self._look()
            self._news = self._loop.call_later(NEWS_PAUSE_S, self._look_again)

    def _look_again(self) -> None:
        self._news = None
        self._look()

    def _look(self) -> None:
        """Tell which of our own ends have gone or come, and how large the paths are now."""
        assert self._watch is not None
        states = self._watch.states()
        for link, was, now in zip(self.links, self._states, states, strict=True):
            if was != now:
                if now:
                    link.rejoin()
                self._hinted(0, "link_up" if now else "link_down", link.index, 0)
        self._states = states
        self.measure()
