# SPDX-License-Identifier: GPL-2.0-only
"""The bytes between dlm_controld's seat and libdlmcontrol (``dlm_tool`` 4.2.0), as facts of its binary interface. Pure.

Everything is in the machine's byte order, and the layouts are those that a C compiler gives the structures on a 64-bit machine:
tests/unit/test_controld_wire.py compares them with ctypes. A request is a header, for some commands with ``len - 96`` more bytes. A reply
is a header with a body, but for the status, which is a row of states without a header, ended by the close of the connection.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

from vcs.errors import RemoteError

SOCKET = "\0dlmc_sock"
"Abstract unix stream socket of commands."
QUERY_SOCKET = "\0dlmc_query_sock"
"The same for questions: one a connection."

MAGIC = 0xD13CD13C
VERSION = 0x00010001
VERSION_MASK = 0xFFFF0000
"Only the major version must agree."
NAME_SIZE = 64
"DLM_LOCKSPACE_LEN: a name of that length has no terminating NUL."
EXTRA_MAX = 1024
"DLMC_RUN_COMMAND_LEN: the longest thing that follows a header."
DUMP_MAX = (1 << 20) - 1
"libdlmcontrol drops a longer dump, and its last byte is made a NUL."
TEXT_MAX = 4095
"Of one state."

HEADER = struct.Struct("=5I3i64s")
STATE = struct.Struct("=2Ii4I")
NODE = struct.Struct("=i3Ii4x2Q")
LOCKSPACE = struct.Struct("=6i2I6i2I2I65s3x")
RUN_CHECK = struct.Struct("=I")


class Command(IntEnum):
    DUMP_DEBUG = 1
    DUMP_PLOCKS = 2
    LOCKSPACE_INFO = 3
    NODE_INFO = 4
    LOCKSPACES = 5
    LOCKSPACE_NODES = 6
    FS_REGISTER = 7
    FS_UNREGISTER = 8
    FS_NOTIFIED = 9
    DEADLOCK_CHECK = 10
    DUMP_LOG_PLOCK = 11
    FENCE_ACK = 12
    DUMP_STATUS = 13
    DUMP_CONFIG = 14
    RUN_START = 15
    RUN_CHECK = 16
    DUMP_RUN = 17
    RELOAD_CONFIG = 18
    SET_CONFIG = 19


class StateType(IntEnum):
    DAEMON = 1
    DAEMON_NODE = 2
    STARTUP_NODE = 3


class NodesOption(IntEnum):
    ALL = 1
    MEMBERS = 2
    NEXT = 3


class NodeFlag(IntFlag):
    NONE = 0
    MEMBER = 1
    START = 2
    DISALLOWED = 4
    NEED_FENCING = 8
    CHECK_FS = 16


class LockspaceFlag(IntFlag):
    NONE = 0
    JOINING = 1
    LEAVING = 2
    KERNEL_STOPPED = 4
    FS_REGISTERED = 8
    NEED_PLOCKS = 16
    SAVE_PLOCKS = 32


class Wait(IntEnum):
    NOTHING = 0
    RINGID = 1
    QUORUM = 2
    FENCING = 3
    FSDONE = 4


class Reason(IntEnum):
    """Why a node went: corosync's numbers, which dlm_tool prints."""

    NONE = 0
    LEAVE = 2
    NODEDOWN = 3


@dataclass(frozen=True, slots=True)
class Request:
    command: int
    option: int = 0
    data: int = 0
    flags: int = 0
    name: str = ""
    extra_len: int = 0
    "Bytes that follow the header."


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a lockspace's members: the completed one, or the one in progress."""

    member_count: int = 0
    joined_count: int = 0
    remove_count: int = 0
    failed_count: int = 0
    wait_condition: int = 0
    "A Wait, or the number of messages waited for."
    wait_messages: bool = False
    seq: int = 0
    combined_seq: int = 0


@dataclass(frozen=True, slots=True)
class Lockspace:
    name: str
    global_id: int
    flags: LockspaceFlag = LockspaceFlag.NONE
    previous: Change = field(default_factory=Change)
    following: Change = field(default_factory=Change)
    "seq 0: there is none."


@dataclass(frozen=True, slots=True)
class Node:
    nodeid: int
    flags: NodeFlag = NodeFlag.NONE
    added_seq: int = 0
    removed_seq: int = 0
    fail_reason: int = 0
    fail_walltime: int = 0
    "Seconds since 1970."
    fail_monotime: int = 0
    "Seconds on the monotonic clock."


def parse_request(data: bytes) -> Request:
    """A header. Raises RemoteError for what is none."""
    if len(data) != HEADER.size:
        raise RemoteError(f"{len(data)} bytes are no header of {HEADER.size}")
    magic, version, command, option, length, number, flags, _unused, name = HEADER.unpack(data)
    if magic != MAGIC:
        raise RemoteError(f"magic {magic:#x}")
    if version & VERSION_MASK != VERSION & VERSION_MASK:
        raise RemoteError(f"version {version:#x}")
    extra = max(0, length - HEADER.size)
    if extra > EXTRA_MAX:
        raise RemoteError(f"{extra} bytes after the header")
    text = name.split(b"\0", 1)[0].decode("utf-8", "replace")
    return Request(command, option, number, flags, text, extra)


def request(command: int, *, option: int = 0, data: int = 0, flags: int = 0, name: str = "", extra: bytes = b"") -> bytes:
    """What a client sends."""
    head = HEADER.pack(MAGIC, VERSION, command, option, HEADER.size + len(extra), data, flags, 0, name.encode()[:NAME_SIZE])
    return head + extra


def reply(command: int, body: bytes = b"", *, result: int = 0, option: int = 0, name: str = "") -> bytes:
    """A header with ``result`` in its data, and the body."""
    length = HEADER.size + len(body)
    return HEADER.pack(MAGIC, VERSION, command, option, length, result, 0, 0, name.encode()[:NAME_SIZE]) + body


def dump(command: int, text: str, *, result: int = 0, name: str = "") -> bytes:
    """A reply whose body is text; of a long one the end, from the beginning of a line."""
    body = text.encode()
    if len(body) > DUMP_MAX:
        body = body[-DUMP_MAX:].partition(b"\n")[2]
    return reply(command, body, result=result, name=name)


def _change(c: Change) -> tuple[int, ...]:
    return (c.member_count, c.joined_count, c.remove_count, c.failed_count, c.wait_condition, int(c.wait_messages), c.seq, c.combined_seq)


def pack_lockspace(ls: Lockspace) -> bytes:
    name = ls.name.encode()[:NAME_SIZE]
    return LOCKSPACE.pack(*_change(ls.previous), *_change(ls.following), int(ls.flags), ls.global_id, name)


def pack_node(node: Node) -> bytes:
    return NODE.pack(
        node.nodeid, int(node.flags), node.added_seq, node.removed_seq, node.fail_reason, node.fail_walltime, node.fail_monotime
    )


def pack_state(kind: StateType, nodeid: int, values: dict[str, object]) -> bytes:
    """One state: a fixed part and ``key=value`` words, each with a blank behind it and a NUL at the end."""
    text = "".join(f"{key}={value} " for key, value in values.items()).encode()[:TEXT_MAX] + b"\0"
    return STATE.pack(kind, 0, nodeid, 0, 0, len(text), 0) + text


def pack_list(command: int, name: str, items: list[bytes], most: int, *, error: int = 0) -> bytes:
    """A list, cut to the ``most`` that the caller has room for: then the result is -E2BIG. ``error``: positive errno instead."""
    if error:
        return reply(command, result=-error, name=name)
    if len(items) > max(0, most):
        return reply(command, b"".join(items[: max(0, most)]), result=-7, name=name)
    return reply(command, b"".join(items), result=len(items), name=name)
