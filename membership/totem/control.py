# SPDX-License-Identifier: GPL-2.0-only
"""The small messages of failure detection (watch.py, parked.py) and their bytes. Part of the codec in wire.py."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from membership.totem.limits import MEMBERS_MAX
from vcs.errors import RemoteError
from vcs.model import RingId


@dataclass(frozen=True, slots=True)
class Probe:
    """Answer this, whatever you are doing."""

    nonce: int


@dataclass(frozen=True, slots=True)
class ProbeAck:
    nonce: int


@dataclass(frozen=True, slots=True)
class TokenAck:
    """The token of this ring with this number (regular or commit) has arrived."""

    ring: RingId
    token_seq: int


@dataclass(frozen=True, slots=True)
class Alarm:
    """These owe the sender an answer: ask them too. And it asks its receiver, who answers with a ProbeAck."""

    nonce: int
    nodeids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Links:
    """Nodes outside the ring with whom the sender has no round trip: its claims, all of them."""

    nodeids: tuple[int, ...]
    reply: bool = False
    "Tell me yours."


Control = Probe | ProbeAck | TokenAck | Alarm | Links

PROBE, PROBE_ACK, TOKEN_ACK, ALARM, LINKS = 32, 33, 34, 35, 36

_NONCE = struct.Struct(">BQ")  # type, nonce
_ACK = struct.Struct(">BQIQ")  # type, ring, token_seq
_ALARM = struct.Struct(">BQH")  # type, nonce, nodeids
_LINKS = struct.Struct(">BBH")  # type, reply, nodeids


def encode(message: Control) -> bytes:
    match message:
        case Probe():
            return _NONCE.pack(PROBE, message.nonce)
        case ProbeAck():
            return _NONCE.pack(PROBE_ACK, message.nonce)
        case TokenAck():
            return _ACK.pack(TOKEN_ACK, message.ring.seq, message.ring.rep, message.token_seq)
        case Alarm():
            return _ALARM.pack(ALARM, message.nonce, len(message.nodeids)) + _nodeids(message.nodeids)
        case Links():
            return _LINKS.pack(LINKS, message.reply, len(message.nodeids)) + _nodeids(message.nodeids)


def _nodeids(nodeids: tuple[int, ...]) -> bytes:
    return struct.pack(f">{len(nodeids)}I", *nodeids)


def _read_nodeids(body: bytes, at: int, count: int) -> tuple[int, ...]:
    if count > MEMBERS_MAX or len(body) != at + 4 * count:
        raise RemoteError("bad count of nodes")
    nodeids = struct.unpack_from(f">{count}I", body, at)
    if not (all(a < b for a, b in pairwise(nodeids)) and all(nodeids[:1])):
        raise RemoteError("nodes out of order")
    return nodeids


def _nonce(body: bytes) -> int:
    nonce: int = _exactly(_NONCE, body)[1]
    return nonce


def _exactly(layout: struct.Struct, body: bytes) -> tuple[int, ...]:
    if len(body) != layout.size:
        raise RemoteError("bad length")
    return layout.unpack(body)


def _token_ack(body: bytes) -> TokenAck:
    _type, seq, rep, token_seq = _exactly(_ACK, body)
    return TokenAck(RingId(seq, rep), token_seq)


def _alarm(body: bytes) -> Alarm:
    _type, nonce, count = _ALARM.unpack_from(body)
    return Alarm(nonce, _read_nodeids(body, _ALARM.size, count))


def _links(body: bytes) -> Links:
    _type, reply, count = _LINKS.unpack_from(body)
    if reply > 1:
        raise RemoteError("bad flag")
    return Links(_read_nodeids(body, _LINKS.size, count), bool(reply))


DECODERS: dict[int, Callable[[bytes], Control]] = {
    PROBE: lambda body: Probe(_nonce(body)),
    PROBE_ACK: lambda body: ProbeAck(_nonce(body)),
    TOKEN_ACK: _token_ack,
    ALARM: _alarm,
    LINKS: _links,
}
