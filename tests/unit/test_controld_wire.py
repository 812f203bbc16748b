# SPDX-License-Identifier: GPL-2.0-only
"""The bytes of dlm_controld's protocol against the layouts that a C compiler gives its structures."""

from __future__ import annotations

import ctypes as c
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm_glue import controld_wire as wire
from dlm_glue.controld_wire import Change, Lockspace, LockspaceFlag, Node, NodeFlag, StateType
from vcs.errors import RemoteError

U32 = st.integers(0, 2**32 - 1)
S32 = st.integers(-(2**31), 2**31 - 1)
U64 = st.integers(0, 2**64 - 1)


class CHeader(c.Structure):
    _fields_ = [
        ("magic", c.c_uint), ("version", c.c_uint), ("command", c.c_uint), ("option", c.c_uint), ("len", c.c_uint), ("data", c.c_int),
        ("flags", c.c_int), ("unused", c.c_int), ("name", c.c_char * 64),
    ]  # fmt: skip


class CState(c.Structure):
    _fields_ = [
        ("type", c.c_uint32), ("flags", c.c_uint32), ("nodeid", c.c_int32), ("data32", c.c_uint32), ("data64", c.c_uint32),
        ("str_len", c.c_uint32), ("bin_len", c.c_uint32),
    ]  # fmt: skip


class CNode(c.Structure):
    _fields_ = [
        ("nodeid", c.c_int), ("flags", c.c_uint32), ("added_seq", c.c_uint32), ("removed_seq", c.c_uint32), ("fail_reason", c.c_int),
        ("fail_walltime", c.c_uint64), ("fail_monotime", c.c_uint64),
    ]  # fmt: skip


class CChange(c.Structure):
    _fields_ = [
        ("member_count", c.c_int), ("joined_count", c.c_int), ("remove_count", c.c_int), ("failed_count", c.c_int),
        ("wait_condition", c.c_int), ("wait_messages", c.c_int), ("seq", c.c_uint32), ("combined_seq", c.c_uint32),
    ]  # fmt: skip


class CLockspace(c.Structure):
    _fields_ = [
        ("cg_prev", CChange), ("cg_next", CChange), ("flags", c.c_uint32), ("global_id", c.c_uint32), ("name", c.c_char * 65),
    ]  # fmt: skip


def values(structure: Any) -> dict[str, Any]:
    return {name: getattr(structure, name) for name, _ in structure._fields_}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(wire.HEADER, CHeader), (wire.STATE, CState), (wire.NODE, CNode), (wire.LOCKSPACE, CLockspace), (wire.RUN_CHECK, c.c_uint32)],
)
def test_sizes(ours: Any, theirs: Any) -> None:
    assert ours.size == c.sizeof(theirs)


def test_the_sizes_that_the_library_was_seen_to_use() -> None:
    assert (wire.HEADER.size, wire.STATE.size, wire.NODE.size, wire.LOCKSPACE.size) == (96, 28, 40, 140)


@given(U32, U32, S32, S32, st.binary(max_size=64), st.integers(0, wire.EXTRA_MAX))
def test_a_request_is_read_as_the_compiler_laid_it_out(command: int, option: int, data: int, flags: int, name: bytes, extra: int) -> None:
    h = CHeader(wire.MAGIC, wire.VERSION, command, option, 96 + extra, data, flags, 0, name.replace(b"\0", b""))
    r = wire.parse_request(bytes(h))
    assert (r.command, r.option, r.data, r.flags, r.extra_len) == (command, option, data, flags, extra)
    assert r.name == bytes(h.name).decode("utf-8", "replace")


@given(U32, U32, S32, S32, st.text("abcäz-_.", max_size=20), st.binary(max_size=wire.EXTRA_MAX))
def test_a_request_comes_back(command: int, option: int, data: int, flags: int, name: str, extra: bytes) -> None:
    data_ = wire.request(command, option=option, data=data, flags=flags, name=name, extra=extra)
    r = wire.parse_request(data_[:96])
    assert r == wire.Request(command, option, data, flags, name, len(extra))
    assert data_[96:] == extra


@given(st.binary(max_size=200))
def test_anything_is_a_request_or_a_remote_error(data: bytes) -> None:
    try:
        wire.parse_request(data)
    except RemoteError:
        return
    assert len(data) == 96 and data[:4] == wire.MAGIC.to_bytes(4, "little")


@pytest.mark.parametrize(
    "head",
    [
        CHeader(wire.MAGIC + 1, wire.VERSION, 5, 0, 96),
        CHeader(wire.MAGIC, 0x00020001, 5, 0, 96),
        CHeader(wire.MAGIC, wire.VERSION, 5, 0, 96 + wire.EXTRA_MAX + 1),
    ],
)
def test_what_is_refused(head: CHeader) -> None:
    with pytest.raises(RemoteError):
        wire.parse_request(bytes(head))


def test_a_minor_version_does_not_matter() -> None:
    assert wire.parse_request(bytes(CHeader(wire.MAGIC, 0x0001FFFF, 5, 0, 96))).command == 5


@given(st.builds(Node, S32, st.sampled_from(list(NodeFlag)), U32, U32, S32, U64, U64))
def test_a_node(node: Node) -> None:
    got = values(CNode.from_buffer_copy(wire.pack_node(node)))
    assert got == {
        "nodeid": node.nodeid, "flags": int(node.flags), "added_seq": node.added_seq, "removed_seq": node.removed_seq,
        "fail_reason": node.fail_reason, "fail_walltime": node.fail_walltime, "fail_monotime": node.fail_monotime,
    }  # fmt: skip


CHANGES = st.builds(Change, S32, S32, S32, S32, S32, st.booleans(), U32, U32)


@given(st.text("xyz-0é", max_size=80), U32, st.sampled_from(list(LockspaceFlag)), CHANGES, CHANGES)
def test_a_lockspace(name: str, global_id: int, flags: LockspaceFlag, before: Change, after: Change) -> None:
    got = CLockspace.from_buffer_copy(wire.pack_lockspace(Lockspace(name, global_id, flags, before, after)))
    assert (got.flags, got.global_id, got.name) == (int(flags), global_id, name.encode()[:64])
    for theirs, ours in ((got.cg_prev, before), (got.cg_next, after)):
        assert values(theirs) == {
            "member_count": ours.member_count, "joined_count": ours.joined_count, "remove_count": ours.remove_count,
            "failed_count": ours.failed_count, "wait_condition": ours.wait_condition, "wait_messages": int(ours.wait_messages),
            "seq": ours.seq, "combined_seq": ours.combined_seq,
        }  # fmt: skip


def test_a_state_has_its_text_behind_it() -> None:
    data = wire.pack_state(StateType.DAEMON_NODE, 3, {"member": 1, "left_reason": "leave"})
    state = CState.from_buffer_copy(data)
    assert (state.type, state.nodeid, state.bin_len) == (2, 3, 0)
    assert data[28:] == b"member=1 left_reason=leave \0" and state.str_len == len(data) - 28


@given(st.lists(st.binary(min_size=4, max_size=4), max_size=6), st.integers(-3, 8))
def test_a_list_is_cut_to_what_the_caller_has_room_for(items: list[bytes], most: int) -> None:
    data = wire.pack_list(5, "x", items, most)
    head = CHeader.from_buffer_copy(data)
    assert head.len == len(data)
    fits = len(items) <= max(0, most)
    assert head.data == (len(items) if fits else -7)
    assert data[96:] == b"".join(items[: max(0, most)])


def test_a_long_dump_keeps_its_end() -> None:
    text = "".join(f"{i:07d}\n" for i in range(200_000))
    data = wire.dump(1, text)
    assert len(data) - 96 <= wire.DUMP_MAX
    assert data.endswith(b"0199999\n") and len(data[96:].split(b"\n", 1)[0]) == 7
