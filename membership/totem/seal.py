# SPDX-License-Identifier: GPL-2.0-only
"""The frame: a header in clear, the body sealed. One AEAD call per frame.

    magic u16 | version u8 | key id u8 | cluster u64 | nodeid u32 | boot u64 | engine u64 | counter u64 | sealed body and tag

The whole header is the additional authenticated data. Each engine process has its own key, derived from the cluster's key and its
identity (nodeid, both incarnations), and numbers its frames from 1: the pair (key, nonce) is never used twice as long as an engine
incarnation is not, whatever is lost or restored (NIST SP 800-38D, 8.2.1). Replay is judged by peers.py, after the seal.

Several cluster keys may be good at a time, while they are rotated: the first one seals, all open, and the key id, which is made from
the key, says which one it was. One counter serves all keys, so a frame is new or a copy whatever key it came under.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Protocol

from membership.api import Processor
from membership.totem.limits import AEAD_CACHE_MAX
from vcs.errors import ConfigError, RemoteError

MAGIC = 0x5643
VERSION = 2
HEADER = struct.Struct(">HBBQIQQQ")
TAG_SIZE = 16
COUNTER_LAST = (1 << 64) - 1
_COUNTER_AT = 32
_IDENTITY = slice(3, 32)
"Where key id, cluster, nodeid, boot and engine stand in the header: what the sender's own key depends on, and the cluster."
_NONCE_PREFIX = bytes(4)
_MAGIC_VERSION = struct.pack(">HB", MAGIC, VERSION)


class FrameError(RemoteError):
    """A frame that cannot be opened; ``reason`` is the name of the counter."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"frame refused: {reason}")
        self.reason = reason


class Aead(Protocol):
    """An authenticated cipher with one sender's key. ``decrypt`` raises the ``invalid`` of the suite that made it."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes: ...

    def decrypt(self, nonce: bytes, data: bytes | memoryview, associated_data: bytes, /) -> bytes: ...


class Suite(Protocol):
    """Makes the ciphers of the processors from the cluster's key (aes.py; the simulator has a cheaper one)."""

    @property
    def invalid(self) -> type[Exception]:
        """What ``decrypt`` raises for what it refuses."""

    @property
    def key_id(self) -> int:
        """0 to 255, made from the key."""

    def __call__(self, processor: Processor, /) -> Aead: ...


def cluster_id(name: str) -> int:
    """What tells two clusters on one network apart before any key is tried."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


class Sealer:
    """Seals this processor's frames and opens others'."""

    def __init__(self, cluster: str, local: Processor, *suites: Suite) -> None:
        """The first of ``suites`` seals, all open."""
        self._cluster = cluster_id(cluster)
        self._local = local
        self._counter = 0
        self._cache: dict[bytes, tuple[Processor, Aead, type[Exception]]] = {}
        self.rekey(*suites)

    def rekey(self, *suites: Suite) -> None:
        """Other keys from now on. Raises ConfigError if there is none or two of them have one id."""
        by_id = {suite.key_id: suite for suite in suites}
        if not suites or len(by_id) != len(suites):
            raise ConfigError(["two cluster keys share an id (this happens to one pair in 256); make another with `vcs keygen`"
                               if suites else "there is no cluster key; make one with `vcs keygen`"])
        self._suites = by_id
        self._own = suites[0](self._local)
        p = self._local
        self._head = HEADER.pack(MAGIC, VERSION, suites[0].key_id, self._cluster, p.nodeid, p.boot, p.engine, 0)[:_COUNTER_AT]
        self._last: bytes | None = None
        self._cache = {name: known for name, known in self._cache.items() if name[0] in by_id}

    def seal(self, body: bytes) -> bytes:
        self._counter = counter = self._counter + 1
        number = counter.to_bytes(8, "big")
        header = self._head + number
        return header + self._own.encrypt(_NONCE_PREFIX + number, body, header)

    def seal_last(self, body: bytes) -> bytes:
        """A frame with the highest counter there is: after it, no other frame of this processor is taken (each receiver's replay
        window ends there). Under one key the counter is used for one body only, else a nonce would be used twice: the first call
        decides it."""
        if self._last is None:
            number = COUNTER_LAST.to_bytes(8, "big")
            header = self._head + number
            self._last = header + self._own.encrypt(_NONCE_PREFIX + number, body, header)
        return self._last

    def open(self, frame: bytes | memoryview) -> tuple[Processor, int, bytes]:
        """(sender, counter, body). Raises FrameError with the reason: short, magic, version, key, cluster, identity, seal."""
        if len(frame) < HEADER.size + TAG_SIZE:
            raise FrameError("short")
        header = bytes(frame[:HEADER.size])
        name = header[_IDENTITY]
        known = self._cache.get(name)
        # A known name is of our cluster, and under a key that is good.
        if known is None or header[:3] != _MAGIC_VERSION:
            known = self._introduce(header)
        number = header[_COUNTER_AT:]
        sender, aead, invalid = known
        try:
            body = aead.decrypt(_NONCE_PREFIX + number, frame[HEADER.size:], header)
        except invalid:
            raise FrameError("seal") from None
        if name not in self._cache:
            # Only what was opened once is remembered, so garbage cannot push out a peer's key.
            if len(self._cache) >= AEAD_CACHE_MAX:
                del self._cache[next(iter(self._cache))]
            self._cache[name] = known
        return sender, int.from_bytes(number, "big"), body

    def _introduce(self, header: bytes) -> tuple[Processor, Aead, type[Exception]]:
        """The cipher of a sender that is not in the cache."""
        magic, version, key_id, cluster, nodeid, boot, engine, _counter = HEADER.unpack(header)
        if magic != MAGIC:
            raise FrameError("magic")
        if version != VERSION:
            raise FrameError("version")
        if cluster != self._cluster:
            raise FrameError("cluster")
        suite = self._suites.get(key_id)
        if suite is None:
            raise FrameError("key")
        if not (nodeid and boot and engine):
            raise FrameError("identity")
        sender = Processor(nodeid, boot, engine)
        return sender, suite(sender), suite.invalid
