# SPDX-License-Identifier: GPL-2.0-only
"""The framed channel to a guest's agent: u32 header length, u32 blob length, JSON header, blob (little endian)."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

from harness.errors import ChannelClosed, LabTimeout

Frame = tuple[dict[str, Any], bytes]


class FrameReader:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes."""
        self._buffer += data
        frames = []
        while len(self._buffer) >= 8:
            header, blob = struct.unpack_from("<II", self._buffer)
            if len(self._buffer) < 8 + header + blob:
                break
            text = bytes(self._buffer[8 : 8 + header])
            frames.append((json.loads(text), bytes(self._buffer[8 + header : 8 + header + blob])))
            del self._buffer[: 8 + header + blob]
        return frames


def encode(header: dict[str, Any], blob: bytes = b"") -> bytes:
    """One frame."""
    text = json.dumps(header).encode()
    return struct.pack("<II", len(text), len(blob)) + text + blob


class FrameSocket:
    """One end of a channel: a thread hands every frame to `receive` and, at the end, calls `closed`."""

    def __init__(self, sock: socket.socket, name: str, receive: Callable[[dict[str, Any], bytes], None],
                 closed: Callable[[], None] = lambda: None) -> None:
        self._socket = sock
        self._receive = receive
        self._closed = closed
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def send(self, header: dict[str, Any], blob: bytes = b"") -> None:
        """Raises ChannelClosed if the machine is gone."""
        try:
            with self._lock:
                self._socket.sendall(encode(header, blob))
        except OSError as error:
            raise ChannelClosed(f"the machine is gone: {error}") from error

    def _run(self) -> None:
        reader = FrameReader()
        with contextlib.suppress(OSError):
            while data := self._socket.recv(1 << 18):
                for header, blob in reader.feed(data):
                    self._receive(header, blob)
        self._closed()
        self._socket.close()

    def join(self, timeout: float | None = None) -> None:
        """Wait until everything that the machine sent has been handled."""
        self._thread.join(timeout)


class Rpc:
    """Requests to the agent, many at once."""

    def __init__(self, sock: socket.socket, name: str) -> None:
        self._waiting: dict[int, tuple[threading.Event, list[Frame]]] = {}
        self._next = 0
        self._lock = threading.Lock()
        self._gone = False
        self._frames = FrameSocket(sock, f"rpc-{name}", self._answer, self._end)
        self.name = name

    def _answer(self, header: dict[str, Any], blob: bytes) -> None:
        event, slot = self._waiting.pop(header.pop("id"), (None, []))
        slot.append((header, blob))
        if event:
            event.set()

    def _end(self) -> None:
        with self._lock:
            self._gone = True
            for event, _ in self._waiting.values():
                event.set()

    def call(self, op: str, blob: bytes = b"", *, wait: float, **arguments: Any) -> Frame:
        """Ask and wait at most `wait` seconds. Raises ChannelClosed, LabTimeout, or OSError as seen in the guest."""
        event = threading.Event()
        slot: list[Frame] = []
        with self._lock:
            if self._gone:
                raise ChannelClosed(f"{self.name}: the machine is off")
            self._next += 1
            number = self._next
            self._waiting[number] = (event, slot)
        self._frames.send({"id": number, "op": op, **arguments}, blob)
        if not event.wait(wait):
            self._waiting.pop(number, None)
            raise LabTimeout(f"{self.name}: the agent did not answer {op} {arguments.get('command', '')!r} in {wait:.0f} s")
        if not slot:
            raise ChannelClosed(f"{self.name}: the machine went away during {op} {arguments.get('command', '')!r}")
        header, data = slot[0]
        if "error" in header:
            raise OSError(header.get("errno", 0), f"{self.name}: {op} {arguments.get('path', '')}: {header['error']}")
        return header, data
