# SPDX-License-Identifier: GPL-2.0-only
"""The frame: a header in clear, the body sealed. One AEAD call per frame.

    magic u16 | version u8 | 0 u8 | cluster u64 | nodeid u32 | boot u64 | engine u64 | counter u64 | sealed body and tag

The whole header is the additional authenticated data. Each engine process has its own key, derived from the cluster's key and its
identity (nodeid, both incarnations), and numbers its frames from 1: the pair (key, nonce) is never used twice as long as an engine
incarnation is not, whatever is lost or restored (NIST SP 800-38D, 8.2.1). Replay is judged by peers.py, after the seal.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Protocol

from membership.api import Processor
from membership.totem.limits import AEAD_CACHE_MAX
from vcs.errors import RemoteError

MAGIC = 0x5643
VERSION = 2
HEADER = struct.Struct(">HBBQIQQQ")
TAG_SIZE = 16
COUNTER_LAST = (1 << 64) - 1
_IDENTITY = slice(12, 32)
"Where nodeid, boot and engine stand in the header."
_NONCE_PREFIX = bytes(4)


class FrameError(RemoteError):
    """A frame that cannot be opened; ``reason`` is the name of the counter."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"frame refused: {reason}")
        self.reason = reason


class Aead(Protocol):
    """An authenticated cipher with one sender's key. ``decrypt`` raises the ``invalid`` of the suite that made it."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes: ...

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes: ...


class Suite(Protocol):
    """Makes the ciphers of the processors from the cluster's key (aes.py; the simulator has a cheaper one)."""

    @property
    def invalid(self) -> type[Exception]:
        """What ``decrypt`` raises for what it refuses."""

    def __call__(self, processor: Processor, /) -> Aead: ...


def cluster_id(name: str) -> int:
    """What tells two clusters on one network apart before any key is tried."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


class Sealer:
    """Seals this processor's frames and opens others'."""

    def __init__(self, cluster: str, local: Processor, derive: Suite) -> None:
        self._cluster = cluster_id(cluster)
        self._local = local
        self._derive = derive
        self._own = derive(local)
        self._counter = 0
        self._last: bytes | None = None
        self._cache: dict[bytes, tuple[Processor, Aead]] = {}

    def seal(self, body: bytes) -> bytes:
        self._counter = counter = self._counter + 1
        p = self._local
        header = HEADER.pack(MAGIC, VERSION, 0, self._cluster, p.nodeid, p.boot, p.engine, counter)
        return header + self._own.encrypt(_NONCE_PREFIX + header[32:40], body, header)

    def seal_last(self, body: bytes) -> bytes:
        """A frame with the highest counter there is: after it, no other frame of this processor is taken (each receiver's replay
        window ends there). Its counter is used for one body only, else a nonce would be used twice: the first call decides it."""
        if self._last is None:
            p = self._local
            header = HEADER.pack(MAGIC, VERSION, 0, self._cluster, p.nodeid, p.boot, p.engine, COUNTER_LAST)
            self._last = header + self._own.encrypt(_NONCE_PREFIX + header[32:40], body, header)
        return self._last

    def open(self, frame: bytes) -> tuple[Processor, int, bytes]:
        """(sender, counter, body). Raises FrameError with the reason: short, magic, version, cluster, identity, seal."""
        if len(frame) < HEADER.size + TAG_SIZE:
            raise FrameError("short")
        header = frame[:HEADER.size]
        magic, version, zero, cluster, nodeid, boot, engine, counter = HEADER.unpack(header)
        if magic != MAGIC or zero:
            raise FrameError("magic")
        if version != VERSION:
            raise FrameError("version")
        if cluster != self._cluster:
            raise FrameError("cluster")
        key = header[_IDENTITY]
        known = self._cache.get(key)
        if known is None:
            if not (nodeid and boot and engine):
                raise FrameError("identity")
            sender = Processor(nodeid, boot, engine)
            known = (sender, self._derive(sender))
        try:
            body = known[1].decrypt(_NONCE_PREFIX + header[32:40], frame[HEADER.size:], header)
        except self._derive.invalid:
            raise FrameError("seal") from None
        if key not in self._cache:
            # Only what was opened once is remembered, so garbage cannot push out a peer's key.
            if len(self._cache) >= AEAD_CACHE_MAX:
                del self._cache[next(iter(self._cache))]
            self._cache[key] = known
        return known[0], counter, body
