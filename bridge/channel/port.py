# SPDX-License-Identifier: GPL-2.0-only
"""One program's socket: a bounded queue towards it, packets from it. It decides nothing; the hub says when to read."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import Protocol

from bridge.channel.limits import READS, Limits
from vcs import batch
from vcs.batch import Buffer, Kind
from vcs.channel import enlarge
from vcs.errors import RemoteError


class Owner(Protocol):
    """What a port tells its hub."""

    def packet(self, port: Port, packet: bytes) -> None: ...
    def told(self, port: Port) -> None: ...
    def behind(self, port: Port) -> None: ...
    def caught_up(self, port: Port) -> None: ...

    def gone(self, port: Port, why: str) -> None:
        """It takes nothing more. May be called twice."""


class Port:
    """``gate`` is the newest event that was processed here: nothing of a later one goes to the program."""

    __slots__ = ("_ending", "_limits", "_loop", "_number", "_owner", "_queue", "_socket", "_writing", "backlog", "closed", "explicit",
                 "gate", "group", "inflight", "progress", "reading", "told_event")

    def __init__(self, owner: Owner, sock: socket.socket, number: int, group: str, explicit: bool, limits: Limits) -> None:
        self._owner, self._socket, self._number, self._limits = owner, sock, number, limits
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[int, bytes, Buffer, int]] = deque()
        self._writing = self._ending = False
        self.group, self.explicit = group, explicit
        self.gate = 0
        self.told_event = 0
        "The newest event that the program was told of."
        self.backlog = 0
        "Bytes that wait."
        self.inflight = 0
        "Bytes from the program that were not delivered here yet."
        self.progress = self._loop.time()
        "When the program took something last, or had nothing to take."
        self.reading = False
        self.closed = False
        sock.setblocking(False)
        enlarge(sock, limits.socket)

    @property
    def number(self) -> int:
        return self._number

    def fileno(self) -> int:
        return self._socket.fileno()

    # --- to the program -----------------------------------------------------------------------------------------------

    def deliver(self, gate: int, head: bytes, body: Buffer, event: int = 0) -> None:
        """Hand on, or queue until ``gate`` was processed and the program has taken what is before. ``event``: tells the program of it."""
        if self._ending:
            return
        if not self._queue and gate <= self.gate and self._send(head, body):
            if event:
                self.told_event = event
                self._owner.told(self)
            return
        if self._ending:
            return
        if not self._queue:
            self.progress = self._loop.time()
        self._queue.append((gate, head, body, event))
        self.backlog += len(head) + len(body)
        if self.backlog > self._limits.backlog:
            self.close(f"this program is too slow: {self.backlog} bytes wait for it (limit {self._limits.backlog})")
        elif self.backlog > self._limits.behind:
            self._owner.behind(self)

    def release(self, event: int) -> None:
        """``event`` was processed here."""
        if event > self.gate:
            self.gate = event
            self.progress = self._loop.time()
            self._flush()

    def held(self) -> bool:
        """What waits, waits for an event to be processed, not for the program to read."""
        return bool(self._queue) and self._queue[0][0] > self.gate

    def _flush(self) -> None:
        queue = self._queue
        while queue and queue[0][0] <= self.gate:
            _gate, head, body, event = queue[0]
            if not self._send(head, body):
                return
            queue.popleft()
            self.backlog -= len(head) + len(body)
            self.progress = self._loop.time()
            if event:
                self.told_event = event
                self._owner.told(self)
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._socket)
        if self._ending:
            self._gone("it was told why")
        elif self.backlog <= self._limits.caught_up:
            self._owner.caught_up(self)

    def _send(self, head: bytes, body: Buffer) -> bool:
        """False: the program must read first (or is gone)."""
        try:
            self._socket.sendmsg((head, body), (), socket.MSG_NOSIGNAL)
        except BlockingIOError:
            if not self._writing:
                self._writing = True
                self._loop.add_writer(self._socket, self._flush)
            return False
        except OSError:
            self._gone("the program closed it")
            return False
        return True

    # --- from the program ---------------------------------------------------------------------------------------------

    def read(self, wanted: bool) -> None:
        """Read from the program, or let it wait."""
        if wanted != self.reading and not self._ending:
            self.reading = wanted
            if wanted:
                self._loop.add_reader(self._socket, self._readable)
            else:
                self._loop.remove_reader(self._socket)

    def _readable(self) -> None:
        for _ in range(READS):
            if not self.reading:
                return
            try:
                packet = self._socket.recv(batch.PACKET_MAX + 1)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                packet = b""
            if not packet:
                self._gone("the program closed it")
                return
            try:
                kind = batch.check(packet)
                if kind is Kind.PROCESSED and not self.explicit:
                    raise RemoteError("this channel is not explicit")
            except RemoteError as error:
                self.close(f"a malformed packet: {error}")
                return
            if kind is Kind.PROCESSED:
                self.release(batch.read_processed(packet))
            else:
                self._owner.packet(self, packet)

    # --- the end ------------------------------------------------------------------------------------------------------

    def close(self, reason: str) -> None:
        """End it with a reason. What waits is dropped; the program has ``linger_s`` to read what it already has and the reason."""
        if self._ending:
            return
        self.read(False)
        self._ending = True
        self._queue.clear()
        self.backlog = 0
        closed = batch.pack_closed(reason)
        if self._send(closed, b""):
            self._gone(reason)
        elif not self.closed:
            self._queue.append((0, closed, b"", 0))
            self._loop.call_later(self._limits.linger_s, self._gone, reason)
            self._owner.gone(self, reason)  # for the hub it is gone already

    def hung_up(self) -> None:
        """The program is known to be gone."""
        self._gone("the program is gone")

    def _gone(self, why: str) -> None:
        if self.closed:
            return
        self.closed = self._ending = True
        self._queue.clear()
        self.backlog = 0
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self.reading = self._writing = False
        self._socket.close()
        self._owner.gone(self, why)
