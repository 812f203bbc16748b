# SPDX-License-Identifier: GPL-2.0-only
"""Ranges of POSIX locks against a model that knows every byte; the kernel's record; messages that a peer made up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm_glue.plock_entry import NO_ANSWER, Entry, Mode, entry_tree, execute, tree_entry
from dlm_glue.plock_ranges import END_MAX, File, Lock
from dlm_glue.plock_wire import RECORD, SIZE, VERSION, Kind, Op, answer, pack, pack_tree, read_record, unpack, unpack_tree
from tests.fakes.plock import cancel, get, lock, unlock
from vcs.errors import RemoteError

BYTES = 8
OWNERS = st.tuples(st.integers(1, 2), st.integers(1, 2))
STEPS = st.lists(
    st.tuples(OWNERS, st.sampled_from(["lock", "unlock", "try", "close", "cancel"]), st.booleans(), st.integers(0, 7), st.integers(0, 7))
)
Owner = tuple[int, int]


class ByteModel:
    """Who holds each byte and how; who waits for what, in order."""

    def __init__(self) -> None:
        self.held: dict[tuple[int, Owner], bool] = {}
        self.waiting: list[tuple[int, Owner, bool, int, int]] = []

    def free(self, owner: Owner, ex: bool, start: int, end: int) -> bool:
        return not any(start <= byte <= end and who != owner and (ex or held) for (byte, who), held in self.held.items())

    def take(self, owner: Owner, ex: bool, start: int, end: int) -> None:
        for byte in range(start, end + 1):
            self.held[byte, owner] = ex

    def release(self, owner: Owner, start: int, end: int) -> None:
        for byte in range(start, end + 1):
            self.held.pop((byte, owner), None)

    def grant(self) -> list[int]:
        granted: list[int] = []
        while True:
            before = len(granted)
            for waiter in list(self.waiting):
                ticket, owner, ex, start, end = waiter
                if self.free(owner, ex, start, end):
                    self.take(owner, ex, start, end)
                    self.waiting.remove(waiter)
                    granted.append(ticket)
            if len(granted) == before:
                return granted


def bytes_of(file: File) -> dict[tuple[int, Owner], bool]:
    found: dict[tuple[int, Owner], bool] = {}
    for held in file.locks:
        for byte in range(held.start, held.end + 1):
            assert (byte, (held.node, held.owner)) not in found, "two locks of one owner on one byte"
            found[byte, (held.node, held.owner)] = held.ex
    return found


@given(STEPS)
def test_ranges_are_those_of_the_byte_model(steps: list[tuple[Owner, str, bool, int, int]]) -> None:
    file, model = File(), ByteModel()
    for ticket, (owner, what, ex, one, other) in enumerate(steps, 1):
        start, end = min(one, other), max(one, other)
        node, who = owner
        if what in ("lock", "try"):
            if any(w[1] == owner for w in model.waiting):
                continue  # its thread sleeps
            got = execute(file, node, ticket, lock(1, who, start, end, ex, what == "lock"))
            if model.free(owner, ex, start, end):
                model.take(owner, ex, start, end)
                assert [(r.ticket, r.rv) for r in got] == [(ticket, 0), *((t, 0) for t in model.grant())]
            elif what == "lock":
                model.waiting.append((ticket, owner, ex, start, end))
                assert got == []
            else:
                assert [(r.ticket, r.rv) for r in got] == [(ticket, -11)]
        elif what == "unlock":
            got = execute(file, node, ticket, unlock(1, who, start, end))
            model.release(owner, start, end)
            assert [(r.ticket, r.rv) for r in got] == [(ticket, 0), *((t, 0) for t in model.grant())]
        elif what == "close":
            got = execute(file, node, ticket, unlock(1, who, 0, END_MAX, close=True))
            gone = [w[0] for w in model.waiting if w[1] == owner]
            model.waiting = [w for w in model.waiting if w[1] != owner]
            model.release(owner, 0, BYTES)
            told = [*((t, NO_ANSWER) for t in gone), (ticket, NO_ANSWER), *((t, 0) for t in model.grant())]
            assert [(r.ticket, r.rv) for r in got] == told
        else:
            mine = [w for w in model.waiting if w[1] == owner]
            op = lock(1, who, mine[0][3], mine[0][4], mine[0][2]) if mine else lock(1, who, start, end, ex)
            got = execute(file, node, ticket, cancel(op))
            if mine:
                model.waiting.remove(mine[0])
                assert [(r.ticket, r.rv) for r in got] == [(mine[0][0], NO_ANSWER), (ticket, 0)]
            else:
                assert [(r.ticket, r.rv) for r in got] == [(ticket, -2)]
        assert bytes_of(file) == model.held
        assert [w.ticket for w in file.waiters] == [w[0] for w in model.waiting]


def test_what_is_next_to_a_joined_lock_keeps_its_bytes() -> None:
    """A read lock on a part of one that is held, whose neighbour is a write lock of the same owner: that one got a byte more."""
    file = File()
    for wanted in (Lock(1, 1, 7, False, 0, 1), Lock(1, 1, 7, True, 2, 2), Lock(1, 1, 7, False, 0, 0)):
        assert file.lock(wanted)
    assert sorted((held.start, held.end, held.ex) for held in file.locks) == [(0, 1, False), (2, 2, True)]


def test_neighbours_of_one_kind_are_one_lock() -> None:
    file = File()
    for start in (4, 0, 2, 6):
        assert file.lock(Lock(1, 1, 7, True, start, start + 1))
    assert file.locks == [Lock(1, 1, 7, True, 0, 7)]
    assert file.lock(Lock(1, 1, 7, False, 3, 4))
    assert sorted(file.locks, key=lambda held: held.start) == [
        Lock(1, 1, 7, True, 0, 2), Lock(1, 1, 7, False, 3, 4), Lock(1, 1, 7, True, 5, 7),
    ]  # fmt: skip


def test_the_record_is_the_kernels() -> None:
    """struct dlm_plock_info, 64 bytes; a GET's answer names the holder."""
    assert SIZE == 64
    record = RECORD.pack(*VERSION, 3, 1, 0, 0, 55, 0, 0, 9, 1234, 5, END_MAX, (1 << 64) - 8)
    fsid, op = read_record(record)
    assert fsid == 9
    assert op == Op(3, 1, 0, 0, 55, 1234, 5, END_MAX, (1 << 64) - 8)
    told = RECORD.unpack(answer(fsid, op, 1, Lock(2, 77, 66, False, 0, 9), 1))
    assert told == (1, 2, 0, 3, 0, 0, 0, 66, 2, 1, 9, 1234, 0, 9, (1 << 64) - 8)
    file = File([Lock(2, 77, 66, False, 0, 9)])
    assert execute(file, 1, 1, get(1, 5, 9, 20))[0].holder == file.locks[0]
    assert execute(file, 1, 1, get(1, 5, 9, 20, ex=False))[0].rv == 0


@given(st.binary(max_size=120))
def test_what_a_peer_makes_up_is_refused_or_understood(data: bytes) -> None:
    try:
        message = unpack(data)
    except RemoteError:
        return
    assert pack(message.kind, *message.values, body=message.body) == data


NO_FILES = [[1] * 8, [[[1, 2]], []], []], [[1, 9, *[0] * 6], [[], []], []], [[1] * 8, [[], []], [[1]]]


@pytest.mark.parametrize("tree", [None, 5, [], {}, [[1]], *NO_FILES])
def test_contents_that_a_peer_makes_up(tree: object) -> None:
    with pytest.raises(RemoteError):
        tree_entry(tree)
    with pytest.raises(RemoteError):
        unpack_tree(b"x" + pack_tree(tree))


def test_an_entry_survives_its_journey() -> None:
    entry = Entry(5, Mode.REVOKED, 2, 9, File([Lock(2, 1, 1, True, 0, END_MAX)]))
    assert tree_entry(unpack_tree(pack_tree(entry_tree(entry)))).file.locks == entry.file.locks
    assert unpack(pack(Kind.READY)).kind is Kind.READY
