# SPDX-License-Identifier: GPL-2.0-only
"""Channels on an engine alone, without coordinator and switch: every regular configuration is one event of every group.

Its id is made from the ring's sequence, its members are the ring's, and it counts as processed at once. Programs connect to a socket
of their own and say which group they mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable

from bridge.channel.hub import Hub, Note
from bridge.channel.limits import HELLOS_MAX, Limits
from membership.api import Configuration, EngineEvent, Kind, Message
from vcs import batch
from vcs.errors import DaemonError, RemoteError, VcsError
from vcs.model import event_id


class EngineChannels:
    """``sink`` takes the engine's events; ``submit`` is the engine's."""

    def __init__(
        self, nodeid: int, submit: Callable[[bytes], None], note: Note = lambda _name, _fields: None, limits: Limits | None = None
    ) -> None:
        self.hub = Hub(nodeid, submit, note, limits)
        self._nodeid = nodeid
        self._event = 0
        self._members: tuple[int, ...] = ()
        self._companions = frozenset({nodeid})
        self._listener: socket.socket | None = None
        self._path = ""
        self._hellos: set[socket.socket] = set()

    def sink(self, event: EngineEvent) -> None:
        if isinstance(event, Message):
            if batch.is_bundle(event.payload):
                self._message(event)
        elif isinstance(event, Configuration):
            self._configuration(event)

    def _message(self, event: Message) -> None:
        with contextlib.suppress(RemoteError):
            group = batch.read_bundle(event.payload).group
            if group not in self.hub.orders:
                self._join(group)
        self.hub.payload(event.payload, event.sender.nodeid, event.ring.seq, event.seq)

    def _configuration(self, event: Configuration) -> None:
        if event.kind is Kind.TRANSITIONAL:
            self._companions = frozenset(m.nodeid for m in event.members)
            return
        self.hub.new_ring(event.ring.seq, self._companions)
        self._event = event_id(event.ring.seq, 1)
        self._members = tuple(m.nodeid for m in event.members)
        for order in self.hub.orders.values():
            order.mark = None  # an event of its own begins: there is nothing to compare
        for group in list(self.hub.orders):
            self._join(group)
        self.hub.merged()

    def _join(self, group: str) -> None:
        if self._event:
            self.hub.start(group, self._event, self._members)
            self.hub.processed(group, self._event)

    # --- the socket ---------------------------------------------------------------------------------------------------

    def listen(self, path: str) -> None:
        """Accept channels at ``path`` (mode 0600). Raises DaemonError."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            listener.bind(path)
            os.chmod(path, 0o600)
            listener.listen(HELLOS_MAX)
        except OSError as error:
            listener.close()
            raise DaemonError(f"{path}: {error.strerror or error}", "check the folder and its rights") from error
        self._listener, self._path = listener, path
        asyncio.get_running_loop().add_reader(listener, self._accept)

    def close(self) -> None:
        """End all channels, stop listening."""
        loop = asyncio.get_running_loop()
        self.hub.close("the server ends")
        for sock in list(self._hellos):
            self._drop(sock)
        if self._listener is not None:
            loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def _accept(self) -> None:
        assert self._listener is not None
        with contextlib.suppress(OSError):
            sock, _address = self._listener.accept()
            if len(self._hellos) >= HELLOS_MAX:
                sock.close()
                return
            sock.setblocking(False)
            self._hellos.add(sock)
            asyncio.get_running_loop().add_reader(sock, self._hello, sock)

    def _hello(self, sock: socket.socket) -> None:
        try:
            group, explicit = batch.read_hello(sock.recv(batch.PACKET_MAX))
            self.hub.check_room()
        except BlockingIOError:
            return
        except (OSError, VcsError) as error:
            if isinstance(error, VcsError):
                with contextlib.suppress(OSError):
                    sock.send(batch.pack_closed(str(error)))
            self._drop(sock)
            return
        self._hellos.discard(sock)
        asyncio.get_running_loop().remove_reader(sock)
        self.hub.add(sock, group, explicit)
        self._join(group)

    def _drop(self, sock: socket.socket) -> None:
        self._hellos.discard(sock)
        asyncio.get_running_loop().remove_reader(sock)
        sock.close()
