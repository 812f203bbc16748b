# SPDX-License-Identifier: GPL-2.0-only
"""The batch channel's bytes: what goes between a program and its vcsd, and inside the ordered messages between nodes. Pure.

One packet carries many messages, so that the cost of a packet is shared. Integers are little-endian. Between program and vcsd one packet
is one packet of a SOCK_SEQPACKET socket::

    to vcsd     messages   kind 1, flags, count u32, event u64 | lengths | data      event: the newest one that the sender was told
                processed  kind 2, event u64                                          its messages may come (explicit channels only)
                hello      kind 5, flags, group                                       the first one, where no call opened the channel
    from vcsd   messages   kind 1, sender u32, event u64, first sequence u64 | the sender's packet as it was
                event      kind 3, count u32, event u64 | nodeids
                closed     kind 4, reason

Lengths are u32 for each message, or (flag UNIFORM) one u32 for all. Between nodes a *bundle* is a head, the group's name, and the packet::

    bundle      magic, version, what, length of the name, channel u32, ring sequence u64 | group | body

``unpack`` and the others accept exactly what their counterparts make; everything else is a RemoteError.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from itertools import accumulate, chain, pairwise
from typing import NamedTuple

from vcs.errors import RemoteError
from vcs.model import MEMBERS_MAX, NAME_MAX

PACKET_MAX = 61_000
"Longest packet from a program in bytes; with the heads above it a bundle still fits one frame of the engine totem (61,440)."
COUNT_MAX = 1 << 16
"Messages in one packet."
REASON_MAX = 1000
"Longest reason of a closed channel in bytes."


class Kind(IntEnum):
    MESSAGES = 1
    PROCESSED = 2
    EVENT = 3
    CLOSED = 4
    HELLO = 5


UNIFORM = 1
"Flag: all messages have one length."
EXPLICIT = 1
"Flag of a hello: the program says itself when it has processed an event."

_MESSAGES = struct.Struct("<BBxxIQ")  # kind, flags, count, event
_LENGTH = struct.Struct("<I")
_ONE = struct.Struct("<BBxxIQI")  # a head and the one length
_PROCESSED = struct.Struct("<BxxxxxxxQ")  # kind, event
_DELIVERY = struct.Struct("<BxxxIQQ")  # kind, sender, event, sequence of the first message
_EVENT = struct.Struct("<BxxxIQ")  # kind, count, event
_BUNDLE = struct.Struct("<BBBBIQ")  # magic, version, what, length of the name, channel, ring sequence

HEAD = _MESSAGES.size
DELIVERY_HEAD = _DELIVERY.size
MESSAGE_MAX = PACKET_MAX - HEAD - _LENGTH.size
"Longest message in bytes."
DELIVERY_MAX = DELIVERY_HEAD + PACKET_MAX
MAGIC = 0xB5
"First byte of a bundle; the coordinator's messages are JSON and begin with a brace."
VERSION = 1

Buffer = bytes | memoryview


class Batch(NamedTuple):
    """Messages of one sender, next to each other in the group's order. Message ``i`` has the sequence ``seq + i``."""

    event: int
    "The group's event that was in force at this place of the order, the same at every member."
    seq: int
    "Of the first message: counted from 1 in each event, the same at every member."
    sender: int
    "Nodeid."
    sent: int
    "The newest event that the sender had been told of: ``event``, or an older one."
    messages: list[bytes]


class Event(NamedTuple):
    """From here on messages are of ``event``, which runs on ``members`` (nodeids)."""

    event: int
    members: tuple[int, ...]


class Closed(NamedTuple):
    reason: str


# --- from a program ---------------------------------------------------------------------------------------------------


def pack(event: int, messages: Sequence[bytes]) -> bytes:
    """A packet of messages. The caller sees to the limits."""
    if len(messages) == 1:
        return _ONE.pack(Kind.MESSAGES, UNIFORM, 1, event, len(messages[0])) + messages[0]
    sizes = list(map(len, messages))
    count = len(sizes)
    if sizes.count(sizes[0]) == count:
        return b"".join([_MESSAGES.pack(Kind.MESSAGES, UNIFORM, count, event), _LENGTH.pack(sizes[0]), *messages])
    return b"".join([_MESSAGES.pack(Kind.MESSAGES, 0, count, event), struct.pack(f"<{count}I", *sizes), *messages])


def pack_processed(event: int) -> bytes:
    return _PROCESSED.pack(Kind.PROCESSED, event)


def pack_hello(group: str, explicit: bool) -> bytes:
    return bytes((Kind.HELLO, EXPLICIT if explicit else 0)) + group.encode()


def read_hello(packet: bytes) -> tuple[str, bool]:
    """(group, whether explicit). Raises RemoteError."""
    if len(packet) < 3 or packet[0] != Kind.HELLO or packet[1] > EXPLICIT or len(packet) > 2 + NAME_MAX:
        raise RemoteError("a hello was expected")
    try:
        return packet[2:].decode(), packet[1] == EXPLICIT
    except UnicodeDecodeError:
        raise RemoteError("the name of the group is no UTF-8") from None


def check(packet: bytes) -> Kind:
    """The kind of a program's packet, after a look at all of its lengths. Raises RemoteError."""
    if not packet:
        raise RemoteError("an empty packet")
    if packet[0] == Kind.PROCESSED and len(packet) == _PROCESSED.size:
        return Kind.PROCESSED
    if packet[0] != Kind.MESSAGES or not HEAD < len(packet) <= PACKET_MAX:
        raise RemoteError(f"a packet of kind {packet[0]} and {len(packet)} bytes")
    _sizes(packet, 0)
    return Kind.MESSAGES


def read_processed(packet: bytes) -> int:
    event: int = _PROCESSED.unpack(packet)[1]
    return event


def _sizes(packet: Buffer, at: int) -> tuple[int, int, list[int] | int, int]:
    """(count, event, lengths or the one length, where the data begins) of the messages' packet at ``at``."""
    try:
        kind, flags, count, event = _MESSAGES.unpack_from(packet, at)
        if kind != Kind.MESSAGES or flags > UNIFORM or not 0 < count <= COUNT_MAX:
            raise RemoteError("no messages")
        at += HEAD
        if flags:
            size: int = _LENGTH.unpack_from(packet, at)[0]
            if size * count != len(packet) - at - _LENGTH.size:
                raise RemoteError("lengths and data differ")
            return count, event, size, at + _LENGTH.size
        sizes = struct.unpack_from(f"<{count}I", packet, at)
    except struct.error as error:
        raise RemoteError(f"truncated: {error}") from None
    at += count * _LENGTH.size
    if sum(sizes) != len(packet) - at:
        raise RemoteError("lengths and data differ")
    return count, event, list(sizes), at


# --- to a program -----------------------------------------------------------------------------------------------------


def delivery_head(sender: int, event: int, seq: int) -> bytes:
    """What stands before a sender's packet on its way to a program."""
    return _DELIVERY.pack(Kind.MESSAGES, sender, event, seq)


def pack_event(event: int, members: Sequence[int]) -> bytes:
    return _EVENT.pack(Kind.EVENT, len(members), event) + struct.pack(f"<{len(members)}I", *members)


def pack_closed(reason: str) -> bytes:
    return bytes((Kind.CLOSED,)) + reason.encode()[:REASON_MAX]


def unpack(packet: bytes) -> Batch | Event | Closed:
    """What vcsd sent. Raises RemoteError."""
    try:
        if packet[0] == Kind.MESSAGES:
            _kind, sender, event, seq = _DELIVERY.unpack_from(packet)
            _count, sent, sizes, at = _sizes(packet, DELIVERY_HEAD)
            return Batch(event, seq, sender, sent, _split(packet, at, sizes))
        if packet[0] == Kind.EVENT:
            _kind, count, event = _EVENT.unpack_from(packet)
            if count > MEMBERS_MAX or len(packet) != _EVENT.size + 4 * count:
                raise RemoteError("lengths and data differ")
            return Event(event, struct.unpack_from(f"<{count}I", packet, _EVENT.size))
        if packet[0] == Kind.CLOSED:
            return Closed(packet[1:].decode("utf-8", "replace"))
    except (struct.error, IndexError) as error:
        raise RemoteError(f"truncated: {error}") from None
    raise RemoteError(f"a packet of kind {packet[0]}")


def _split(packet: bytes, at: int, sizes: list[int] | int) -> list[bytes]:
    if isinstance(sizes, list):
        return [packet[a:b] for a, b in pairwise(accumulate(sizes, initial=at))]
    if not sizes:
        return [b""] * _MESSAGES.unpack_from(packet, DELIVERY_HEAD)[2]
    return list(chain.from_iterable(struct.iter_unpack(f"{sizes}s", memoryview(packet)[at:])))


# --- between nodes ----------------------------------------------------------------------------------------------------


class What(IntEnum):
    MESSAGES = 1
    "A program's packet."
    SYNC = 2
    "Where the sender stood in the group's order when the ring began."
    PAUSE = 3
    "The sender's programs are behind (1) or have caught up (0): nobody hands in more messages while one is behind."


class Bundle(NamedTuple):
    what: What
    group: str
    channel: int
    "Which channel of the sending node; 0: the node itself."
    ring_seq: int
    "The ring in which it counts. Delivered in another one it is void, and its sender repeats it."
    body: Buffer


class Position(NamedTuple):
    """How far a node has come in a group's order, and with whom."""

    event: int
    seq: int
    "Messages of the event so far."
    companions: int
    "Members of the group that came along into the new ring."
    lowest: int
    "Lowest nodeid among them."
    digest: bytes
    "Of the places of all bundles since the last sync: 16 bytes."


_POSITION = struct.Struct("<QQII16s")


def bundle_head(what: What, group: bytes, channel: int, ring_seq: int) -> bytes:
    return _BUNDLE.pack(MAGIC, VERSION, what, len(group), channel, ring_seq) + group


def is_bundle(payload: Buffer) -> bool:
    return bool(payload) and payload[0] == MAGIC


def read_bundle(payload: bytes) -> Bundle:
    """The body is a view, no copy. Raises RemoteError."""
    try:
        _magic, version, what, length, channel, ring_seq = _BUNDLE.unpack_from(payload)
        at = _BUNDLE.size + length
        if version != VERSION or len(payload) < at:
            raise RemoteError(f"a bundle of version {version}")
        return Bundle(What(what), payload[_BUNDLE.size : at].decode(), channel, ring_seq, memoryview(payload)[at:])
    except (struct.error, ValueError) as error:
        raise RemoteError(f"no bundle: {error}") from None


def count_of(body: Buffer) -> int:
    """Messages in a bundle's packet, by its head alone: every member reads the same. Raises RemoteError."""
    if len(body) < HEAD or body[0] != Kind.MESSAGES:
        raise RemoteError("no messages")
    count: int = _MESSAGES.unpack_from(body)[2]
    if not 0 < count <= COUNT_MAX:
        raise RemoteError("no messages")
    return count


def pack_position(position: Position) -> bytes:
    return _POSITION.pack(*position)


def read_position(body: Buffer) -> Position:
    """Raises RemoteError."""
    if len(body) != _POSITION.size:
        raise RemoteError("no position")
    return Position(*_POSITION.unpack(body))
