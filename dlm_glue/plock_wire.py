# SPDX-License-Identifier: GPL-2.0-only
"""POSIX locks as bytes: the kernel's record (struct dlm_plock_info, native order) and the messages between nodes. Pure.

Messages go over the batch channel of the lockspace's group, so each has a place (event, sequence) in one order. What a peer sent is read
by ``unpack``, which raises RemoteError for everything that ``pack_*`` does not make. Little-endian between nodes.
"""

from __future__ import annotations

import json
import struct
import zlib
from enum import IntEnum
from typing import Any, NamedTuple

from dlm_glue.plock_ranges import Lock
from vcs.errors import RemoteError

RECORD = struct.Struct("=3I4BIiiI4Q")
"version[3], op, ex, wait, flags, pid, nodeid, rv, fsid, number, start, end, owner"
REQUEST = struct.Struct("=12x2BxBI4xiI4Q")
"Of the same record what a request is judged by: op, ex, flags, pid, rv, fsid, number, start, end, owner."
SIZE = RECORD.size
VERSION = (1, 2, 0)
FL_CLOSE = 1
"Flag of an unlock: the kernel lets go because a file was closed, and waits for no answer."


class Verb(IntEnum):
    LOCK = 1
    UNLOCK = 2
    GET = 3
    CANCEL = 4


class Op(NamedTuple):
    """What one caller wants."""

    verb: int
    ex: int
    wait: int
    flags: int
    pid: int
    number: int
    start: int
    end: int
    owner: int

    def lock(self, node: int) -> Lock:
        return Lock(node, self.owner, self.pid, bool(self.ex), self.start, self.end)


def read_record(record: bytes | memoryview) -> tuple[int, Op]:
    """(fsid, what is wanted) of a record that the kernel wrote."""
    _a, _b, _c, verb, ex, wait, flags, pid, _node, _rv, fsid, number, start, end, owner = RECORD.unpack(record)
    return fsid, Op(verb, ex, wait, flags, pid, number, start, end, owner)


def answer(fsid: int, op: Op, rv: int, holder: Lock | None, me: int) -> bytes:
    """The record that answers ``op``. ``holder``: who stands in the way of a GET."""
    verb, ex, wait, flags, pid, number, start, end, owner = op
    node = me
    if holder is not None:
        node, _owner, pid, held_ex, start, end = holder
        ex = int(held_ex)
    return RECORD.pack(*VERSION, verb, ex, wait, flags, pid, node, rv, fsid, number, start, end, owner)


# --- between nodes ------------------------------------------------------------------------------------------------------------------------


class Kind(IntEnum):
    OP = 1
    SYNC = 2
    "The node that alone used a file tells all what it has of it, since another one uses it now."
    RELEASE = 3
    "The same node needs the file no more."
    CONFIRM = 4
    "A node that was given a file for itself knows it: the others may forget its contents."
    DROP = 5
    "A file that several used is idle."
    HELLO = 6
    "A node has opened its channel and needs the state."
    BEGIN = 7
    DATA = 8
    END = 9
    "The state, from here; pieces of it; all of it."
    READY = 10
    "A node has the state."


class Message(NamedTuple):
    kind: Kind
    values: tuple[int, ...]
    body: bytes


_VALUES: dict[Kind, struct.Struct] = {
    Kind.OP: struct.Struct("<QQQ4BIQQQQ"),  # order, ticket, results seen | an Op
    Kind.SYNC: struct.Struct("<QQ"),  # number, epoch | contents
    Kind.RELEASE: struct.Struct("<QQ"),  # number, epoch
    Kind.CONFIRM: struct.Struct("<QQ"),  # number, epoch
    Kind.DROP: struct.Struct("<QQ"),  # number, uses
    Kind.HELLO: struct.Struct("<BBQQ"),  # has no state at all, is a reply | its state goes up to event, sequence
    Kind.BEGIN: struct.Struct("<"),
    Kind.DATA: struct.Struct("<"),
    Kind.END: struct.Struct("<"),
    Kind.READY: struct.Struct("<"),
}
_BODY = frozenset({Kind.SYNC, Kind.DATA})
_VERBS = frozenset(Verb)


def pack(kind: Kind, *values: int, body: bytes = b"") -> bytes:
    return bytes((kind,)) + _VALUES[kind].pack(*values) + body


def unpack(message: bytes) -> Message:
    """Raises RemoteError."""
    try:
        kind = Kind(message[0])
        head = _VALUES[kind]
        values = head.unpack_from(message, 1)
    except (IndexError, ValueError, struct.error) as error:
        raise RemoteError(f"no message of the plock protocol: {error}") from None
    body = message[1 + head.size :]
    if body and kind not in _BODY:
        raise RemoteError(f"{len(body)} bytes too many after a {kind.name}")
    if kind is Kind.OP and values[3] not in _VERBS:
        raise RemoteError(f"an operation {values[3]}")
    return Message(kind, values, body)


def pack_tree(tree: object) -> bytes:
    """Contents of files, compressed."""
    return zlib.compress(json.dumps(tree, separators=(",", ":")).encode(), 1)


def unpack_tree(data: bytes) -> Any:
    """Raises RemoteError."""
    try:
        return json.loads(zlib.decompress(data))
    except (zlib.error, ValueError) as error:
        raise RemoteError(f"no contents: {error}") from None
