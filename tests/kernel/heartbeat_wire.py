# SPDX-License-Identifier: GPL-2.0-only
"""The heartbeat's packets a second time, in Python: what docs/heartbeat.md says, not what the module does. And a wire between nodes that
a test can cut, one way or both, and that remembers what went over it."""

from __future__ import annotations

import hashlib
import hmac
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass, replace
from types import TracebackType
from typing import ClassVar, NamedTuple, Self

LOCAL = "127.0.0.1"
LAYOUT = struct.Struct(">IIIIQQQQQII32s")
MAGIC, VERSION = 0x76637362, 1
BYE = 1
MAC_LEN = 32


def own_key(key: bytes, name: str) -> bytes:
    """The key of one cluster."""
    return hmac.digest(key, name.encode(), hashlib.sha256)


@dataclass(frozen=True, slots=True)
class Beat:
    sender: int
    to: int
    boot: int
    life: int
    seq: int
    echo_life: int
    echo_seq: int
    interval_ms: int
    flags: int = 0
    magic: int = MAGIC
    version: int = VERSION

    def pack(self, key: bytes) -> bytes:
        body = LAYOUT.pack(
            self.magic, self.version, self.sender, self.to, self.boot, self.life, self.seq, self.echo_life, self.echo_seq,
            self.interval_ms, self.flags, bytes(MAC_LEN),
        )[:-MAC_LEN]  # fmt: skip
        return body + hmac.digest(key, body, hashlib.sha256)

    @classmethod
    def unpack(cls, data: bytes, key: bytes) -> Beat:
        """Raises ValueError for a wrong MAC."""
        if not hmac.compare_digest(hmac.digest(key, data[:-MAC_LEN], hashlib.sha256), data[-MAC_LEN:]):
            raise ValueError("wrong MAC")
        magic, version, sender, to, boot, life, seq, echo_life, echo_seq, interval_ms, flags, _mac = LAYOUT.unpack(data)
        return cls(sender, to, boot, life, seq, echo_life, echo_seq, interval_ms, flags, magic, version)


class Peer:
    """A node that is this class. It says only what a test tells it to."""

    LIMIT_S: ClassVar[float] = 10.0

    def __init__(self, nodeid: int, to: int, key: bytes, interval_ms: int, life: int, boot: int = 0xB007) -> None:
        self.key = key
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((LOCAL, 0))
        self._socket.settimeout(self.LIMIT_S)
        self.port: int = self._socket.getsockname()[1]
        self.next = Beat(nodeid, to, boot, life, 0, 0, 0, interval_ms)

    def hear(self) -> Beat:
        """The newest beat that has come; waits for one."""
        data = self._socket.recv(4096)
        while select.select([self._socket], [], [], 0)[0]:
            data = self._socket.recv(4096)
        beat = Beat.unpack(data, self.key)
        self.next = replace(self.next, echo_life=beat.life, echo_seq=beat.seq)
        return beat

    def say(self, port: int, **changes: int) -> None:
        """One more beat, with these fields changed for good."""
        self.next = replace(self.next, **{"seq": self.next.seq + 1, **changes})
        self.send(port, self.next.pack(self.key))

    def send(self, port: int, data: bytes) -> None:
        self._socket.sendto(data, (LOCAL, port))

    def close(self) -> None:
        self._socket.close()


class Seen(NamedTuple):
    at: float
    "time.monotonic()."
    data: bytes


class Wire:
    """Carries packets between nodes of this machine: each direction has a port of its own, and can be cut."""

    def __init__(self) -> None:
        self._sockets: dict[tuple[int, int], socket.socket] = {}
        self._to: dict[int, int] = {}
        self._cut: set[tuple[int, int]] = set()
        self._over = False
        self._lock = threading.Lock()
        self.seen: dict[tuple[int, int], list[Seen]] = {}
        "What was delivered, by direction (from, to)."
        self._thread = threading.Thread(target=self._carry)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over = True
        self._thread.join()
        for one in self._sockets.values():
            one.close()

    def way(self, sender: int, to: int, port: int) -> int:
        """The port to which ``sender`` sends what is meant for ``to``, who listens on ``port``."""
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.bind((LOCAL, 0))
        with self._lock:
            self._sockets[sender, to] = one
            self._to[to] = port
            self.seen[sender, to] = []
        return int(one.getsockname()[1])

    def cut(self, *directions: tuple[int, int]) -> float:
        """Returns when: what is delivered was delivered before."""
        with self._lock:
            self._cut.update(directions)
            return time.monotonic()

    def heal(self) -> None:
        with self._lock:
            self._cut.clear()

    def replay(self, sender: int, to: int) -> int:
        """Everything that was ever delivered that way, again; returns how many packets."""
        with self._lock:
            packets = [s.data for s in self.seen[sender, to]]
        for data in packets:
            self._sockets[sender, to].sendto(data, (LOCAL, self._to[to]))
        return len(packets)

    def _carry(self) -> None:
        while not self._over:
            with self._lock:
                ways = {one: way for way, one in self._sockets.items()}
            ready, _, _ = select.select(list(ways), [], [], 0.05) if ways else ([], [], [])
            for one in ready:
                data = one.recv(4096)
                with self._lock:
                    if ways[one] in self._cut:
                        continue
                    self.seen[ways[one]].append(Seen(time.monotonic(), data))
                    one.sendto(data, (LOCAL, self._to[ways[one][1]]))
