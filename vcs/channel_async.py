# SPDX-License-Identifier: GPL-2.0-only
"""A program's end of a batch channel on an asyncio event loop. The bytes and the socket are vcs/channel.py's."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from vcs import batch
from vcs.batch import MESSAGE_MAX, PACKET_MAX
from vcs.channel import LENGTH, Channel, ChannelClosed, Delivery
from vcs.errors import VcsError

OUTBOUND_MAX = 1 << 20
"Bytes that a channel holds for vcsd before it refuses more."
READS = 32
"Packets read in one turn of an event loop."


class ChannelFull(VcsError):
    """Too much waits to be sent: await ``drain()`` first."""


class AsyncChannel:
    """The same on an event loop. ``on_delivery`` is called for every event and batch, ``on_closed`` once, with the reason."""

    def __init__(
        self, channel: Channel, on_delivery: Callable[[Delivery], None], on_closed: Callable[[str], None] = lambda _reason: None
    ) -> None:
        self._channel = channel
        self._on_delivery, self._on_closed = on_delivery, on_closed
        self._loop = asyncio.get_running_loop()
        self._fd = channel.fileno()
        self._out: deque[bytes] = deque()
        self._out_bytes = 0
        self._scheduled = False
        self._room = asyncio.Event()
        self._room.set()
        self._ended = False
        self._loop.add_reader(self._fd, self._readable)

    @property
    def event(self) -> int:
        return self._channel.event

    def send(self, payload: bytes) -> None:
        """Queue a message; it goes with others at the end of this turn of the loop. Raises ChannelClosed, ChannelFull, VcsError."""
        channel = self._channel
        if self._ended:
            raise channel._gone()
        size = channel._size + len(payload) + LENGTH
        if size > PACKET_MAX or payload.__class__ is not bytes:
            payload = bytes(payload)
            if len(payload) <= MESSAGE_MAX:
                self._queue_packet()
            size = channel._room(payload)
        channel._messages.append(payload)
        channel._size = size
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def processed(self, event: int) -> None:
        """See :meth:`Channel.processed`."""
        self._out.append(batch.pack_processed(event))
        self._write()

    async def drain(self) -> None:
        """Wait until there is room for more. Raises ChannelClosed."""
        await self._room.wait()
        if self._ended:
            raise self._channel._gone()

    def close(self) -> None:
        self._finish()
        self._channel.close()

    def _queue_packet(self) -> None:
        channel = self._channel
        if not channel._messages:
            return
        if self._out_bytes >= OUTBOUND_MAX:
            raise ChannelFull(f"{self._out_bytes} bytes wait to be sent", "await drain() before sending more")
        packet = channel._packet()
        self._out.append(packet)
        self._out_bytes += len(packet)
        if self._out_bytes >= OUTBOUND_MAX:
            self._room.clear()
        self._write()

    def _flush(self) -> None:
        self._scheduled = False
        if not self._ended and self._out_bytes < OUTBOUND_MAX:
            self._queue_packet()

    def _write(self) -> None:
        if self._ended:
            return
        out = self._out
        try:
            while out:
                if not self._channel._offer(out[0]):
                    self._loop.add_writer(self._fd, self._write)
                    return
                packet = out.popleft()
                if packet[0] == batch.Kind.MESSAGES:
                    self._out_bytes -= len(packet)
        except ChannelClosed:
            self._closed()
            return
        self._loop.remove_writer(self._fd)
        self._room.set()
        if self._channel._messages and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _readable(self) -> None:
        channel = self._channel
        for _ in range(READS):
            packet = channel._take()
            if packet is None:
                return
            found = channel._understand(packet)
            if found is None:
                self._closed()
                return
            self._on_delivery(found)
            if self._ended:
                return

    def _closed(self) -> None:
        if not self._ended:
            self._finish()
            for found, _size in self._channel._in:
                self._on_delivery(found)
            self._channel._in.clear()
            self._on_closed(self._channel._closed)

    def _finish(self) -> None:
        if not self._ended:
            self._ended = True
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            self._room.set()
