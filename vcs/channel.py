# SPDX-License-Identifier: GPL-2.0-only
"""A program's end of a batch channel: ordered messages between the members of a group.

Plain programs use :class:`Channel` (blocking, or with select: it has a ``fileno``); programs with an event loop use
:class:`vcs.channel_async.AsyncChannel`. Both pack messages, so that each costs well under a microsecond when there are many::

    with open_channel("orders") as channel:
        channel.send(b"hello")
        while True:
            what = channel.receive()
            if isinstance(what, Event): ...  # from here on messages are of this event
            else:
                for seq, message in enumerate(what.messages, what.seq): ...

The sender gets its own messages too, at their place in the order. Messages of an event come when this node has processed the event (it
has acknowledged the event's start), or, on an *explicit* channel, when the program has said so by :meth:`Channel.processed`.

Who sends faster than the group takes waits in :meth:`Channel.flush`; who does not read what comes holds up everybody for a while and
is then cut off: :class:`ChannelClosed` says so.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections import deque
from typing import Self

from vcs import batch
from vcs.batch import MESSAGE_MAX, PACKET_MAX, Batch, Closed, Event
from vcs.client import SOCKET_PATH, Client
from vcs.errors import DaemonError, RemoteError, VcsError

INBOUND_MAX = 16 << 20
"Bytes read ahead while a send waits. Beyond that nothing is read, and vcsd treats the program as slow."
SOCKET_BUFFER = 1 << 20
"""Bytes asked of the kernel for packets that the other side has not read. It says that there is room again only when three quarters are
free, so a small buffer makes sender and receiver take turns."""
SO_SNDBUFFORCE = 32
LENGTH = 4
RESETS = 2

Delivery = Batch | Event


class ChannelClosed(DaemonError):
    """The channel has ended; the message says why."""


def enlarge(sock: socket.socket, size: int = SOCKET_BUFFER) -> None:
    """Ask for room for what the other side has not read yet: beyond the system's limit where this process may."""
    for option in (socket.SO_SNDBUF, SO_SNDBUFFORCE):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, option, size)


class Channel:
    """One channel. Every method raises ChannelClosed once the channel has ended and what came before was received."""

    __slots__ = ("_closed", "_event", "_in", "_in_bytes", "_messages", "_packed", "_poll", "_size", "_socket")

    def __init__(self, sock: socket.socket) -> None:
        """``sock``: connected to vcsd (see :func:`open_channel`); it belongs to the channel from now on."""
        sock.setblocking(False)
        enlarge(sock)
        self._socket = sock
        self._poll = select.poll()
        self._messages: list[bytes] = []
        self._size = batch.HEAD
        self._packed = b""
        "A packet that vcsd did not take yet."
        self._event = 0
        self._in: deque[tuple[Delivery, int]] = deque()
        self._in_bytes = 0
        self._closed = ""

    @classmethod
    def at(cls, path: str, group: str, explicit: bool = False) -> Self:
        """A channel of a server that listens at ``path`` (bridge.channel.node). Raises DaemonError."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            sock.connect(path)
            sock.send(batch.pack_hello(group, explicit))
        except OSError as error:
            sock.close()
            raise DaemonError(f"{path}: {error.strerror or error}", "does its server run?") from None
        return cls(sock)

    def fileno(self) -> int:
        """For select and poll: when readable, call ``receive(0)`` until it returns None, and once before the first wait after a flush."""
        return self._socket.fileno()

    @property
    def event(self) -> int:
        """The newest event that was received, 0 before the first."""
        return self._event

    def close(self) -> None:
        """End the channel; what was put and not flushed is lost. The others get no notice: the node stays in the group."""
        self._closed = self._closed or "this program closed the channel"
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    # --- sending ------------------------------------------------------------------------------------------------------

    def put(self, payload: bytes) -> None:
        """Add a message to the packet that is being filled; a full one is sent, which may block. Raises VcsError: too long."""
        size = self._size + len(payload) + LENGTH
        if size > PACKET_MAX or payload.__class__ is not bytes:
            payload = bytes(payload)
            size = self._room(payload)
        self._messages.append(payload)
        self._size = size

    def send(self, payload: bytes) -> None:
        """Send one message now, behind those that were put."""
        self.put(payload)
        if not self._send_packet() or self._messages:
            self.flush()

    def flush(self, timeout_s: float | None = None) -> bool:
        """Send what was put. Blocks while vcsd takes no more, and reads ahead meanwhile. False: not within ``timeout_s``."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while self._messages or self._packed:
            if not self._send_packet() and not self._wait_for_room(end):
                return False
        return True

    def processed(self, event: int) -> None:
        """Explicit channels: this program has processed ``event``, so its messages may come."""
        packet = batch.pack_processed(event)
        while not self._offer(packet):
            self._wait_for_room(None)

    def _room(self, payload: bytes) -> int:
        """Make room for ``payload``; the size of the packet with it."""
        if len(payload) > MESSAGE_MAX:
            raise VcsError(f"a message of {len(payload)} bytes is too long for a channel (at most {MESSAGE_MAX})")
        if self._size + len(payload) + LENGTH > PACKET_MAX:
            self.flush()
        return self._size + len(payload) + LENGTH

    def _packet(self) -> bytes:
        """What was put, as a packet."""
        packet = batch.pack(self._event, self._messages)
        self._messages = []
        self._size = batch.HEAD
        return packet

    def _send_packet(self) -> bool:
        """Hand over the packet that waits, or what was put as one; False: not now."""
        packet = self._packed or self._packet()
        if self._offer(packet):
            self._packed = b""
            return True
        self._packed = packet
        return False

    def _wait_for_room(self, end: float | None) -> bool:
        """Until vcsd may take something, reading ahead; False when ``end`` has come."""
        read = self._in_bytes < INBOUND_MAX
        found = self._wait(select.POLLOUT | (select.POLLIN if read else 0), end)
        if found & ~select.POLLOUT and read:
            self._read()
        return found != 0

    def _offer(self, packet: bytes) -> bool:
        """Hand a packet to vcsd; False: not now."""
        if self._closed:
            raise self._gone()
        try:
            self._socket.send(packet, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        except OSError as error:
            while not self._closed and self._read():
                pass  # the reason is what vcsd said last
            self._end(error.strerror or str(error))
            raise self._gone() from None
        return True

    def _wait(self, what: int, end: float | None) -> int:
        """The events of poll(2), 0 when ``end`` has come."""
        self._poll.register(self._socket, what)
        left = None if end is None else max(end - time.monotonic(), 0.0) * 1000
        found = self._poll.poll(left)
        return found[0][1] if found else 0

    # --- receiving ----------------------------------------------------------------------------------------------------

    def receive(self, timeout_s: float | None = None) -> Delivery | None:
        """The next event or batch; None when nothing came within ``timeout_s`` (0: look only). Before it waits it flushes."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            if self._in:
                found, size = self._in.popleft()
                self._in_bytes -= size
                return found
            if self._closed:
                raise self._gone()
            if self._read():
                continue
            what = select.POLLIN
            if (self._messages or self._packed) and not self._send_packet():
                what |= select.POLLOUT
            if timeout_s == 0 or not self._wait(what, end):
                return None

    def _read(self) -> bool:
        """Take one packet, if there is one."""
        packet = self._take()
        if packet is None:
            return False
        found = self._understand(packet)
        if found is not None:
            self._in.append((found, len(packet)))
            self._in_bytes += len(packet)
        return True

    def _take(self) -> bytes | None:
        """One packet; empty when the channel has ended; None when there is none."""
        for _ in range(RESETS):
            try:
                return self._socket.recv(batch.DELIVERY_MAX)
            except BlockingIOError:
                return None
            except ConnectionResetError:
                continue  # vcsd closed with packets of ours unread; what it said before is still to be read
            except OSError as error:
                self._end(error.strerror or str(error))
        return b""

    def _understand(self, packet: bytes) -> Delivery | None:
        if not packet:
            self._end("vcsd closed the connection")
            return None
        try:
            found = batch.unpack(packet)
        except RemoteError as error:
            self._end(f"vcsd sent what this program does not understand ({error})")
            return None
        if isinstance(found, Closed):
            self._end(found.reason)
            return None
        self._event = max(self._event, found.event)
        return found

    def _end(self, reason: str) -> None:
        if not self._closed:
            self._closed = reason
            self._socket.close()

    def _gone(self) -> ChannelClosed:
        return ChannelClosed(f"the channel is closed: {self._closed}")


def open_channel(group: str, path: str = SOCKET_PATH, explicit: bool = False) -> Channel:
    """A channel of ``group``, in which this node must be. Raises DaemonError."""
    with Client(path) as client:
        descriptor = client.open_channel(group, explicit)
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, descriptor)
        sock = socket.socket(fileno=descriptor)
        undo.pop_all()
    return Channel(sock)
